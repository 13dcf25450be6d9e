"""Convolutions over spikes: exact with dyadic weights, within the bound with any, the same bits everywhere.

Weights are multiples of 2**-6 below 1 and gradients multiples of 2**-6 below 16, so every partial sum of this file is
a multiple of 2**-7 below 2**17 and exact in float32 whatever the order.
"""

from dataclasses import replace

import numpy as np
import pytest
from checks import dyadic

import dsr
from dsr import _core, ops, reference
from dsr.nn.currents import Computed, Current
from dsr.nn.gradients import Gradient
from dsr.nn.run import Budget

# in and out channels, height, width, T, B, kernel, stride, padding
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1, 1, 0),
    (33, 5, 5, 4, 3, 7, 3, 1, 1),
    (64, 64, 4, 4, 5, 32, 3, 1, 1),
    (40, 70, 6, 7, 3, 13, 3, 2, 1),
    (32, 33, 4, 4, 4, 16, 1, 2, 0),
    (3, 4, 9, 8, 2, 2, 5, 1, 2),
    (100, 10, 1, 1, 5, 30, 1, 1, 0),
    (7, 3, 12, 12, 1, 3, 11, 1, 5),
    (31, 32, 6, 6, 2, 300, 2, 2, 0),
    (5, 3, 7, 7, 2, 4, 3, 3, 2),
]
PADDED, POINTWISE = ops.Geometry((3, 3), padding=(1, 1, 1, 1)), ops.Geometry((1, 1))
DENSITIES = [0.0, 0.05, 0.3, 1.0]


