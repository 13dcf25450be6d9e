"""Sessions: the bits of the network, in whole runs and in any pieces of them; streams, resets, threads, bad input.

Where a convolution gets values that are no spikes and differ from step to step, its bits are BLAS's, which depend on
how many columns a call has: such networks are compared within rounding, but pieces are equal in all.
"""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import plan_table
import pytest
import test_zoo
from test_program import LARGE, case
from test_testing import IMAGES, LAYERS, ON_SIGNALS, ON_VECTORS, VECTORS

import dsr
from dsr import ops
from dsr.deploy.program import Neurons

KINDS = ("if", "lif")
SMALL = [name for name in [*plan_table.NAMES, *test_zoo.NETWORKS] if name not in LARGE]
NETWORKS = [(name, KINDS[i % 2]) for i, name in enumerate(SMALL)]
NETWORKS += [(name, "relu") for name in plan_table.OWN] + [("sew_resnet18", "lif"), ("preact_resnet50", "if")]
OF_VALUES = ("pools_everywhere", "sew_resnet18")
"""They have dense convolutions behind neurons whose calls are of another size in the network."""


@pytest.fixture
def added(monkeypatch):
    """The network adds weights at all rates, as a session does that has measured nothing."""
    monkeypatch.setattr(ops, "best_table_bits", lambda *_: 1)


def frames_of(data, timesteps, seed=7):
    return np.random.default_rng(seed).normal(size=(timesteps, *data.shape)).astype(np.float32)


@pytest.mark.parametrize(("gradient", "variance"), [("rate", "steps"), ("rate", "sampled")])
def test_bits_of_a_network_whose_normalisation_is_without_time(gradient, variance, added):
    """Its statistics are moved by a step of training, so that scales and shifts are those of its kind."""
    norm = dsr.BatchNorm(40, gradient=gradient, variance=variance)
    body = dsr.Sequential(
        dsr.Conv2d(2, 5, 3, padding=1), dsr.IF(0.5), dsr.Conv2d(5, 40, 3, padding=1), norm, dsr.IF(0.5), dsr.Flatten()
    )
    network, data = dsr.Network(body, 8), np.random.default_rng(0).normal(size=(4, 2, 6, 6)).astype(np.float32)
    network.forward(data, training=True)
    assert norm.running_mean.any()
    np.testing.assert_array_equal(dsr.compile(network, features=(2, 6, 6))(data), network.forward(data))


@pytest.mark.parametrize(("name", "kind"), NETWORKS, ids=lambda value: value)
def test_bits_of_the_network_in_any_pieces(name, kind, added):
    network, data = case(name, kind)
    session = dsr.compile(network, features=data.shape[1:])
    rates = session(data)
    expected = network.forward(data)
    if name in OF_VALUES and kind != "relu":
        np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(rates, expected)
    np.testing.assert_array_equal(session(data), rates)  # on the same memory
    stream = session.start(len(data))
    steps = [stream.step(data) for _ in range(session.timesteps)]
    np.testing.assert_array_equal(steps[-1], rates)
    frames = frames_of(data, session.timesteps)
    rates = session(frames)
    np.testing.assert_allclose(rates, network.forward(frames), rtol=1e-4, atol=1e-5)
    session.reset()
    for at in np.split(np.arange(session.timesteps), [1]):
        if len(at):
            last = stream.steps(frames[at])
    np.testing.assert_array_equal(last, rates)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_any_pieces(name):
    """Behind neurons and before them; what comes is frames."""
    neurons = [dsr.Linear(60, 4), dsr.IF(0.5)] if name == "Flatten" else [dsr.LIF(0.05, delta_t=0.3)]
    network = dsr.Network(dsr.Sequential(dsr.IF(0.4), LAYERS[name](), *neurons), 4, inputs="NCHW")
    assert_pieces(network, IMAGES["steps"])


@pytest.mark.parametrize("name", [*ON_SIGNALS, *ON_VECTORS, "MaxPool1d"])
def test_layers_of_vectors_and_signals_in_any_pieces(name):
    make = {**ON_SIGNALS, **ON_VECTORS, "MaxPool1d": lambda: dsr.MaxPool1d(2, 1)}[name]
    body = dsr.Sequential(dsr.IF(0.4), make(), dsr.IF(0.3))
    network = dsr.Network(body, 4, inputs="NC" if name in ON_VECTORS else "NCL")
    assert_pieces(network, VECTORS["steps"] if name in ON_VECTORS else IMAGES["steps"][:, :, :, 0])


