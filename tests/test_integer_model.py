"""Integer networks: they compute what their steps say, stay near the float ones, and come back from files."""

from __future__ import annotations

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import integer_interpreter
import numpy as np
import pytest

import dsr
from dsr.deploy import integer_steps as i
from dsr.deploy.integer_checks import require_sound
from dsr.deploy.integer_file import as_stored
from dsr.deploy.integer_model import IntegerModel, quantize
from dsr.deploy.model_file import packed
from dsr.files import checkpoint
from dsr.nn.fast_layers import PooledConv2d
from dsr.ops import prepared


def blocks(*layers):
    return dsr.Sequential(*layers)


NETWORKS = {
    "images, pooled, read as current": (
        (2, 6, 6),
        lambda n: blocks(
            dsr.Conv2d(2, 5, 3, padding=1),
            dsr.BatchNorm(5),
            n(),
            dsr.Conv2d(5, 70, 3, 2, 1, bias=False),
            dsr.BatchNorm(70),
            n(),
            dsr.AvgPool2d(2, padding=1),
            dsr.Flatten(),
            dsr.Linear(280, 4),
            dsr.BatchNorm(4),
        ),
    ),
    "shortcuts": (
        (3, 5, 4),
        lambda n: blocks(
            dsr.Conv2d(3, 6, 3, padding=1),
            n(),
            dsr.Residual(blocks(dsr.Conv2d(6, 6, 3, padding=1), dsr.BatchNorm(6), n(), dsr.Conv2d(6, 6, 1))),
            dsr.BatchNorm(6),
            n(),
            dsr.Residual(dsr.Conv2d(6, 8, 3, 2, 1), dsr.Conv2d(6, 8, 1, 2)),
            n(),
            dsr.AvgPool2d(2, 1),
            n(),
            dsr.GlobalAvgPool2d(),
        ),
    ),
    "trains side by side, gates, maxima": (
        (2, 4, 4),
        lambda n: blocks(
            dsr.Conv2d(2, 4, 3, padding=1),
            n(),
            dsr.Concat(blocks(dsr.Conv2d(4, 40, 1), n()), blocks(dsr.MaxPool2d(3, 1, 1)), dsr.AvgPool2d(3, 1, 1)),
            dsr.ConvTranspose2d(48, 6, 2, 2),
            n(),
            dsr.SpikeResidual(blocks(dsr.Conv2d(6, 6, 3, padding=1, groups=3), n()), "iand"),
            dsr.SpikeResidual(blocks(dsr.Conv2d(6, 6, 3, padding=1, groups=6), n()), "add"),
            dsr.Conv2d(6, 3, 8),
            n(),
            dsr.Flatten(),
        ),
    ),
    "currents that are averaged": (
        (1, 8, 8),
        lambda n: blocks(
            dsr.Conv2d(1, 3, 3),
            dsr.AvgPool2d(2),
            dsr.BatchNorm(3),
            n(),
            dsr.Upsample(2),
            dsr.Conv2d(3, 2, 3),
            dsr.AvgPool2d(2, 1),
            n(),
            dsr.Flatten(),
            dsr.Linear(18, 3),
        ),
    ),
    "signals": (
        (2, 11),
        lambda n: blocks(
            dsr.Conv1d(2, 7, 3),
            n(),
            dsr.AvgPool1d(2),
            dsr.Conv1d(7, 5, 2, dilation=2),
            n(),
            dsr.Flatten(),
            dsr.Linear(10, 3),
            n(),
        ),
    ),
    "vectors": ((9,), lambda n: blocks(dsr.Linear(9, 66), dsr.BatchNorm(66), n(), dsr.Linear(66, 5), n())),
}
NEURONS = {"if": lambda: dsr.IF(1.0), "lif": lambda: dsr.LIF(0.3, 1.0, 0.1, 0.4)}