def case(shape, density, seed=0):
    channels, out, height, width, timesteps, batch, kernel, stride, padding = shape
    rng = np.random.default_rng(seed)
    spikes = (rng.random((channels, height, width, timesteps, batch)) < density).astype(np.float32)
    weight, bias = dyadic(rng, (out, channels, kernel, kernel)), dyadic(rng, out)
    possible = [table_bits for table_bits in (1, 2, 4) if kernel * kernel <= ops.MOST_TAPS // table_bits]
    return rng, ops.pack_words(spikes), weight, bias, ops.Geometry.of("case", kernel, stride, padding), possible


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_exact(shape, density):
    _, words, weight, bias, geometry, possible = case(shape, density)
    expected = reference.conv2d_spikes(words, weight.astype(np.float64), bias.astype(np.float64), 0.5, geometry)
    for table_bits in possible:
        out = ops.conv2d_spikes(words, weight, bias, 0.5, geometry, table_bits)
        np.testing.assert_array_equal(out, expected)
        added = ops.conv2d_spikes(words, weight, bias, 0.5, geometry, table_bits, np.ones_like(out))
        np.testing.assert_array_equal(added, expected + 1)
        plain = ops.conv2d_spikes(words, weight, None, 0.5, geometry, table_bits)
        np.testing.assert_array_equal(plain, expected - bias.reshape(-1, 1, 1, 1, 1))


@pytest.mark.parametrize("kind", ["if", "lif"])
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_neurons_in_the_convolution_fire_as_after_it(shape, density, kind):
    """Against the oracle (dyadic currents are exact there and here), and against the operations one by one."""
    rng, words, weight, bias, geometry, possible = case(shape, density)
    channels = len(weight)
    scale, shift = rng.normal(1, 1, channels).astype(np.float32), rng.normal(0, 1, channels).astype(np.float32)
    model = ops.if_model(0.75, 0.5) if kind == "if" else ops.lif_model(0.3, 1.0, 0.2, 0.5)
    for b, s, normalise in ((bias, True, True), (None, False, False), (bias, True, False)):
        convolution = ops.SpikeConvolution(words, weight, b, 0.5, geometry, possible[0])
        if s:
            out = convolution.output_words()
            shortcut = ops.pack_words((rng.random((channels, *out.shape[1:])) < 0.3).astype(np.float32))
            convolution = replace(convolution, shortcut=shortcut, shortcut_amplitude=0.25)
        factors = (scale, shift) if normalise else (None, None)
        expected = reference.conv2d_neuron_spikes(convolution, model, *factors)
        for table_bits in possible:
            out = ops.conv2d_neuron_spikes(replace(convolution, table_bits=table_bits), model, *factors)
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_over_time_come_with_the_spikes(shape):
    """With the bits of `neuron_spikes` on the current written out; and alone, exactly."""
    rng, words, weight, bias, geometry, possible = case(shape, 0.3)
    channels, timesteps = len(weight), shape[4]
    scale, shift = rng.normal(1, 1, channels).astype(np.float32), rng.normal(0, 1, channels).astype(np.float32)
    weights, powers = rng.random(timesteps).astype(np.float32), np.float32(2) ** np.arange(timesteps, dtype=np.float32)
    convolution = ops.SpikeConvolution(words, weight, bias, 0.5, geometry, possible[-1])
    shortcut = ops.pack_words((rng.random((channels, *convolution.output_words().shape[1:])) < 0.3).astype(np.float32))
    heights = dyadic(rng, channels)
    for c in (convolution, replace(convolution, shortcut=shortcut, shortcut_amplitude=heights, bias=None)):
        current = ops.conv2d_spikes(words, weight, c.bias, 0.5, geometry, c.table_bits)
        if c.shortcut is not None:
            ops.add_words(shortcut, current, heights)
        for model in (ops.if_model(0.75, 0.5), ops.lif_model(np.full(channels, 0.3, np.float32), 1.0, 0.2, 0.5)):
            fused, total = ops.conv2d_neuron_spikes(c, model, scale, shift, weights=weights)
            expected, _, weighted = ops.neuron_spikes(current, timesteps, model, weights, scale, shift)
            np.testing.assert_array_equal(fused, expected)
            np.testing.assert_array_equal(total, weighted)
        total = ops.conv2d_spikes_sum(c, powers)
        np.testing.assert_array_equal(total, reference.conv2d_spikes_sum(c, powers))


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_long_and_short_runs_of_lanes(kind):
    """T beyond a tile, and a batch of one: weights are not dyadic here, the order of sums must be the same."""
    rng = np.random.default_rng(5)
    for timesteps, batch in ((1500, 1), (1, 1500), (90, 3), (3, 17)):
        words = ops.pack_words((rng.random((40, 3, 2, timesteps, batch)) < 0.2).astype(np.float32))
        weight, bias = rng.normal(size=(35, 40, 3, 3)).astype(np.float32), rng.normal(size=35).astype(np.float32)
        convolution = ops.SpikeConvolution(words, weight, bias, 0.3, PADDED, 1)
        current = ops.conv2d_spikes(words, weight, bias, 0.3, PADDED, 1)
        model = ops.if_model(1.0, 0.5) if kind == "if" else ops.lif_model(0.3, 1.0, 0.1, 0.5)
        fused = ops.conv2d_neuron_spikes(convolution, model)
        expected = ops.neuron_spikes(current, timesteps, model)[0]
        np.testing.assert_array_equal(fused, expected)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_weight_gradient_is_exact(shape, density):
    rng, words, weight, _, geometry, possible = case(shape, density)
    rows, columns = geometry.output_size(*words.shape[1:3])
    steps = (len(weight), rows, columns, *words.shape[3:])
    constant, values = dyadic(rng, (*steps[:3], steps[4])), dyadic(rng, steps, 8)
    slope = dyadic(rng, len(weight), 8) * 8
    for s, v in ((slope, values), (None, None)):
        grad = np.broadcast_to(constant[:, :, :, np.newaxis], steps).astype(np.float64)
        if v is not None:
            grad = grad + s.astype(np.float64).reshape(-1, 1, 1, 1, 1) * v
        expected = reference.conv2d_spikes_weight_gradient(grad, words, weight.shape, 0.5, geometry)
        for table_bits in possible:
            out = ops.conv2d_spikes_weight_gradient(constant, s, v, words, weight.shape, 0.5, geometry, table_bits)
            np.testing.assert_array_equal(out, expected)
    weights = 2.0 ** np.arange(shape[4])
    grad = constant[:, :, :, np.newaxis].astype(np.float64) * weights[:, np.newaxis]
    expected = reference.conv2d_spikes_weight_gradient(grad, words, weight.shape, 0.5, geometry)
    for table_bits in possible:
        out = ops.conv2d_spikes_weight_gradient(
            constant, None, None, words, weight.shape, 0.5, geometry, table_bits, weights.astype(np.float32)
        )
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("table_bits", [1, 2, 4])
def test_random_weights_stay_within_the_bound(table_bits):
    rng = np.random.default_rng(1)
    words = ops.pack_words((rng.random((96, 6, 6, 4, 20)) < 0.3).astype(np.float32))
    weight = rng.normal(size=(40, 96, 3, 3)).astype(np.float32)
    out = ops.conv2d_spikes(words, weight, None, 0.7, PADDED, table_bits)
    exact = reference.conv2d_spikes(words, weight.astype(np.float64), None, float(np.float32(0.7)), PADDED)
    size = reference.conv2d_spikes(words, np.abs(weight).astype(np.float64), None, float(np.float32(0.7)), PADDED)
    assert (np.abs(out - exact) <= (9 * 96 + 2) * 2.0**-24 * size).all()


def test_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(2)
    words = ops.pack_words((rng.random((64, 9, 9, 3, 40)) < 0.1).astype(np.float32))
    weight, values = rng.normal(size=(70, 64, 3, 3)), rng.normal(size=(70, 9, 9, 3, 40))
    weight, values, slope = weight.astype(np.float32), values.astype(np.float32), np.ones(70, np.float32)
    before, results = dsr.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            dsr.set_num_threads(threads)
            out = ops.conv2d_spikes(words, weight, None, 1.0, PADDED, 2)
            constant = np.ascontiguousarray(values[:, :, :, 0])
            grad = ops.conv2d_spikes_weight_gradient(constant, slope, values, words, weight.shape, 1.0, PADDED, 2)
            results.append((out, grad))
    finally:
        dsr.set_num_threads(before)
    for out, grad in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(grad, results[0][1])


def test_lists_beyond_32_bits_are_refused():
    """Their ends are 32-bit numbers. Nothing is computed, and of the large arrays nothing is touched."""
    words, weight = np.zeros((1, 1, 1, 1_200_000, 1), np.uint32), np.zeros((1, 32, 11, 11), np.float32)
    convolution = ops.SpikeConvolution(words, weight, None, 1.0, ops.Geometry.of("test", 11, 1, 5), 1)
    with pytest.raises(ValueError, match=r"^conv2d_neuron_spikes: argument 'words': expected fewer elements on axis T"):
        ops.conv2d_neuron_spikes(convolution, ops.if_model(1.0))
    channels = 2**24
    transposed, out = np.zeros((1, 1, 8, channels), np.uint32), np.zeros((1, channels, 1, 1), np.float32)
    constant = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"^conv2d_spikes_weight_gradient: argument 'transposed': expected fewer elem"):
        _core.conv2d_spikes_weight_gradient(constant, None, None, None, transposed, 256, 1.0, POINTWISE, 1, out)


