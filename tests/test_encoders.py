"""Spike encoders: parity with the oracle, the documented decoders and their bounds, and the random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_same
from functional_table import FUNCTIONS, make_call
from hypothesis import given
from hypothesis import strategies as st

from dsr import functional, reference

ENCODERS = [name for name in FUNCTIONS if name.startswith("encode_")]
REALS = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("function", ENCODERS)
def test_parity(function, dtype, rng):
    for timesteps in (1, 2, 7, 16, 33):
        for shape in ((), (0,), (1,), (15,), (16,), (17,), (511,), (512,), (513,), (1030,), (3, 5, 7)):
            call = make_call(function, rng, (timesteps, *shape), dtype)
            assert_same(getattr(functional, function)(**call), getattr(reference, function)(**call))


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("bits", [1, 2, 5, 23, 24])
def test_phase_parity(bits, dtype, rng):
    values = np.concatenate([rng.random(500), [0, 1, 0.5, 2.0**-24, 1 - 2.0**-24]]).astype(dtype)
    assert_same(functional.encode_phase(values, 50, bits), reference.encode_phase(values, 50, bits))


@pytest.mark.parametrize("function", ENCODERS)
def test_threads(function, threads, rng):
    """Large enough for a team, in several chunks, the last one not whole."""
    call = make_call(function, rng, (20, 5003))
    assert_same(getattr(functional, function)(**call), getattr(reference, function)(**call))


# ---- decoders ------------------------------------------------------------------------------------------------------

UNIT = st.floats(0, 1, width=32)


def both(values):
    """A list of float32 numbers as arrays of either dtype."""
    return [np.array(values, dtype) for dtype in REALS]


@given(st.lists(st.floats(-1e6, 1e6, width=32), max_size=20), st.integers(1, 100))
def test_direct_decoder(values, timesteps):
    """T - 1 additions and a division round, each by at most eps of a sum below T|x|."""
    for x in both(values):
        decoded = functional.firing_rate(functional.encode_direct(x, timesteps))
        assert (np.abs(decoded - x) <= timesteps * np.finfo(x.dtype).eps * np.abs(x)).all()


@given(st.lists(UNIT, max_size=20), st.integers(1, 300))
def test_latency_decoder(values, timesteps):
    """One spike; half a step of error, and two roundings of a number below T (product and sum)."""
    for x in both(values):
        train = functional.encode_latency(x, timesteps)
        assert (train.sum(axis=0) == 1).all()
        assert (train.max(initial=0), train.min(initial=0)) == (float(x.size > 0), 0) or timesteps == 1
        if timesteps > 1:
            decoded = 1 - train.argmax(axis=0) / (timesteps - 1)
            rounding = 2 * np.finfo(x.dtype).eps * timesteps / (timesteps - 1)
            assert (np.abs(decoded - x) <= 0.5 / (timesteps - 1) + rounding).all()


@given(st.lists(UNIT, max_size=20), st.integers(1, 24), st.integers(1, 3), st.integers(0, 23))
def test_phase_decoder(values, bits, periods, rest):
    """Never above the value, at most 2**-bits below; comparisons and subtractions of binary digits are exact."""
    timesteps = bits * periods + rest % bits
    weights = 2.0 ** -(1 + np.arange(timesteps) % bits)
    for x in both(values):
        train = functional.encode_phase(x, timesteps, bits)
        assert set(np.unique(train)) <= {0, 1}
        for first in range(timesteps - bits + 1):  # any window of one period, wherever it starts
            period = slice(first, first + bits)
            missing = x - np.tensordot(weights[period], train[period].astype(np.float64), 1)
            assert ((missing >= 0) & (missing <= 2.0**-bits)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 16))
def test_delta_decoder(seed, timesteps, sixteenths):
    """A signal in steps of at most the threshold is followed within it. Multiples of 2**-10: sums are exact."""
    threshold = sixteenths / 16
    steps = np.random.default_rng(seed).integers(-64 * sixteenths, 64 * sixteenths + 1, (timesteps, 8)) / 1024
    for signal in both(np.cumsum(steps, axis=0)):
        train = functional.encode_delta(signal, threshold)
        assert set(np.unique(train)) <= {-1, 0, 1}
        assert not train[0].any()
        decoded = signal[0] + threshold * np.cumsum(train, axis=0)
        assert (np.abs(decoded - signal) < threshold).all()


# ---- random numbers ------------------------------------------------------------------------------------------------


def philox4x32(counter, key):
    """Philox4x32-10 on a whole 128-bit counter, written from the paper (Salmon et al., SC 2011)."""
    x, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [q >> 32 ^ x[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ x[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


# the lines "philox4x32 10" of kat_vectors in the Random123 distribution: counter, key, words
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def test_known_answers():
    """Two of the three have a counter of more than 64 bits, which dsr does not use: they check the test's Philox."""
    for line in KNOWN_ANSWERS:
        counter, key, words = ([int(word, 16) for word in part.split()] for part in line)
        assert philox4x32(counter, key) == words
    assert reference.philox(np.array([0], np.uint64), 0)[0].tolist() == [
        int(word, 16) for word in KNOWN_ANSWERS[0][2].split()
    ]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_oracle_is_philox(block, seed):
    """The block is the low half of the counter, the seed is the key, low words first."""
    words = reference.philox(np.array([block], np.uint64), seed)[0].tolist()
    assert words == philox4x32((block & 0xFFFFFFFF, block >> 32, 0, 0), (seed & 0xFFFFFFFF, seed >> 32))