def network(name, kind="if", timesteps=4):
    features, build = NETWORKS[name]
    made = dsr.Network(build(NEURONS[kind]), timesteps, seed=3)
    rng = np.random.default_rng(1)
    made.forward(rng.normal(0.3, 1, (40, *features)), training=True)
    return made, features


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_steps_say(name, kind, bits):
    """Every rate after every step: of static samples, frames, other T, and one frame at a time."""
    net, features = network(name, kind)
    rng = np.random.default_rng(2)
    model = quantize(net, rng.normal(0.3, 1, (20, *features)), bits)
    assert all(
        np.abs(as_stored(t.weight).astype(int)).max() < 2 ** (7 if s.terms[0].source == 0 else bits - 1)
        for s in model.steps
        if isinstance(s, i.Neurons)
        for t in s.terms
        if isinstance(t, i.Taps)
    )
    static, frames = rng.normal(0.3, 1.5, (3, *features)), rng.normal(0.3, 1.5, (5, 3, *features))
    for data in (static, frames):
        so_far, written = integer_interpreter.run(model, data)
        np.testing.assert_array_equal(model.run(data), so_far[-1])
        stream = model.start(3)
        for t, rates in enumerate(so_far):
            np.testing.assert_array_equal(stream.step(data[t] if data is frames else data), rates)
        spikes = [now[k] for now in written for k, s in enumerate(model.steps) if isinstance(s, i.Neurons)]
        assert 0 < np.mean([s.mean() for s in spikes]) < 1
    np.testing.assert_array_equal(model.run(static, timesteps=7), integer_interpreter.run(model, static, 7)[0][-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_near_the_float_network(name):
    """Of 8 bits, at many steps, where single spikes matter less."""
    net, features = network(name, timesteps=60)
    rng = np.random.default_rng(2)
    data = rng.normal(0.3, 1, (30, *features)).astype(np.float32)
    expected, found = net.forward(data), quantize(net, data).run(data)
    assert np.abs(found - expected).mean() < 0.08 * expected.std()


@pytest.mark.parametrize("name", NETWORKS)
def test_files(name, tmp_path):
    net, features = network(name)
    data = np.random.default_rng(2).normal(0.3, 1, (6, *features)).astype(np.float32)
    model = quantize(net, data, 6)
    model.save(tmp_path / "a.safetensors")
    again = IntegerModel.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again.run(data), model.run(data))
    assert repr(again) == repr(model)
    assert (again.features, again.output_features, again.bits) == (model.features, model.output_features, 6)


def test_sums_of_shifts_of_which_one_is_too_large_are_stored_as_they_are(tmp_path):
    """-128 has 8 bits, but is no sum that files have."""
    made = dsr.Network(blocks(dsr.Conv2d(1, 2, 3), dsr.IF(1.0), dsr.Conv2d(2, 2, 3), dsr.IF(1.0)), 2)
    data = np.random.default_rng(2).normal(1, 2, (5, 1, 6, 6))
    model = quantize(made, data)
    model.steps[2].terms[0].weight[:] = [[-32, -64, -32], [-64, -128, -64], [-32, -64, -32]]
    model.save(tmp_path / "a.safetensors")
    loaded = IntegerModel.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded.steps[2].terms[0].weight, model.steps[2].terms[0].weight)


@pytest.mark.parametrize(("convolution", "inputs"), [(dsr.Conv2d, 8192), (PooledConv2d, 2048)])
def test_a_quarter_of_the_size(convolution, inputs, tmp_path):
    """In the file of libdsr too; kernels of 4x4 that are 3x3 ones with pooling are stored as these."""
    body = blocks(
        dsr.Conv2d(3, 64, 3), dsr.IF(1.0), convolution(64, 128, 3), dsr.IF(1.0), dsr.Flatten(), dsr.Linear(inputs, 10)
    )
    net = dsr.Network(body, 2)
    model = quantize(net, np.random.default_rng(0).random((2, 3, 12, 12)))
    model.save(tmp_path / "small.safetensors")
    dsr.save(net, tmp_path / "large.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("small", "large")]
    assert max(sizes[0], len(packed(model))) < 0.27 * sizes[1]
    again = IntegerModel.load(tmp_path / "small.safetensors")
    for step, other in zip(model.steps[1:3], again.steps[1:3], strict=True):
        np.testing.assert_array_equal(step.terms[0].weight, other.terms[0].weight, strict=True)


def drawn(seed, low, high, *shape):
    """Integers in [low, high) by arithmetic that no version of NumPy changes."""
    x = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(seed << 32)
    for _ in range(3):
        x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return ((x >> np.uint64(33)).astype(np.int64) % (high - low) + low).reshape(shape)


def of_integers():
    """A network of integers that were drawn, with all kinds of terms; nothing of it is computed from floats."""

    def taps(source, *shape, shift, geometry):
        return i.Taps(source, drawn(source, -127, 128, *shape).astype(np.int8), geometry, shift)

    def numbers(seed, low, high, count):
        return drawn(seed, low, high, count).astype(np.int32)

    def neurons(seed, features, terms, decay):
        reset = numbers(seed, 1500, 4096, features[0])
        return i.Neurons(
            path=f"neurons {seed}",
            features=features,
            terms=terms,
            bias=numbers(seed + 1, -300, 900, features[0]),
            reset=reset,
            fire=reset // 2,
            decay=decay,
        )

    around = dsr.ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    first = neurons(20, (70, 6, 6), (taps(0, 70, 2, 3, 3, shift=-6, geometry=around),), 31000)
    both = taps(1, 70, 70, 3, 3, shift=1, geometry=around), i.Added(1, numbers(9, -900, 2000, 70))
    pool = i.Pool(
        path="c", features=(70, 3, 3), source=2, kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), largest=False
    )
    flat = i.Flatten(path="d", features=(630, 1, 1), source=3)
    read = i.ReadCurrent(
        path="e",
        features=(5, 1, 1),
        terms=(taps(4, 5, 630, 1, 1, shift=2, geometry=dsr.ops.Geometry((1, 1))),),
        bias=numbers(8, -99, 99, 5),
        unit=np.arange(1, 6, dtype=np.float32) / 1024,
    )
    steps = i.Input(path="", features=(2, 6, 6), shift=3, most=2047), first, neurons(30, (70, 6, 6), both, 1 << 15)
    return IntegerModel((*steps, pool, flat, read), 4, 8, (2, 6, 6), (5,))