def test_group_follows_density_and_taps():
    assert [ops.best_table_bits(rate) for rate in (0.01, 0.1, 0.2, 0.5)] == [1, 1, 4, 4]
    assert ops.best_table_bits(0.5, taps=49) == 1


def test_a_kernel_too_large_for_rows_takes_the_dense_way():
    network = dsr.Network(dsr.Sequential(dsr.Conv2d(2, 3, 12), dsr.Flatten()), timesteps=2)
    train = dsr.SpikeTrain.from_dense((np.random.default_rng(0).random((2, 3, 2, 12, 12)) < 0.5).astype(np.float32))
    out = network.body.layers["0"].forward(train, dsr.Run())
    expected = reference.conv2d_spikes(
        train.words, network.body.layers["0"].weight.value.astype(np.float64), None, 1.0, ops.Geometry((12, 12))
    )
    assert np.abs(out.values() - expected).max() < 290 * 2.0**-24 * 20


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (4, 4, 0), (1, 1, 0)])
def test_planes_count_the_spikes_of_a_window(kernel, stride, padding):
    rng = np.random.default_rng(3)
    words = ops.pack_words((rng.random((35, 9, 8, 2, 5)) < 0.6).astype(np.float32))
    planes = ops.pool_planes(words, kernel, stride, padding)
    np.testing.assert_array_equal(planes, reference.pool_planes(words, kernel, stride, padding))