def assert_pieces(network, frames):
    session = dsr.compile(network, features=frames.shape[2:])
    rates = session(frames)
    np.testing.assert_allclose(rates, network.forward(frames), rtol=1e-5, atol=1e-6)
    for pieces in ([1, 2, 3], [1], [3]):
        stream = session.start(frames.shape[1])
        for piece in np.split(frames, pieces):
            last = stream.steps(piece)
        np.testing.assert_array_equal(last, rates)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_so_far_are_those_of_a_network_of_fewer_steps(kind, added):
    network, data = case("digits", kind)
    network.timesteps = 5
    stream = dsr.compile(network, features=data.shape[1:]).start(len(data))
    for steps in range(1, 6):
        network.timesteps = steps
        np.testing.assert_array_equal(stream.step(data), network.forward(data))


def test_samples_of_a_stream_begin_at_times_of_their_own():
    network, data = case("cifar_fast", "lif")
    network.timesteps = 4
    session = dsr.compile(network, features=data.shape[1:])
    frames = frames_of(data, 4)
    stream = session.start(2)
    stream.steps(frames[:2])
    stream.reset(1)
    np.testing.assert_array_equal(stream.times, [2, 0])
    rates = stream.rates()
    assert (rates[1] == 0).all() and (rates[0] != 0).any()
    late = frames_of(data, 2, seed=8)
    rates = stream.steps(late)
    np.testing.assert_array_equal(stream.times, [4, 2])
    alone = session.start(2)
    alone.steps(np.concatenate([frames[:2], late]))
    np.testing.assert_array_equal(rates[0], alone.rates()[0])
    alone.reset()
    np.testing.assert_array_equal(rates[1], alone.steps(late)[1])
    with pytest.raises(RuntimeError, match="at most T = 4 steps, and sample 0 has seen 4 of them; reset it"):
        stream.step(data)
    stream.reset(np.array([0]))
    stream.step(data)
    np.testing.assert_array_equal(stream.times, [1, 3])


def test_large_batches_are_done_in_parts():
    network, data = case("mlp", "if")
    data = np.random.default_rng(0).normal(size=(11, *data.shape[1:])).astype(np.float32)
    whole = dsr.compile(network, features=data.shape[1:])
    parts = dsr.compile(network, 3, 4, features=data.shape[1:])
    assert parts.timesteps == 3 and parts.batch == 4
    network.timesteps = 3
    np.testing.assert_allclose(parts(data), network.forward(data), rtol=1e-6)
    frames = frames_of(data, 3)
    np.testing.assert_allclose(parts(frames), network.forward(frames), rtol=1e-6)
    assert whole(data[:0]).shape == (0, 10)


def test_a_session_is_a_copy():
    network, data = case("digits", "if")
    session = dsr.compile(network, features=data.shape[1:])
    before = session(data)
    for _, parameter in network.parameters():
        parameter.value[...] = 9
    np.testing.assert_array_equal(session(data), before)


def test_weights_are_looked_up_where_samples_fire_more():
    network, data = case("cifar_fast", "if")
    for _, neuron in network.neurons():
        neuron.v_threshold.value[...] = 0.3
    network.timesteps = 4
    busy = dsr.spike_rates(network, data)
    assert max(busy.values()) > 0.2
    session = dsr.compile(network, features=data.shape[1:], samples=data)
    assert 4 in session.compiled.table_bits.values()
    np.testing.assert_array_equal(session(data), network.forward(data))  # whose batch is the same
    stream = session.start(len(data))
    for _ in range(4):
        rates = stream.step(data)
    np.testing.assert_array_equal(rates, session(data))


def test_weights_are_packed_once_and_arrays_made_once(monkeypatch):
    network, data = case("preact_resnet18", "if")
    session = dsr.compile(network, features=data.shape[1:])
    session(data)
    stream = session.start(1)
    stream.step(data[:1])
    for name in ("pack_weights", "aligned_array", "row_potentials"):
        monkeypatch.delattr(ops, name, raising=False)
    monkeypatch.setattr(np, "empty_like", None)
    session(data)
    stream.step(data[:1])