def test_the_same_on_every_processor():
    """A digest that was noted once: of the rates, and of all spikes and potentials through them."""
    model = of_integers()
    require_sound(model.steps, "test")
    frames = drawn(7, -900, 900, 4, 9, 2, 6, 6) / 8
    rates = model.run(frames)
    np.testing.assert_array_equal(rates, integer_interpreter.run(model, frames)[0][-1])
    assert hashlib.sha256(rates.astype("<f4").tobytes()).hexdigest()[:16] == "0e73e155032de336"
    assert rates.shape == (9, 5) and len(np.unique(rates)) == 45


def overflowing(bias, threshold=1.0):
    body = blocks(dsr.Linear(3, 2), dsr.IF(1.0), dsr.Linear(2, 2), dsr.IF(threshold))
    net = dsr.Network(body, 2)
    for _, parameter in net.parameters():
        if parameter.value.shape == (2, 2):
            parameter.value[...] = [[1, 2], [3, 4]]
    net.body.layers["2"].bias.value[...] = bias
    return net


def test_currents_beyond_32_bits_are_refused():
    data = np.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"quantize: layer '3': the current of channel 1 may reach .* beyond the 2\*\*30"
    ):
        quantize(overflowing([0, 1e7]), data)
    assert np.abs(quantize(overflowing([0, 1e5]), data).steps[-2].bias).max() > 2**20
    model = quantize(overflowing([0, 1e5]), data)
    np.testing.assert_array_equal(model.run(data), integer_interpreter.run(model, data)[0][-1])


def test_wide_data_get_fewer_bits():
    """4,000 inputs of 8 bits times 15 bits would leave 32 bits."""
    net = dsr.Network(blocks(dsr.Linear(4000, 2), dsr.IF(1.0)), 2)
    net.body.layers["0"].weight.value[...] = 1.0
    model = quantize(net, np.linspace(-1, 1, 8000).reshape(2, 4000))
    assert 255 <= model.steps[0].most < 32767
    data = np.full((1, 4000), 5.0)
    data[0, 0] = -1e30
    np.testing.assert_array_equal(model.run(data), integer_interpreter.run(model, data)[0][-1])


def test_integers_are_taken_as_they_are():
    net = dsr.Network(blocks(dsr.Linear(5, 3), dsr.IF(1.0)), 3)
    model = quantize(net, np.arange(10).reshape(2, 5))
    assert model.steps[0].shift == 0