def test_a_convolution_of_pooled_spikes_is_that_of_the_pooled_values():
    rng = np.random.default_rng(4)
    train = dsr.SpikeTrain.from_dense((rng.random((3, 5, 40, 8, 8)) < 0.4).astype(np.float32), amplitude=0.5)
    pool, conv = dsr.AvgPool2d(2), dsr.Conv2d(40, 6, 3, padding=1)
    conv.weight.value = dyadic(rng, conv.weight.value.shape)
    pooled = pool.forward(train, dsr.Run(training=True))
    out = conv.forward(pooled, dsr.Run(training=True))
    values = reference.avg_pool(train.values().reshape(40, 8, 8, -1), 2, 2)
    np.testing.assert_array_equal(pooled.values().reshape(values.shape), values)
    expected = reference.conv2d(values.astype(np.float64), conv.weight.value.astype(np.float64), None, PADDED)
    np.testing.assert_array_equal(out.values().reshape(expected.shape), expected)
    grad = dyadic(rng, (6, 4, 4, 3, 5))
    below = conv.backward(Gradient.from_dense(grad))
    steps = grad.astype(np.float64).reshape(6, 4, 4, -1)
    expected = reference.conv2d_weight_gradient(steps, values.astype(np.float64), PADDED)
    np.testing.assert_array_equal(conv.weight.grad, expected)
    expected = reference.conv2d_input_gradient(steps, conv.weight.value.astype(np.float64), 4, 4, PADDED)
    np.testing.assert_array_equal(below, expected.reshape(40, 4, 4, 3, 5).sum(axis=3))


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_dropped_currents_come_back_bit_for_bit(kind):
    """`keep_bytes` trades memory for time and nothing else."""

    def train(keep_bytes):
        def neuron():
            return dsr.IF(1.0) if kind == "if" else dsr.LIF(0.5, delta_t=0.2)

        inner = dsr.Sequential(
            dsr.Conv2d(8, 8, 3, padding=1), dsr.BatchNorm(8), neuron(), dsr.Conv2d(8, 8, 3, padding=1)
        )
        body = dsr.Sequential(
            dsr.Conv2d(2, 8, 3, padding=1), dsr.BatchNorm(8), neuron(), dsr.Residual(inner), dsr.BatchNorm(8), neuron(),
            dsr.Residual(dsr.Conv2d(8, 4, 3, 2, 1), dsr.Conv2d(8, 4, 1, 2)), dsr.BatchNorm(4), neuron(),
            dsr.AvgPool2d(2), dsr.Conv2d(4, 4, 2), dsr.BatchNorm(4), neuron(), dsr.Flatten(), dsr.Linear(4, 3),
        )  # fmt: skip
        network = dsr.Network(body, timesteps=4, seed=1, keep_bytes=keep_bytes)
        optimizer = dsr.SGD(network.parameters(), 0.1, momentum=0.9)
        for step in range(3):
            images = np.random.default_rng(step).normal(size=(6, 2, 8, 8))
            _, grad = dsr.cross_entropy(network.forward(images, training=True), np.arange(6) % 3)
            network.backward(grad)
            optimizer.step()
        return network.state()

    kept = train(1 << 40)
    for budget in (0, 20_000, 60_000, 120_000):
        for name, array in train(budget).items():
            np.testing.assert_array_equal(array, kept[name], err_msg=f"{name}, budget {budget}")


@pytest.mark.parametrize("kind", ["if", "lif"])
def test_a_watched_network_gives_what_an_unwatched_one_gives(kind):
    """An observer gets every current; without one convolution, shortcut, normalisation and neuron run as one."""

    def neuron():
        return dsr.IF(1.0) if kind == "if" else dsr.LIF(0.5, delta_t=0.2)

    inner = dsr.Sequential(dsr.Conv2d(8, 8, 3, padding=1), dsr.BatchNorm(8), neuron(), dsr.Conv2d(8, 8, 3, padding=1))
    body = dsr.Sequential(
        dsr.Conv2d(2, 8, 3, padding=1), dsr.BatchNorm(8), neuron(), dsr.Residual(inner), dsr.BatchNorm(8), neuron(),
        dsr.Residual(dsr.Conv2d(8, 4, 3, 2, 1), dsr.Conv2d(8, 4, 1, 2)), dsr.BatchNorm(4), neuron(),
        dsr.Conv2d(4, 5, 1), neuron(), dsr.AvgPool2d(2), dsr.Conv2d(5, 4, 2), dsr.BatchNorm(4), neuron(),
        dsr.Flatten(), dsr.Linear(4, 3),
    )  # fmt: skip
    network = dsr.Network(body, timesteps=4, seed=1)
    images = np.random.default_rng(0).normal(size=(6, 2, 8, 8))
    for _ in range(3):
        network.forward(images, training=True)  # running statistics
    watched = network.forward(images, observer=lambda path, layer, output: output.rate())
    np.testing.assert_array_equal(network.forward(images), watched)