def test_whole_runs_keep_no_potentials(monkeypatch):
    """Neurons begin at 0 in each run: there is neither memory for potentials, nor are they read and written."""
    network, data = case("preact_resnet18", "if")
    made, row_potentials = [], ops.row_potentials
    monkeypatch.setattr(ops, "row_potentials", lambda *a: made.append(a) or row_potentials(*a))
    session = dsr.compile(network, features=data.shape[1:])
    session(data)
    assert made == []
    session.start(batch=2)
    assert len(made) == sum(isinstance(step, Neurons) for step in session.program.steps)


def test_threads_share_a_session_but_not_a_stream():
    network, data = case("digits", "if")
    session = dsr.compile(network, features=data.shape[1:])
    many = [np.random.default_rng(i).normal(size=data.shape).astype(np.float32) for i in range(8)]
    expected, found = [session(samples) for samples in many], [None] * 8

    def work(i):
        for _ in range(20):
            found[i] = session(many[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)
    stream = session.start(len(data))
    with stream._owner.lock:  # as while another thread is in it
        for call in (lambda: stream.step(data), lambda: stream.steps(data[np.newaxis]), stream.reset):
            with pytest.raises(RuntimeError, match="another thread is using this stream"):
                call()
    stream.step(data)


def test_sessions_and_models_can_be_copied_and_pickled():
    network, data = plan_table.network_of("digits", "lif", 0)
    for _, neuron in network.neurons():
        neuron.v_threshold.value[...] = 0.05
    session = dsr.compile(network, 3, 8, features=data.shape[1:], samples=data)
    rates = session(data)
    model = dsr.Model(network)
    outputs = model.outputs(data)
    for again in (pickle.loads(pickle.dumps((session, model))), copy.deepcopy((session, model))):
        np.testing.assert_array_equal(again[0](data), rates)
        assert (again[0].timesteps, again[0].batch) == (3, 8)
        assert again[0].compiled.table_bits == session.compiled.table_bits != {}
        np.testing.assert_array_equal(again[1].outputs(data), outputs)


def test_a_model_predicts_with_the_weights_of_now(monkeypatch):
    """Whoever changes a number of a weight or of a statistic in place, or puts another array there, sees it; and while
    nothing changes, nothing is compiled."""
    network, data = plan_table.network_of("digits", "if", 0)
    model, made = dsr.Model(network), []
    monkeypatch.setattr("dsr.train.model.inference", lambda *a: made.append(1) or (lambda x: network.forward(x)))
    arrays = dict(network.arrays())
    model.outputs(data)
    for name, array in arrays.items():
        before = len(made)
        flat = array.reshape(-1)
        flat[-1] = np.nextafter(flat[-1], np.float32(9))  # one bit of one number
        model.outputs(data)
        assert len(made) == before + 1, name
        model.outputs(data[:1], batch_size=1)
        model.outputs(data, batch_size=1)
        assert len(made) == before + 1, name
    _, parameter = next(iter(network.parameters()))
    parameter.value = parameter.value + np.float32(1)
    model.outputs(data)
    assert len(made) == len(arrays) + 2


def test_models_know_their_samples():
    network, data = case("digits", "if")
    model = dsr.Model(network, about={"features": [1, 8, 8]})
    np.testing.assert_array_equal(dsr.compile(model)(data), dsr.compile(network, features=(1, 8, 8))(data))
    text = repr(dsr.compile(model))
    assert text.startswith("Session, T = 2, at most 32 samples together\nProgram") and "neuron3" in text


@pytest.fixture(scope="module")
def session():
    network, _ = case("digits", "if")
    return dsr.compile(network, features=(1, 8, 8))


BAD_RUNS = [
    (np.zeros((2, 1, 8, 7)), ValueError, r"argument 'data': expected shape \(B, 1, 8, 8\), or with time .* T = 2, got"),
    (np.zeros((3, 2, 1, 8, 8)), ValueError, r"with T = 2, got \(3, 2, 1, 8, 8\)"),
    (np.zeros((1, 8, 8)), ValueError, r"got \(1, 8, 8\)"),
    (np.full((2, 1, 8, 8), 1e39), ValueError, r"argument 'data': expected finite values, got inf at \(0, 0, 0, 0\)"),
    (np.full((2, 1, 8, 8), np.nan), ValueError, r"argument 'data': expected finite values, got nan at \(0, 0, 0, 0\)"),
    ("digits", TypeError, "argument 'data': expected real numbers"),
]


@pytest.mark.parametrize(("data", "error", "message"), BAD_RUNS)
def test_bad_samples(session, data, error, message):
    with pytest.raises(error, match=rf"^Session.run: .*{message}"):
        session(data)
    with pytest.raises(error, match=r"^Session.measure: argument 'samples'"):
        session.measure(data)


def test_bad_frames(session):
    stream = session.start(2)
    good = np.ones((2, 1, 8, 8))
    before = stream.step(good)
    for frame, error, message in (
        (good[:1], ValueError, r"Stream.step: argument 'frame': expected shape \(2, 1, 8, 8\), got \(1, 1, 8, 8\)"),
        (np.full_like(good, np.inf), ValueError, r"Stream.step: argument 'frame': expected finite values, got inf"),
        (["a"], TypeError, "Stream.step: argument 'frame': expected real numbers"),
    ):
        with pytest.raises(error, match=message):
            stream.step(frame)
    with pytest.raises(ValueError, match=r"Stream.steps: argument 'frames': expected shape \(S, 2, 1, 8, 8\) with S"):
        stream.steps(good[np.newaxis][:0])
    with pytest.raises(RuntimeError, match=r"Stream.steps: expected at most T = 2 steps, and sample 0 has seen 1 of"):
        stream.steps(np.stack([good, good]))
    np.testing.assert_array_equal(stream.rates(), before)  # nothing of it was done
    np.testing.assert_array_equal(stream.times, [1, 1])
    for samples, error, message in (
        (2, ValueError, "Stream.reset: argument 'samples': expected numbers 0 to 1, got 2"),
        ([-1], ValueError, "expected numbers 0 to 1, got -1"),
        ([0.0], TypeError, "argument 'samples': expected numbers of samples, got float64"),
        ([[0]], TypeError, r"argument 'samples': expected numbers of samples, got int64 of shape \(1, 1\)"),
    ):
        with pytest.raises(error, match=message):
            stream.reset(samples)


def test_a_single_sample_needs_no_axis(session):
    frames = np.random.default_rng(3).normal(size=(2, 1, 8, 8))
    one, other, at_once = session.start(), session.start(), session.start(1)
    for frame in frames:
        np.testing.assert_array_equal(one.step(frame), other.step(frame[np.newaxis]))
    np.testing.assert_array_equal(at_once.steps(frames), one.rates())
    with pytest.raises(ValueError, match=r"Stream.step: argument 'frame': expected shape \(2, 1, 8, 8\), got"):
        session.start(2).step(frames[0])


def test_bad_compilations():
    network, data = case("digits", "if")
    with pytest.raises(TypeError, match=r"compile: argument 'model': expected a Network or a Model, got str"):
        dsr.compile("runs/digits")
    with pytest.raises(ValueError, match=r"compile: argument 'features': expected the shape of a sample"):
        dsr.compile(network)
    with pytest.raises(ValueError, match=r"compile: argument 'timesteps': expected an integer >= 1, got 0"):
        dsr.compile(network, 0, features=(1, 8, 8))
    with pytest.raises(ValueError, match=r"compile: argument 'batch': expected an integer >= 1, got 0"):
        dsr.compile(network, batch=0, features=(1, 8, 8))
    with pytest.raises(ValueError, match=r"Session.measure: argument 'samples': expected at least one sample"):
        dsr.compile(network, features=(1, 8, 8), samples=data[:0])
    fresh = dsr.compile(network, features=(1, 8, 8))
    with pytest.raises(ValueError, match=r"Session.start: argument 'batch': expected an integer >= 1, got 0"):
        fresh.start(0)
    with pytest.raises(RuntimeError, match=r"Session.step: expected a stream that was started with Session.start"):
        fresh.step(data)
    stream = fresh.start(len(data))
    np.testing.assert_array_equal(fresh.step(data), stream.rates())


@pytest.mark.parametrize("first", ["norm", "sum"])
def test_rounded_weights_are_those_of_the_network(first):
    """Only convolutions of the data themselves have 8 bits; normalised data, and sums with what is trained, do not."""
    inner = dsr.BatchNorm(3) if first == "norm" else dsr.Add(dsr.Identity(), dsr.Conv2d(3, 3, 3, padding=1))
    body = dsr.Sequential(inner, dsr.Conv2d(3, 8, 3), dsr.IF(1.0), dsr.Flatten(), dsr.Linear(8 * 36, 10))
    network = dsr.Network(body, timesteps=4, weight_bits=2)
    images = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    session = dsr.compile(network, features=(3, 8, 8))
    np.testing.assert_allclose(session(images), network(images), rtol=1e-5, atol=1e-6)