@pytest.mark.parametrize(
    ("layers", "features", "message"),
    [
        (lambda: [dsr.Conv2d(1, 2, 1), dsr.MaxPool2d(2), dsr.IF()], (1, 4, 4), "layer '1' applies MaxPool"),
        (lambda: [dsr.Linear(2, 3), dsr.Linear(3, 2), dsr.IF()], (2,), "layer '1' convolves what is convolved already"),
        (lambda: [dsr.AvgPool2d(2), dsr.IF()], (1, 4, 4), "layer '0' pools what is not spikes"),
        (lambda: [dsr.Linear(2, 3), dsr.ReLU()], (2,), "layer '1' applies Rectify"),
        (lambda: [dsr.Conv2d(1, 2, 1), dsr.IF(), dsr.Conv2d(2, 2, 13, padding=6), dsr.IF()], (1, 4, 4), "169 taps"),
    ],
)
def test_what_integers_cannot_do(layers, features, message):
    net = dsr.Network(blocks(*layers()), 1)
    with pytest.raises(ValueError, match=f"^quantize: .*{message}"):
        quantize(net, np.ones((2, *features)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("net", [[1.0] * 9], 8), TypeError, "argument 'model': expected a Network or a Model, got str"),
        ((None, [[1.0] * 9], 9), ValueError, "argument 'bits': expected an integer from 2 to 8, got 9"),
        ((None, [[1.0] * 9], 8.0), ValueError, "argument 'bits': expected an integer from 2 to 8, got 8.0"),
        ((None, np.ones((0, 9))), ValueError, "argument 'data': expected at least one sample"),
        ((None, [[np.nan] * 9]), ValueError, "argument 'data': expected finite values"),
        ((None, [["a"]]), TypeError, "argument 'data': expected real numbers"),
        ((None, np.ones((2, 8))), ValueError, "do not fit the network"),
    ],
)
def test_bad_arguments(arguments, error, message):
    first, *others = arguments
    with pytest.raises(error, match=message):
        quantize(network("vectors")[0] if first is None else first, *others)


def test_the_data_of_a_stream_change():
    """What a step computes of the data is kept only as long as they are the same."""
    net, features = network("images, pooled, read as current")
    frames = np.random.default_rng(5).normal(0.3, 1.5, (4, 2, *features)).astype(np.float32)
    model = quantize(net, frames[0])
    stream = model.start(2)
    for frame, changed in ((frames[0], True), (frames[3], False), (frames[1], True)):
        stream.advance(frame, 1, held=True, changed=changed)
    np.testing.assert_array_equal(stream.rates(), model.run(frames[[0, 0, 1]]))


def test_a_run_is_one_compiled_call(monkeypatch):
    """The data are convolved by the call that fires the first neurons; nothing is bound anew in the next run."""
    body = blocks(
        dsr.Conv2d(2, 5, 3, padding=1),
        dsr.IF(1.0),
        dsr.Residual(blocks(dsr.Conv2d(5, 5, 3, padding=1), dsr.IF(1.0), dsr.Conv2d(5, 5, 3, padding=1))),
        dsr.IF(1.0),
        dsr.AvgPool2d(6),
        dsr.Flatten(),
        dsr.Linear(5, 4),
    )
    data = np.random.default_rng(2).normal(0.3, 1, (3, 2, 6, 6)).astype(np.float32)
    model, joined, join = quantize(dsr.Network(body, 4, seed=3), data), [], prepared.join

    def noting(calls):
        joined.append([call.func.__name__ for call in calls])
        return join(calls)

    monkeypatch.setattr(prepared, "join", noting)
    expected = integer_interpreter.run(model, data)[0][-1]
    np.testing.assert_array_equal(model.run(data), expected)
    plan = model._runs.take((3, 4, 0))
    model._runs.give_back((3, 4, 0), plan)
    of_data, of_steps = joined
    assert of_data == []
    assert of_steps[:3] == ["integer_conv2d_value_neuron_spikes", *["integer_conv2d_neuron_spikes"] * 2]
    assert set(of_steps[3:]) == {"pool_planes", "copyto", "integer_conv2d_spikes"}
    assert len(plan._joined.of_steps) == 3  # up to `copyto`, that, and the last convolution
    np.testing.assert_array_equal(model.run(data), expected)
    assert len(joined) == 2


def test_a_stream_convolves_the_data_once(monkeypatch):
    """Of a sample that is held, when it is given; steps after that read what is there."""
    net, features = network("images, pooled, read as current")
    data = np.random.default_rng(5).normal(0.3, 1.5, (2, *features)).astype(np.float32)
    model, joined, join = quantize(net, data), [], prepared.join
    monkeypatch.setattr(
        prepared, "join", lambda calls: (joined.append([c.func.__name__ for c in calls]), join(calls))[1]
    )
    stream = model.start(2)
    stream.advance(data, 1, held=True)
    assert joined[0] == ["fill", "integer_conv2d"]
    assert joined[1].count("integer_conv2d_neuron_spikes") == 2 and "integer_conv2d" not in joined[1]