@given(st.integers(0, 2**64 - 1), st.integers(1, 5), st.integers(1, 40))
def test_compiled_stream_word_by_word(seed, timesteps, n):
    """A rate of word / 2**32 must not fire and (word + 1) / 2**32 must: this pins every number of the stream."""
    row = -(-n // 4) * 4
    words = np.array(
        [philox4x32((block, 0, 0, 0), (seed & 0xFFFFFFFF, seed >> 32)) for block in range(timesteps * row // 4)]
    ).reshape(timesteps, row)[:, :n]
    for t in range(timesteps):
        for rate, expected in ((words[t] / 2**32, 0), ((words[t] + 1) / 2**32, 1)):
            assert (functional.encode_bernoulli(rate, timesteps, seed)[t] == expected).all()


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_bernoulli_statistics(seed):
    """Counts of 400 rates over 2000 steps, and neighbours in time and space.

    The seeds are fixed, so the outcome is too; a perfect generator would fail a check for about 2 in 10**9 seeds
    (6 standard deviations of a normal variable; the sum of 400 squares and the products are close to normal).
    """
    timesteps, n = 2000, 400
    rate = (np.arange(n) + 0.5) / n
    train = functional.encode_bernoulli(rate, timesteps, seed)
    deviation = np.sqrt(rate * (1 - rate))
    noise = (train - rate) / deviation  # mean 0, variance 1, independent
    squares = (noise.sum(axis=0) ** 2 / timesteps).sum()  # chi-square with n degrees of freedom
    assert abs(squares - n) < 6 * np.sqrt(2 * n)
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[:, 4:], noise[:, :-4])):
        assert abs((a * b).sum()) < 6 * np.sqrt(a.size)
    other = (functional.encode_bernoulli(rate, timesteps, seed ^ 3) - rate) / deviation
    assert abs((noise * other).sum()) < 6 * np.sqrt(noise.size)


def test_bernoulli_ends():
    train = functional.encode_bernoulli([0.0, 1.0], 5000)
    assert train.sum(axis=0).tolist() == [0, 5000]


# ---- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ENCODERS)
def test_arguments_out_of_range(function, rng):
    call = make_call(function, rng)
    run = getattr(functional, function)
    wrong = {
        "timesteps": [(ValueError, 0), (ValueError, -1), (ValueError, 2**31), (TypeError, 2.0), (TypeError, None)],
        "seed": [(ValueError, -1), (ValueError, 2**64), (TypeError, 0.5), (TypeError, "0")],
        "bits": [(ValueError, 0), (ValueError, 25), (ValueError, 10**30), (TypeError, 8.0)],
        "threshold": [(ValueError, 0), (ValueError, float("nan")), (TypeError, "1")],
    }
    for name, cases in wrong.items():
        for error, value in cases if name in call else []:
            with pytest.raises(error, match=f"^{function}: argument '{name}'"):
                run(**{**call, name: value})


@pytest.mark.parametrize("function", ["encode_bernoulli", "encode_latency", "encode_phase"])
@pytest.mark.parametrize("value", [-1e-30, 1.0000001, np.nan, np.inf])
def test_values_out_of_range(function, value):
    expected = "values in" if np.isfinite(value) else "finite values, got 1 of 2"
    with pytest.raises(ValueError, match=f"^{function}: argument '(rate|value)': expected {expected}"):
        getattr(functional, function)([0.5, value], 4)
