"""Integer convolutions and neurons: equal to the oracle in every way of doing them, for any weights."""

from dataclasses import replace

import numpy as np
import pytest
from ops_table import bits

import dsr
from dsr import ops, reference
from dsr.ops import integers, prepared_integers

# in and out channels, height, width, T, B, geometry
SHAPES = [
    (1, 1, 1, 1, 1, 1, ops.Geometry((1, 1))),
    (33, 70, 5, 4, 3, 7, ops.Geometry((3, 3), padding=(1, 1, 1, 1))),
    (64, 64, 4, 4, 5, 32, ops.Geometry((3, 3), (2, 2), (1, 1, 0, 1))),
    (40, 130, 3, 5, 2, 13, ops.Geometry((2, 3), dilation=(1, 2), padding=(1, 0, 2, 2))),
    (100, 10, 1, 1, 5, 30, ops.Geometry((1, 1))),
    (66, 132, 4, 3, 2, 17, ops.Geometry((3, 3), padding=(1, 1, 1, 1), groups=66)),
    (70, 35, 3, 3, 2, 5, ops.Geometry((2, 2), groups=5)),
    (20, 33, 3, 4, 2, 9, ops.Geometry((4, 4), (2, 2), (1, 1, 1, 1)).mirrored()),
    (7, 3, 12, 12, 1, 3, ops.Geometry((11, 11), padding=(5, 5, 5, 5))),
    (31, 65, 3, 2, 2, 700, ops.Geometry((2, 2))),
]