def test_streams_of_batches_are_kept():
    net, features = network("vectors")
    data = np.random.default_rng(5).normal(0.3, 1.5, (5, *features))
    model = quantize(net, data)
    first = model.take(2)
    first.step(data[:2])
    first.give_back()
    found = model.run(data[:2], timesteps=3)
    again = model.take(2)
    assert again is first
    for _ in range(3):
        rates = again.step(data[:2])
    np.testing.assert_array_equal(rates, found)
    model.batch = 2
    copy = pickle.loads(pickle.dumps(model))
    assert copy.batch == 2
    np.testing.assert_array_equal(copy.run(data), model.run(data))


def test_threads_share_a_model():
    net, features = network("images, pooled, read as current")
    data = np.random.default_rng(5).normal(0.3, 1.5, (24, *features))
    model = quantize(net, data)
    expected = [model.run(data[k : k + 3]) for k in range(0, 24, 3)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: model.run(data[k : k + 3]), [*range(0, 24, 3)] * 4))
    for k, rates in enumerate(found):
        np.testing.assert_array_equal(rates, expected[k % 8])


def test_bad_data():
    net, features = network("vectors")
    model = quantize(net, np.ones((2, 9)))
    for data, message in (
        (np.ones((2, 8)), r"expected shape \(B, 9\) or \(T, B, 9\), got \(2, 8\)"),
        (np.full((2, 9), np.inf), "expected finite values"),
        (np.ones((0, 2, 9)), "expected at least one time step"),
    ):
        with pytest.raises(ValueError, match=message):
            model.run(data)
    assert model.run(np.ones((0, *features))).shape == (0, 5)
    with pytest.raises(ValueError, match=r"IntegerModel\.predict: .* the model does not know how files become samples"):
        model.predict("some.npy")
    stream = model.start(2)
    with pytest.raises(ValueError, match=r"IntegerStream.step: argument 'frame': expected shape \(2, 9\), got \(9,\)"):
        stream.step(np.ones(9))
    first = stream.step(np.ones((2, 9)))
    stream.reset()
    np.testing.assert_array_equal(stream.step(np.ones((2, 9))), first)
    with pytest.raises(ValueError, match=r"IntegerStream\.reset: argument 'samples': expected numbers 0 to 1, got 2"):
        stream.reset(2)
    with pytest.raises(TypeError, match="expected numbers of samples, got float64"):
        stream.reset([0.5])


@pytest.mark.parametrize("kind", NEURONS)
def test_a_sample_of_a_stream_that_begins_anew(kind):
    """It is as one of a stream of its own; the others go on."""
    net, features = network("images, pooled, read as current", kind)
    frames = np.random.default_rng(5).normal(0.3, 1.5, (6, 3, *features))
    for made in (net, network("vectors", kind)[0]):
        if made is not net:
            frames = np.random.default_rng(5).normal(0.3, 1.5, (6, 3, 9))
        model = quantize(made, frames[0])
        stream, other, alone = model.start(3), model.start(3), model.start(1)
        for t, frame in enumerate(frames):
            if t == 3:
                stream.reset([1])
            found, expected = stream.step(frame), other.step(frame)
            np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
            if t >= 3:
                np.testing.assert_array_equal(found[1:2], alone.step(frame[1]))


def test_steps_at_once_are_steps_one_by_one():
    """The bits of both are those of a run; what is no frames is refused, and so is a second thread."""
    net, features = network("images, pooled, read as current")
    frames = np.random.default_rng(5).normal(0.3, 1.5, (7, 2, *features))
    model = quantize(net, frames[0])
    one_by_one, at_once, alone = model.start(2), model.start(2), model.start()
    expected = [one_by_one.step(frame) for frame in frames]
    np.testing.assert_array_equal(at_once.steps(frames[:3]), expected[2])
    np.testing.assert_array_equal(at_once.step(frames[3]), expected[3])
    np.testing.assert_array_equal(at_once.steps(frames[4:]), expected[6])
    np.testing.assert_array_equal(expected[6], model.run(frames))
    np.testing.assert_array_equal(alone.steps(frames[:, 1]), expected[6][1:])
    for wrong in (frames[:0], frames[0], frames[:, :1]):
        with pytest.raises(
            ValueError, match=r"IntegerStream\.steps: argument 'frames': expected shape \(S, 2, .* S >= 1"
        ):
            at_once.steps(wrong)
    with at_once._owner.lock:  # as while another thread is in it
        for call in (lambda: at_once.step(frames[0]), lambda: at_once.steps(frames), at_once.reset):
            with pytest.raises(RuntimeError, match="another thread is using this stream"):
                call()
    np.testing.assert_array_equal(at_once.rates(), expected[6])


