"""Calls that are prepared: those of `_core` one after the other, on memory that they keep."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from core_table import ENTRIES, NUMBERS, arguments_of, make_arguments, plain_sizes

from dsr import _core, ops
from dsr.ops import prepared
from dsr.ops.sums import same_bits


def results(entry, arguments):
    return [a for a, stated in zip(arguments, arguments_of(entry), strict=True) if stated.output and a is not None]


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry not in NUMBERS])
def test_the_same_as_the_call(entry):
    """Twice, since outputs such as potentials are read too."""
    first, second = (make_arguments(entry, np.random.default_rng(0), sizes=plain_sizes(entry)) for _ in range(2))
    call = _core.prepare(((getattr(_core, entry), *second),))
    for _ in range(2):
        getattr(_core, entry)(*first)
        assert call() is None
        for expected, found in zip(results(entry, first), results(entry, second), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_several_in_order():
    words, values, back = np.array([[5]], np.uint32), np.empty((3, 1), np.float32), np.empty((1, 1), np.uint32)
    call = _core.prepare(
        ((_core.unpack_words, words, np.ones(3, np.float32), values), (_core.pack_words, values, back))
    )
    call()
    assert back[0, 0] == 5
    words[0, 0] = 2
    call()
    np.testing.assert_array_equal(values[:, 0], [0, 1, 0])
    assert back[0, 0] == 2
    assert _core.prepare(())() is None


def test_joined_calls_leave_others_where_they_are():
    done = []
    words, values = np.array([[1]], np.uint32), np.empty((1, 1), np.float32)
    unpack = prepared.Bound(_core.unpack_words, words, np.ones(1, np.float32), values)
    calls = prepared.join([unpack, unpack, lambda: done.append(values[0, 0]), unpack])
    assert len(calls) == 3
    for call in calls:
        call()
    assert done == [1]


def test_arrays_live_as_long_as_the_call():
    out = np.empty((1, 2), np.float32)
    call = _core.prepare(
        (
            (
                _core.affine,
                np.array([[1, 2]], np.float32),
                None,
                *[np.ones(1, np.float32), None] * 1,
                np.zeros(1, np.float32),
                out,
            ),
        )
    )
    gc.collect()
    call()
    np.testing.assert_array_equal(out, [[1, 2]])


@pytest.mark.parametrize("change", ["moved", "shorter"])
def test_memory_that_is_taken_away(change):
    words = np.zeros((1, 4096), np.uint32)
    call = _core.prepare(((_core.count_words, words, np.zeros(32, np.int64)),))
    call()
    words.resize((1, 2**20) if change == "moved" else (1, 2048), refcheck=False)
    message = "^count_words: argument 'words': expected the memory that the call was prepared with"
    with pytest.raises(RuntimeError, match=message):
        call()


def test_arguments_are_checked_when_calls_are_prepared():
    values, words = np.zeros((3, 4), np.float32), np.zeros((1, 4), np.uint32)
    with pytest.raises(ValueError, match=r"^pack_words: argument 'out': expected"):
        _core.prepare(((_core.pack_words, values, words), (_core.pack_words, values, words[:, :3])))
    with pytest.raises(TypeError, match=r"^pack_words: expected 2 arguments, got 1"):
        _core.prepare(((_core.pack_words, values),))
    with pytest.raises(TypeError, match=r"^pack_words: expected 2 arguments, got 30"):
        _core.prepare(((_core.pack_words, *[values] * 30),))
    for wrong in [[], (len,), ((),), ((len, []),), ((_core.level,),), ((_core.count_bits, words[0]),), None]:
        with pytest.raises(TypeError, match=r"^prepare: argument 'calls': expected"):
            _core.prepare(wrong)
    call = _core.prepare(((_core.pack_words, values, words),))
    for arguments, named in (((1,), {}), ((), {"a": 1})):
        with pytest.raises(TypeError, match=r"^prepared calls: expected no arguments"):
            call(*arguments, **named)
    with pytest.raises(TypeError):
        type(call)()


def test_threads_run_calls_of_their_own():
    """Scratch memory is kept for whoever comes next."""
    rng = np.random.default_rng(0)
    weight, geometry = rng.normal(size=(40, 40, 3, 3)).astype(np.float32), ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    words = rng.integers(0, 2**32, (2, 5, 5, 2, 3), dtype=np.uint32)
    words[1] &= 255
    expected = ops.conv2d_spikes(words, weight, None, 0.5, geometry, 1)
    found = [np.empty_like(expected) for _ in range(4)]

    def work(out):
        convolution = ops.SpikeConvolution(
            words, weight, None, 0.5, geometry, 1, packed=ops.pack_weights(weight, geometry)
        )
        (call,) = prepared.join([prepared.conv2d_spikes(convolution, False, out)])
        for _ in range(50):
            out[...] = 0
            call()

    threads = [threading.Thread(target=work, args=(out,)) for out in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for out in found:
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("batch", [1, 3, 200])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_of_all_steps_has_the_bits_of_each(batch, groups):
    """Of vectors (a linear layer), and of images as large as the kernel."""
    rng = np.random.default_rng(0)
    for kernel in ((1, 1), (2, 3)):
        values = rng.normal(size=(8, *kernel, 3, batch)).astype(np.float32)
        weight, bias = rng.normal(size=(12, 8 // groups, *kernel)).astype(np.float32), rng.normal(size=12)
        geometry = ops.Geometry(kernel, groups=groups)
        out = np.empty((12, 1, 1, 3, batch), np.float32)
        prepared.conv2d_by_step(values, weight, bias.astype(np.float32), geometry, out)()
        for t in range(3):
            step = np.ascontiguousarray(values[:, :, :, t])
            np.testing.assert_array_equal(out[:, :, :, t], ops.conv2d(step, weight, bias.astype(np.float32), geometry))
    with pytest.raises(
        ValueError, match=r"^conv2d_by_step: argument 'geometry': expected one that gives one output pixel"
    ):
        _core.conv2d_by_step(
            np.zeros((1, 2, 1, 1, 1), np.float32),
            np.zeros((1, 1, 1, 1), np.float32),
            None,
            ops.Geometry((1, 1)),
            np.zeros((1, 2, 1, 1, 1), np.float32),
        )


def test_the_same_bits():
    a = np.random.default_rng(0).normal(size=(3, 70001)).astype(np.float32)
    a[0, 0] = np.nan
    assert same_bits(a, a.copy()) and same_bits(a[:, ::2], a[:, ::2].copy()) and same_bits(a[:0], a[:0])
    for at in ((0, 0), (1, 65536), (2, 70000)):
        b = a.copy()
        b.view(np.uint32)[at] ^= 1
        assert not same_bits(a, b) and not same_bits(b, a)
    assert not same_bits(a, a.reshape(-1)) and not same_bits(np.zeros(2, np.float32), np.zeros(2, np.int32))
    assert not same_bits(np.zeros(1, np.float32), np.full(1, -0.0, np.float32))
    assert same_bits(np.arange(3), np.arange(3)) and not same_bits(np.arange(3), np.arange(1, 4))