def case(shape, density=0.2, most=127, seed=0):
    channels, out, height, width, timesteps, batch, geometry = shape
    rng = np.random.default_rng(seed)
    spikes = (rng.random((channels, height, width, timesteps, batch)) < density).astype(np.float32)
    weight = rng.integers(-most, most + 1, (out, channels // geometry.groups, *geometry.kernel))
    return rng, ops.pack_words(spikes), weight, geometry


def table_bits(geometry):
    return [b for b in (1, 2, 4) if geometry.taps <= ops.MOST_TAPS // b]


@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_currents(shape, density):
    rng, words, weight, geometry = case(shape, density)
    expected = reference.integer_conv2d_spikes(words, weight, geometry, 2)
    packed = ops.pack_integers(weight, geometry, shape[0])
    before = rng.integers(-1000, 1000, expected.shape)
    for b in table_bits(geometry):
        rows = integers.rows_of(before)
        ops.integer_conv2d_spikes(words, packed, 2, b, rows)
        np.testing.assert_array_equal(integers.values_of(rows, len(weight)), before + expected)
        assert not rows[-1, ..., len(weight) % 64 or 64 :].any()


@pytest.mark.parametrize("decay", [1 << 15, 30000, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_neurons(shape, decay):
    """With and without what is added: a current of every step or of one, spikes as they are, kept potentials."""
    rng, words, weight, geometry = case(shape)
    channels, packed = len(weight), ops.pack_integers(weight, geometry, shape[0])
    convolved = reference.integer_conv2d_spikes(words, weight, geometry, 1)
    reset = rng.integers(1, 4096, channels).astype(np.int32)
    fire = rng.integers(1, reset + 1).astype(np.int32)
    bias, heights = (rng.integers(-300, 300, channels).astype(np.int32) for _ in range(2))
    neurons = ops.IntegerNeurons(bias, reset, fire, decay)
    shortcut = bits(rng, channels, *convolved.shape[1:])
    by_channel = (channels, 1, 1, 1, 1)
    plain = convolved + bias.reshape(by_channel)
    added = reference.unpack_words(shortcut, channels).astype(np.int64) * heights.reshape(by_channel)
    for steps in (1, words.shape[3]):
        other = rng.integers(-500, 500, (*convolved.shape[:3], steps, convolved.shape[4]))
        start = rng.integers(-32767, 32768, (*convolved.shape[:3], convolved.shape[4]))
        expected, potentials = reference.integer_neurons(plain + added + other, reset, fire, decay, start)
        for b in table_bits(geometry):
            kept = np.zeros((-(-channels // 64), *start.shape[1:], 64), np.int16)
            for k in range(len(kept)):
                part = start[64 * k : 64 * k + 64]
                kept[k, ..., : len(part)] = np.moveaxis(part, 0, -1)
            read = ops.IntegerInput(words, packed, 1, b, shortcut, heights)
            out = ops.integer_conv2d_neuron_spikes(read, neurons, integers.rows_of(other), kept)
            np.testing.assert_array_equal(out, expected)
            found = np.moveaxis(kept, -1, 1).reshape(-1, *start.shape[1:])[:channels]
            np.testing.assert_array_equal(found, potentials)
    expected, _ = reference.integer_neurons(plain, reset, fire, decay)
    for b in table_bits(geometry):
        np.testing.assert_array_equal(
            ops.integer_conv2d_neuron_spikes(ops.IntegerInput(words, packed, 1, b), neurons), expected
        )


@pytest.mark.parametrize("shift", [3, 0, -4])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 65, 40, 21, 3, 2, ops.Geometry((16, 10), (8, 8)))])
def test_values(shape, shift):
    """Of one step and of each, to rows that have something already, and through neurons."""
    channels, outputs, height, width, timesteps, batch, geometry = shape
    rng, _, weight, _ = case(shape)
    packed = ops.pack_for_values(weight, geometry, channels)
    reset = rng.integers(1, 4096, outputs).astype(np.int32)
    bias, heights = (rng.integers(-300, 300, outputs).astype(np.int32) for _ in range(2))
    neurons, by_channel = ops.IntegerNeurons(bias, reset, reset // 2 + 1, 30000), (outputs, 1, 1, 1, 1)
    for steps in {1, timesteps}:
        values = rng.integers(-32767, 32768, (channels, height, width, steps, batch)).astype(np.int32)
        values[rng.random(values.shape) < 0.5] = rng.choice([-32767, 32767])
        flat = values.reshape(channels, height, width, -1).astype(np.int64)
        sums = reference.conv2d(flat, weight, None, geometry)
        sums = (sums << shift if shift >= 0 else sums + (1 << -shift - 1) >> -shift).astype(np.int32)
        sums = sums.reshape(*sums.shape[:3], steps, batch)
        before = rng.integers(-1000, 1000, sums.shape)
        rows = integers.rows_of(before)
        prepared_integers.conv2d(values, packed, shift, rows)()
        np.testing.assert_array_equal(integers.values_of(rows, outputs), (before + sums).astype(np.int32))
        shortcut = bits(rng, outputs, *sums.shape[1:3], timesteps, batch)
        added = reference.unpack_words(shortcut, outputs).astype(np.int64) * heights.reshape(by_channel)
        current, v = sums + added + bias.reshape(by_channel), neurons.new_potentials(*sums.shape[1:3], batch)
        expected, potentials = reference.integer_neurons(current, reset, reset // 2 + 1, 30000)
        out = np.empty_like(expected)
        prepared_integers.conv2d_value_neuron_spikes(values, packed, shift, neurons, (shortcut, heights), v, out)()
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(np.moveaxis(v, -1, 1).reshape(-1, *v.shape[1:4])[:outputs], potentials)


def test_neurons_alone():
    """No convolution: they read rows."""
    rng = np.random.default_rng(3)
    current = rng.integers(-400, 500, (70, 3, 2, 5, 9))
    bias, reset = np.full(70, 20, np.int32), rng.integers(100, 900, 70).astype(np.int32)
    neurons = ops.IntegerNeurons(bias, reset, reset // 2)
    nothing = ops.IntegerInput(np.empty((0, *current.shape[1:]), np.uint32), ops.PackedWeights.none(70))
    expected, _ = reference.integer_neurons(current + 20, reset, reset // 2)
    found = ops.integer_conv2d_neuron_spikes(nothing, neurons, integers.rows_of(current))
    np.testing.assert_array_equal(found, expected)
    assert 0.1 < ops.count_bits(found) / current.size < 0.9


def test_potentials_are_cut_off():
    """Far beyond 16 bits on both sides."""
    current = np.zeros((2, 1, 1, 4, 1), np.int64)
    current[:, 0, 0, :, 0] = [[10**6, -40000, 5, -(10**6)], [-(10**6), 32767, 1, 10**9]]
    reset = np.array([4095, 4095], np.int32)
    neurons = ops.IntegerNeurons(np.zeros(2, np.int32), reset, np.array([4000, 1], np.int32))
    kept = neurons.new_potentials(1, 1, 1)
    nothing = ops.IntegerInput(np.empty((0, 1, 1, 4, 1), np.uint32), ops.PackedWeights.none(2))
    spikes = ops.unpack_words(
        ops.integer_conv2d_neuron_spikes(nothing, neurons, integers.rows_of(current), kept), 2
    ).reshape(2, 4)
    # 32767 - 4095 = 28672, - 40000 = -11328, + 5, then -32767; -32767 + 32767 = 0, 1: a spike, 32767: a spike
    np.testing.assert_array_equal(spikes, [[1, 0, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_array_equal(kept.reshape(64)[:2], [-32767, 32767 - 4095])


@pytest.mark.parametrize(("fire", "largest"), [(1, 32768), (-5, 32762), (-(10**6), 0), (10**9, 10**9 + 32767)])
def test_resets_that_16_bits_do_not_hold_are_refused(fire, largest):
    """The largest one leaves the lowest potential that there is; one more would wrap around to a high one."""
    nothing = ops.IntegerInput(np.empty((0, 1, 1, 1, 1), np.uint32), ops.PackedWeights.none(2))
    numbers = [np.array([n, n], np.int32) for n in (0, largest, fire)]
    current = np.full((2, 1, 1, 1, 1), max(fire, -32767), np.int64)
    neurons = ops.IntegerNeurons(*numbers)
    kept = neurons.new_potentials(1, 1, 1)
    ops.integer_conv2d_neuron_spikes(nothing, neurons, integers.rows_of(current), kept)
    assert kept.reshape(64)[0] == (32767 if fire > 32767 else -32767)
    for wrong in (largest + 1, -1):
        numbers[1] = np.array([0, wrong], np.int32)
        with pytest.raises(ValueError, match=r"argument 'reset': expected numbers from 0 to fire \+ 32767"):
            ops.integer_conv2d_neuron_spikes(nothing, ops.IntegerNeurons(*numbers))


def test_sums_beyond_16_bits_are_packed_in_parts():
    _, words, weight, geometry = case((40, 65, 3, 3, 2, 9, ops.Geometry((3, 3))), 0.9, 32767)
    packed = ops.pack_integers(weight, geometry, 40)
    assert len(packed.parts) > 10
    total = sum(part.astype(np.int64) for part in packed.parts)
    for part in packed.parts:
        subsets = np.maximum(part, 0).sum(axis=2, dtype=np.int64), np.minimum(part, 0).sum(axis=2, dtype=np.int64)
        assert subsets[0].max() <= 32767 and subsets[1].min() >= -32767
    assert np.abs(total).sum() == np.abs(weight).sum()
    rows = integers.new_rows(65, 1, 1, 2, 9)
    ops.integer_conv2d_spikes(words, packed, 0, 4, rows)
    expected = reference.integer_conv2d_spikes(words, weight, geometry)
    np.testing.assert_array_equal(integers.values_of(rows, 65), expected)
    one = np.ones(65, np.int32)
    neurons = ops.IntegerNeurons(one, 4000 * one, 2000 * one)
    found = ops.integer_conv2d_neuron_spikes(ops.IntegerInput(words, packed, 0, 1), neurons)
    np.testing.assert_array_equal(found, reference.integer_neurons(expected + 1, 4000 * one, 2000 * one)[0])


@pytest.mark.parametrize(("weight", "together"), [(17, (4,)), (40, (2,)), (100, (1,)), (127, (1, 4))])
def test_blocks_are_added_up_in_16_bits_as_long_as_they_fit(weight, together):
    """Four blocks of 288 rows, of which all are added: 4 * 288 * 17 fits, 3 * 288 * 40 does not, 288 * 127 does not."""
    geometry = ops.Geometry((3, 3))
    words = np.full((4, 3, 3, 1, 2), 0xFFFFFFFF, np.uint32)
    weights = np.full((65, 128, 3, 3), weight)
    weights[1::2] *= -1
    packed = ops.pack_integers(weights, geometry, 128)
    assert packed.together == together
    rows = integers.new_rows(65, 1, 1, 1, 2)
    ops.integer_conv2d_spikes(words, packed, 3, 1, rows)
    expected = np.where(np.arange(65) % 2, -1, 1) * 1152 * weight * 8
    np.testing.assert_array_equal(integers.values_of(rows, 65)[:, 0, 0, 0, 0], expected)


def test_blocks_that_are_said_to_fit_are_added_in_16_bits():
    """By every function that has weights: where it is said of blocks that do not fit, their sum wraps around."""
    geometry, words = ops.Geometry((3, 3)), np.full((4, 3, 3, 1, 2), 0xFFFFFFFF, np.uint32)
    packed = replace(ops.pack_integers(np.full((2, 128, 3, 3), 40), geometry, 128), together=(4,))
    wrapped = 1152 * 40 - 2**16
    rows, again = integers.new_rows(2, 1, 1, 1, 2), integers.new_rows(2, 1, 1, 1, 2)
    ops.integer_conv2d_spikes(words, packed, 0, 1, rows)
    (call,) = prepared_integers.conv2d_spikes(words, packed, 0, 1, again)
    call()
    for found in (rows, again):
        np.testing.assert_array_equal(integers.values_of(found, 2), np.full((2, 1, 1, 1, 2), wrapped))
    for bias, fires in ((-wrapped, True), (-wrapped - 1, False)):
        one = np.ones(2, np.int32)
        neurons, read = ops.IntegerNeurons(bias * one, 4000 * one, 0 * one), ops.IntegerInput(words, packed, 0, 1)
        out = np.empty((1, 1, 1, 1, 2), np.uint32)
        prepared_integers.conv2d_neuron_spikes(read, neurons, None, None, out)()
        for found in (out, ops.integer_conv2d_neuron_spikes(read, neurons)):
            np.testing.assert_array_equal(found, 3 * fires)


def test_eight_bits_of_a_3x3_kernel_are_one_part():
    """What networks have; sums of all weights of a block stay within 16 bits here."""
    _, _, weight, geometry = case(SHAPES[1])
    assert len(ops.pack_integers(weight, geometry, 33).parts) == 1


@pytest.mark.parametrize("sizes", [(64, 130, 9, 9, 3, 40), (256, 320, 3, 3, 3, 12)])
def test_the_same_for_any_number_of_threads(sizes):
    """Of many tiles, and of one with much to add, whose output channels are shared out among the threads."""
    _, words, weight, geometry = case((*sizes, ops.Geometry((3, 3), padding=(1, 1, 1, 1))))
    packed, channels = ops.pack_integers(weight, geometry, sizes[0]), np.full(sizes[1], 500, np.int32)
    before, results = dsr.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            dsr.set_num_threads(threads)
            read = ops.IntegerInput(words, packed, 0, 2)
            results.append(ops.integer_conv2d_neuron_spikes(read, ops.IntegerNeurons(channels, channels, channels)))
    finally:
        dsr.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.astype(np.float32), "argument 'weight': expected integers, got float32"),
        (lambda w: w[:, :2], r"expected \(O, 3 / 1, KH, KW\), got shape \(4, 2, 3, 3\)"),
        (lambda w: w[..., :2], r"expected the \(3, 3\) taps of 'geometry'"),
        (lambda w: w * 1000, r"expected integers in \[-32767, 32767\]"),
    ],
)
def test_weights_that_cannot_be_packed(change, message):
    weight = np.full((4, 3, 3, 3), 100)
    with pytest.raises((TypeError, ValueError), match=f"^pack_integers: .*{message}"):
        ops.pack_integers(change(weight), ops.Geometry((3, 3)), 3)


def test_rows_in_a_copy_are_refused():
    _, words, weight, geometry = case(SHAPES[1])
    packed = ops.pack_integers(weight, geometry, 33)
    rows = integers.new_rows(70, 5, 4, 3, 7)
    with pytest.raises(ValueError, match="argument 'rows': expected a C-contiguous array"):
        ops.integer_conv2d_spikes(words, packed, 0, 1, np.asfortranarray(rows))