def test_damaged_files(tmp_path):
    """Another kind, version or dtype, a step that reads what is not there, a sum that could leave its range."""
    net, features = network("vectors")
    path = tmp_path / "a.safetensors"
    quantize(net, np.ones((2, *features))).save(path)
    arrays, metadata = checkpoint.load(path)

    def refused(message, more=None, **changes):
        checkpoint.save(path, {**arrays, **(more or {})}, {**metadata, **changes})
        with pytest.raises(checkpoint.CheckpointError, match=message):
            IntegerModel.load(path)

    refused("has no integer network", kind="model")
    refused("version 2, this dsr reads version 1", integer_version=2)
    refused("steps.1.reset: expected int16, got int64", more={"steps.1.reset": arrays["steps.1.bias"].astype(np.int64)})
    refused("has a 'reset' beyond 1 to 4095", more={"steps.1.reset": 0 * arrays["steps.1.reset"]})
    refused("fires above", more={"steps.1.fire": np.full(66, 4095, np.int16)})
    refused("may reach", more={"steps.1.bias": np.full(66, 2**30, np.int32)})
    refused("has weights", more={"steps.1.terms.0.weight": arrays["steps.1.terms.0.weight"][:, :3]})
    steps = metadata["steps"]
    for change, message in (
        ({"decay": 40000}, "has a decay of 40000"),
        ({"decay": "x"}, "'decay': expected int"),
        ({"features": [66, 2, 1]}, "convolves"),
        ({"features": 3}, "'features': expected a list of int, got 3"),
        ({"kind": "Unknown"}, "Unknown"),
        ({"terms": [{"source": 1, "shift": 0, "geometry": steps[1]["terms"][0]["geometry"]}]}, "reads step 1"),
        ({"terms": []}, "a current of nothing"),
        ({"path": 3}, "'path': expected str"),
    ):
        refused(message, steps=[steps[0], {**steps[1], **change}, *steps[2:]])
    refused("expected an input and an output", steps=[])
    refused("outputs are last", steps=steps[:-1])
    refused("features", features=[8])
    kernel = dsr.Network(blocks(PooledConv2d(1, 2, 1), dsr.IF(1.0)), 2)
    quantize(kernel, np.ones((2, 1, 4, 4))).save(path)
    arrays, metadata = checkpoint.load(path)
    refused("sums of shifts of 8 bits", more={"steps.1.terms.0.weight": np.full((2, 1, 1, 1), -128, np.int8)})
    for cut in (10, 300, path.stat().st_size - 5):
        quantize(net, np.ones((2, *features))).save(path)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(checkpoint.CheckpointError):
            IntegerModel.load(path)


def test_the_model_of_a_run(tmp_path):
    """Raw samples and names of classes, also from a file."""
    data = dsr.data.load("digits")
    trainer = dsr.Trainer(dsr.train.recipe.load("digits"), data, tmp_path, say=lambda line: None)
    trainer.save()
    run = dsr.load(tmp_path)
    raw = dsr.data.load("digits").test.batch(np.arange(50))
    model = quantize(run, raw)
    model.save(tmp_path / "int.safetensors")
    again = IntegerModel.load(tmp_path / "int.safetensors")
    assert again.classes == run.classes
    np.testing.assert_array_equal(again.predict(raw), np.array(run.classes)[model.run(raw).argmax(axis=1)])
    probabilities = again.predict_proba(raw)
    rates = model.run(raw).astype(np.float64)
    np.testing.assert_allclose(probabilities, np.exp(rates) / np.exp(rates).sum(axis=1, keepdims=True), rtol=1e-12)
    again.task = "multilabel"
    np.testing.assert_allclose(again.predict_proba(raw), 1 / (1 + np.exp(-rates)), rtol=1e-12)
    again.task = "regression"
    with pytest.raises(
        ValueError, match=r"^IntegerModel\.predict_proba: expected a model of classes or labels, got one of"
    ):
        again.predict_proba(raw)
    with pytest.raises(checkpoint.CheckpointError, match=r"an integer network; dsr\.IntegerModel\.load reads it"):
        dsr.load(tmp_path / "int.safetensors")