def test_the_largest_currents_are_dropped_first():
    def current(size):
        shape = (1, 1, 1, 1, size)
        return Current((Computed(lambda: np.ones(shape, np.float32), shape),), (1, 1, 1), 1)

    budget, currents = Budget(4 * 100), [current(size) for size in (60, 30, 60, 30, 30)]
    for name, each in zip("abcde", currents, strict=True):
        each.values()
        budget.add(name, each)
    assert budget.total == 4 * 90
    assert budget.kept == ["b", "d", "e"] and budget.dropped == ["a", "c"]
    assert [each.is_written for each in currents] == [False, True, False, True, True]
    assert currents[0].values().sum() == 60  # computed again


def test_stored_currents_cost_the_budget_nothing():
    budget = Budget(0)
    budget.add("a", Current.of(np.ones((1, 1, 1, 1, 9), np.float32)))
    assert budget.total == 0 and budget.dropped == []


@pytest.mark.parametrize("groups", [1, 3, 33])
@pytest.mark.parametrize("own", [False, True])
def test_packed_weights_and_kept_potentials_change_no_bit(groups, own):
    """Steps in pieces, whose potentials are handed on, and weights that are packed once: as all at once, without."""
    rng = np.random.default_rng(groups)
    channels, out, steps, batch = 66 if groups == 33 else 33, 66, 5, 7
    geometry = ops.Geometry((3, 2), (1, 2), (1, 1, 0, 1), groups=groups)
    words = ops.pack_words((rng.random((channels, 5, 6, steps, batch)) < 0.2).astype(np.float32))
    weight = rng.normal(size=(out, channels // groups, 3, 2)).astype(np.float32)
    bias, scale, shift = (rng.normal(0.2, 1, out).astype(np.float32) for _ in range(3))
    rows, columns = geometry.output_size(5, 6)
    shortcut = ops.pack_words((rng.random((out, rows, columns, steps, batch)) < 0.2).astype(np.float32))
    threshold = np.linspace(0.3, 0.9, out, dtype=np.float32) if own else 0.5
    packed = ops.pack_weights(weight, geometry)
    assert packed.ctypes.data % 64 == 0
    graded = ops.if_model(threshold, levels=5), ops.lif_model(threshold, 1.0, 0.3, levels=2)
    for model in (ops.if_model(threshold), ops.lif_model(threshold, 1.0, 0.3), *graded):
        for table_bits in (1, 2):
            plain = ops.SpikeConvolution(words, weight, bias, 0.5, geometry, table_bits, shortcut, 0.25)
            expected = ops.conv2d_neuron_spikes(plain, model, scale, shift)
            assert 0.05 < np.unpackbits(expected.view(np.uint8)).mean() < 0.8
            ours, theirs = ops.row_potentials(out, rows, columns, batch), ops.row_potentials(out, rows, columns, batch)
            current = ops.conv2d_spikes(words, weight, bias, 0.5, geometry, table_bits)
            np.testing.assert_array_equal(
                ops.conv2d_spikes(words, weight, bias, 0.5, geometry, table_bits, packed=packed), current
            )
            ops.add_words(shortcut, current, 0.25)
            rows_of = ops.row_potentials(out, rows, columns, batch)
            for piece in (slice(0, 1), slice(1, 4), slice(4, 5)):
                some = replace(
                    plain, words=words[:, :, :, piece].copy(), shortcut=shortcut[:, :, :, piece].copy(), packed=packed
                )
                part, weights = current[:, :, :, piece].copy(), np.float32([0.5, 0.7, 1.8])[: len(range(5)[piece])]
                found, total = ops.conv2d_neuron_spikes(some, model, scale, shift, ours, weights=weights)
                np.testing.assert_array_equal(found, expected[:, :, :, piece])
                np.testing.assert_array_equal(total, ops.weighted_sum(part, weights))
                found = ops.neuron_steps(part, part.shape[3], model, rows_of, scale, shift)
                np.testing.assert_array_equal(found, expected[:, :, :, piece])
                np.testing.assert_array_equal(ours, rows_of)
            reference.conv2d_neuron_spikes(plain, model, scale, shift, theirs)
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("table_bits", [1, 4])
@pytest.mark.parametrize("steps", [1, 4])
def test_one_sample_has_the_bits_that_it_has_among_many(table_bits, steps):
    """Its tiles are larger, and few: their rows are listed once, for tasks of some output channels each."""
    rng = np.random.default_rng(steps)
    words = ops.pack_words((rng.random((256, 7, 9, steps, 40)) < 0.1).astype(np.float32))
    weight = rng.normal(size=(250, 256, 3, 3)).astype(np.float32)
    many = ops.SpikeConvolution(words, weight, None, 0.5, PADDED, table_bits)
    one = replace(many, words=words[..., 17:18].copy())
    expected = ops.conv2d_neuron_spikes(many, ops.if_model(1.0))
    assert 0.02 < np.unpackbits(expected.view(np.uint8)).mean() < 0.9
    before = dsr.get_num_threads()
    try:
        for threads in (1, 3):
            dsr.set_num_threads(threads)
            np.testing.assert_array_equal(ops.conv2d_neuron_spikes(one, ops.if_model(1.0)), expected[..., 17:18])
    finally:
        dsr.set_num_threads(before)


def test_packed_weights_and_potentials_of_another_shape_are_refused():
    words, weight = np.zeros((2, 3, 3, 2, 4), np.uint32), np.zeros((5, 40, 3, 3), np.float32)
    packed, potentials = ops.pack_weights(weight, PADDED), ops.row_potentials(5, 3, 3, 4)
    convolution = ops.SpikeConvolution(words, weight, None, 1.0, PADDED, 1)
    with pytest.raises(ValueError, match=r"conv2d_neuron_spikes: argument 'packed': .* elements on axis N"):
        ops.conv2d_neuron_spikes(replace(convolution, packed=packed[:-1]), ops.if_model(1.0))
    unaligned = np.empty(packed.size + 17, np.float32)
    unaligned = unaligned[1 + (-unaligned.ctypes.data % 64) // 4 :][: packed.size]
    with pytest.raises(ValueError, match="argument 'packed': expected memory that is aligned to 64 bytes"):
        ops.conv2d_neuron_spikes(replace(convolution, packed=unaligned), ops.if_model(1.0))
    with pytest.raises(ValueError, match=r"argument 'potentials': expected shape \(1, 3, 3, 4, 32\), got \(1, 3, 3, 3"):
        ops.conv2d_neuron_spikes(convolution, ops.if_model(1.0), potentials=potentials[:, :, :, :3])
    with pytest.raises(ValueError, match=r"neuron_steps: argument 'potentials': expected shape \(1, 3, 3, 4, 32\)"):
        ops.neuron_steps(np.zeros((5, 3, 3, 2, 4), np.float32), 2, ops.if_model(1.0), potentials[:, :2])
    with pytest.raises(ValueError, match=r"pack_weights: argument 'weight': expected a kernel \(2, 3\) of at most 121"):
        ops.pack_weights(weight, ops.Geometry((2, 3)))


@pytest.mark.parametrize("batch", [1, 9, 70])
def test_neurons_of_a_current_of_one_step(batch):
    """It is read again at each step, in pieces and all at once, with thresholds of channels."""
    rng = np.random.default_rng(batch)
    current = rng.normal(0.3, 1, (37, 3, 2, 1, batch)).astype(np.float32)
    model = ops.lif_model(np.linspace(0.1, 0.4, 37, dtype=np.float32), 1.0, 0.3)
    expected, _, _ = ops.neuron_spikes(current, 6, model)
    assert expected.any()
    at_once, pieces, theirs = (ops.row_potentials(37, 3, 2, batch) for _ in range(3))
    np.testing.assert_array_equal(ops.neuron_steps(current, 6, model, at_once), expected)
    found = [ops.neuron_steps(current, steps, model, pieces) for steps in (1, 3, 2)]
    np.testing.assert_array_equal(np.concatenate(found, axis=3), expected)
    np.testing.assert_array_equal(pieces, at_once)
    reference.neuron_steps(current, 6, model, theirs)
    np.testing.assert_array_equal(theirs, at_once)
    for of in (ops, reference):  # from 0, and kept by nobody
        np.testing.assert_array_equal(of.neuron_steps(current, 6, model, None), expected)
