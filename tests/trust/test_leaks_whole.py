"""Nothing stays behind: networks, training, files and data sets, with valid arguments and with errors (growth.py)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growth import Call, Record, check
from shared_events import aedat2_bytes, nmnist_bytes

import dsr
from dsr import data, inspect
from dsr.data import augment
from dsr.data.events import array, frames, reading
from dsr.data.events import augment as event_augment
from dsr.files import checkpoint, pickles
from dsr.inspect import summary
from dsr.optim import schedule
from dsr.train import hybrid, recipe
from dsr.train.steps import train_step
from dsr.train.views import mean_output

FILES = Path(__file__).parents[1] / "data"


@pytest.fixture
def times(amount: Callable[[int, int], int]) -> int:
    """How often each call is made in a window; they take milliseconds."""
    return amount(5, 200)


@pytest.fixture(scope="module")
def record(amount: Callable[[int, int], int]) -> Record:
    """What all calls left behind; in the full number of rounds less than a block for two of them."""
    return Record(every=amount(3, 1), slack=amount(40, 0))


@pytest.fixture
def images(rng):
    """A batch."""
    return rng.normal(size=(6, 2, 8, 8)).astype(np.float32)


def every_layer(seed: int = 0) -> dsr.Network:
    """Every kind of layer."""
    inner = dsr.Sequential(dsr.Conv2d(5, 5, 3, padding=1), dsr.BatchNorm(5), dsr.LIF(0.3), dsr.Conv2d(5, 5, 1))
    body = dsr.Sequential(
        dsr.Conv2d(2, 5, 3, padding=1),
        dsr.BatchNorm(5),
        dsr.IF(0.5),
        dsr.Residual(inner),
        dsr.BatchNorm(5),
        dsr.IF(0.5),
        dsr.AvgPool2d(2),
        dsr.Dropout(0.2),
        dsr.Flatten(),
        dsr.Linear(80, 3),
        dsr.BatchNorm(3),
        dsr.IF(0.5),
    )
    return dsr.Network(body, timesteps=3, seed=seed)


def plain_network() -> dsr.Network:
    """What NIR can hold."""
    body = dsr.Sequential(
        dsr.Conv2d(2, 4, 3, padding=1), dsr.IF(0.5), dsr.AvgPool2d(2), dsr.Flatten(), dsr.Linear(64, 3), dsr.LIF(0.3)
    )
    return dsr.Network(body, timesteps=3)


def call(function: Callable[..., object], *positional: Any, **named: Any) -> Call:
    """A call, not made yet."""
    return function, positional, named


def test_passes(times, images, record):
    network = every_layer()
    over_time = np.stack([images] * 3)
    rates = network.forward(images, training=True)

    def train():
        network.forward(images, training=True)
        network.backward(np.ones_like(rates))

    def train_over_time():
        network.forward(over_time, training=True)
        network.backward(np.ones_like(rates))

    def observed():
        network.forward(images, observer=lambda path, layer, output: None)

    good = [call(f) for f in (train, train_over_time, observed)]
    good += [call(network.forward, images), call(network.forward, over_time), call(network.predict, images, 4)]
    good += [call(dsr.spike_rates, network, images), call(every_layer), call(mean_output, network, images, "flip")]
    wrong = (images[0], images[:, :1], images.astype(complex), "text", over_time[:2], images[:, :, :1, :1])
    bad = [call(network.forward, value, training=training) for value in wrong for training in (False, True)]
    train()
    bad += [call(network.backward, value) for value in (rates, np.ones((1, 2)), "text")]
    check("passes", good, bad, times, record)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_steps(optimizer, times, images, record):
    network = every_layer()
    parameters = network.parameters()
    made = dsr.Adam(parameters) if optimizer == "adam" else dsr.SGD(parameters, 1e-3, 0.9, 5e-4, nesterov=True)
    labels = np.array([0, 1, 2, 0, 1, 2])
    huge = np.full_like(images, 1e30)
    good = [call(train_step, network, made, images, labels, 0.1)]
    good += [call(made.state), call(lambda: made.load_state(made.state()))]
    good += [call(lambda: network.load_state(network.state()))]
    bad = [
        call(train_step, network, made, *wrong)
        for wrong in ((images, labels[:2]), (images, labels + 3), (huge, labels))
    ]
    bad += [call(made.load_state, {"other": np.zeros(3)}), call(network.load_state, {"other": np.zeros(3)})]
    state = network.state()
    bad += [call(network.load_state, {**state, "0.weight": np.zeros(3)})]
    bad += [call(dsr.cross_entropy, np.zeros((6, 3), "f4"), labels, share) for share in (1.0, -1.0, float("nan"))]
    check(optimizer, good, bad, times, record)


def test_spike_trains(times, rng, record):
    dense = (rng.random((3, 4, 5)) < 0.3).astype(np.float32)
    train = dsr.SpikeTrain.from_dense(dense)
    good = [call(dsr.SpikeTrain.from_dense, dense, 0.5), call(train.dense), call(train.counts), call(train.rate)]
    good += [call(lambda: train[1:]), call(lambda: repr(train)), call(lambda: train[:2].firing_rate())]
    bad = [call(dsr.SpikeTrain.from_dense, wrong) for wrong in (dense[0], "text", dense[:0], dense.astype(complex))]
    bad += [call(lambda: train[3:]), call(lambda: train[0])]
    check("SpikeTrain", good, bad, times, record)


def test_checkpoints(tmp_path, times, record):
    arrays, path = every_layer().state(), tmp_path / "a.safetensors"
    checkpoint.save(path, arrays, {"a": 1})
    whole = path.read_bytes()
    damaged = {"short": whole[:-5], "bit": whole[:-1] + b"\xff", "other": b"nothing of the kind", "empty": b""}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    good = [call(checkpoint.save, path, arrays, {"a": 1}), call(checkpoint.load, path)]
    bad = [call(checkpoint.load, tmp_path / name) for name in (*damaged, "none")]
    bad += [
        call(checkpoint.save, tmp_path / "no" / "folder", arrays, {}),
        call(checkpoint.save, path, arrays, {"a": {1}}),
    ]
    check("checkpoint", good, bad, times, record)


def test_weights(tmp_path, times, record):
    network = every_layer()
    np.savez(tmp_path / "a.npz", **network.state())
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    (tmp_path / "c.pth").write_bytes(FILES.joinpath("small.pth").read_bytes()[:-50])
    good = [call(dsr.load_state, network, tmp_path / "a.npz"), call(dsr.load_state, network, network.state())]
    bad = [call(dsr.load_state, network, source) for source in (tmp_path / "b.npz", tmp_path / "c.pth", tmp_path / "d")]
    bad += [call(dsr.load_state, network, FILES / "small.pth"), call(dsr.load_state, network, {})]
    check("load_state", good, bad, times, record)


def test_nir(tmp_path, times, record):
    pytest.importorskip("nir", reason="NIR files need the package nir")
    network, path = plain_network(), tmp_path / "a.nir"
    dsr.nir.save(network, (2, 8, 8), path)
    graph = dsr.nir.to_nir(network, (2, 8, 8))
    (tmp_path / "b.nir").write_bytes(b"no HDF5")
    good = [call(dsr.nir.to_nir, network, (2, 8, 8)), call(dsr.nir.from_nir, graph, 3)]
    good += [call(dsr.nir.save, network, (2, 8, 8), path), call(dsr.nir.load, path)]
    bad = [call(dsr.nir.to_nir, network, (3, 8, 8)), call(dsr.nir.load, tmp_path / "b.nir")]
    bad += [call(dsr.nir.from_nir, graph, 0), call(dsr.nir.load, tmp_path / "none")]
    # HDF5 is slow, and takes some memory for itself
    check("nir", good, bad, max(times // 4, 2), Record(record.every, slack=40))


def test_measuring(times, images, record):
    network, labels = every_layer(), np.array([0, 1, 2, 0, 1, 2])
    report = inspect.measure(network, images, labels)
    good = [call(inspect.measure, network, images, labels), call(report.text), call(report.to_dict)]
    good += [call(inspect.error_curves, network, images, labels, timesteps=(1, 2))]
    good += [
        call(summary.table, summary.summary(network, (2, 8, 8), images)),
        call(type(report).from_dict, report.to_dict()),
    ]
    bad = [call(inspect.measure, network, images, labels[:2]), call(inspect.measure, network, images[:0])]
    bad += [call(inspect.error_curves, network, images, timesteps=(0,)), call(summary.summary, network, (2, 8))]
    check("inspect", good, bad, times, record)


def test_hybrid(times, images, record):
    def network(neuron):
        layers = dsr.Conv2d(2, 4, 3), dsr.BatchNorm(4), neuron(), dsr.Flatten(), dsr.Linear(144, 3), neuron()
        return dsr.Network(dsr.Sequential(*layers), 1)

    ann, spiking = network(dsr.ReLU), network(dsr.IF)
    good = [call(hybrid.convert, ann, spiking, [images], 0.9), call(hybrid.activations, ann, [images])]
    bad = [call(hybrid.convert, ann, ann, [images]), call(hybrid.convert, ann, spiking, [])]
    bad += [call(hybrid.convert, ann, spiking, [images], 2.0), call(hybrid.convert, ann, every_layer(), [images])]
    check("hybrid", good, bad, times, record)


def test_digits_and_recipes(times, record):
    def batches():
        samples = data.load("digits").train
        return list(samples.batches((np.arange(n, n + 4), None) for n in (0, 4)))

    good = [call(batches), call(recipe.load, "digits", ["epochs=3"]), call(recipe.names), call(data.names)]
    good += [call(schedule.cosine, 0.6, base=0.1, epochs=2, step=3, warmup_steps=1)]
    bad = [call(data.load, "nothing"), call(recipe.load, "nothing"), call(recipe.load, "digits", ["epoch=3"])]
    bad += [call(recipe.load, "digits", ["epochs=x"]), call(data.load, "cifar10", Path("/nowhere"))]
    check("digits", good, bad, times, record)


def test_events_and_frames(tmp_path, times, rng, record):
    table = np.empty(60, array.EVENT)
    table["x"], table["y"] = rng.integers(34, size=(2, 60))
    table["p"], table["t"] = rng.random(60) < 0.5, np.sort(rng.integers(5000, size=60))
    fields = {name: table[name] for name in ("x", "y", "t", "p")}
    npz, npy = io.BytesIO(), io.BytesIO()
    np.savez(npz, **fields, sensor_size=np.array([34, 34]))
    np.save(npy, table)
    word = table["x"] + (table["y"].astype(np.int64) << 14) + (table["p"].astype(np.int64) << 28)
    dat = b"% Version 2\n% Width 34\n% Height 34\n\x0c\x08" + np.stack([table["t"], word], 1).astype("<u4").tobytes()
    whole = {
        "a.aedat": aedat2_bytes(table),
        "b.bin": nmnist_bytes(table),
        "c.npz": npz.getvalue(),
        "d.npy": npy.getvalue(),
    }
    whole["e.dat"] = dat
    good, bad = [], []
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"cut-{name}").write_bytes(content[:-3])
        good.append(call(reading.read_events, tmp_path / name, (34, 34) if name == "d.npy" else None))
        bad.append(call(reading.read_events, tmp_path / f"cut-{name}", (34, 34)))
    (tmp_path / "f.bin").write_bytes(b"")
    bad += [call(reading.read_events, tmp_path / name) for name in ("f.bin", "none")]
    for how in ("number", "time"):
        good.append(call(frames.to_frames, fields, 4, (34, 34), how))
        bad += [call(frames.to_frames, fields, *wrong, how) for wrong in ((0, (34, 34)), (4, (10, 10)), (4, None))]
    counts = frames.to_frames(table, 4, (34, 34))
    good += [call(frames.resize, counts, 20), call(array.as_events, fields, (34, 34))]
    bad += [call(array.as_events, wrong, (34, 34)) for wrong in ({"x": [1]}, np.zeros(3), {**fields, "p": "text"})]
    # Python and NumPy keep freed objects: 33 blocks of a place after 200 rounds and after 2,000
    check("events", good, bad, times, record, slack=20)


def test_augmentation(times, rng, record):
    from dsr.data.samples import epoch_draws

    draws = epoch_draws(6, 0, 0)
    bytes_of = rng.integers(256, size=(6, 3, 8, 8), dtype=np.uint8)
    counts = rng.integers(5, size=(6, 4, 2, 8, 8), dtype=np.int32)
    transform = augment.ImageTransform((0.5,) * 3, (0.2,) * 3, data.Preparation(crop_padding=2, flip=True, cutout=3))
    of_frames = event_augment.FrameTransform(2, 1, True, 2, 3)
    good = [call(transform, bytes_of, draws), call(transform, bytes_of, None), call(of_frames, counts, draws)]
    check("augmentation", good, [call(transform, bytes_of[:, :2], None)], times, record)


def test_pickles(times, record):
    value = {"labels": [1, 2, 3], "data": b"abc" * 50, "name": "a"}
    whole = pickle.dumps(value, 2)
    good = [call(pickles.read_dict, whole, "a")]
    bad = [call(pickles.read_dict, wrong, "a") for wrong in (whole[:-4], whole + b"x", pickle.dumps(Path("a"), 2), b"")]
    check("pickles", good, bad, times, record)


def test_folders_of_images(tmp_path, times, rng, record):
    pytest.importorskip("PIL.Image", reason="images of folders need Pillow")
    from PIL import Image

    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype=np.uint8)).save(folder / "1.png")
            Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype=np.uint8)).save(folder / "2.jpg")
    broken = tmp_path / "broken"
    for split in ("train", "val"):
        (broken / split / "a").mkdir(parents=True)
        (broken / split / "a" / "1.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes()[:200])
    preparation = data.Preparation(image_size=16)

    def batch(folder):
        return data.load("folder", folder, preparation).train.batch(np.arange(1))

    bad = [call(batch, broken), call(batch, tmp_path / "train"), call(batch, tmp_path / "none")]
    check("folder", [call(batch, tmp_path)], bad, times, record)


def test_classifier(times, rng, record):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    X, y = rng.normal(size=(20, 4)), np.arange(20) % 2
    classifier = dsr.SpikingClassifier(hidden_layer_sizes=(5,), epochs=2, random_state=0)
    classifier.fit(X, y)
    good = [call(lambda: dsr.SpikingClassifier(hidden_layer_sizes=(5,), epochs=1, random_state=0).fit(X, y))]
    good += [call(classifier.predict, X), call(classifier.predict_proba, X), call(classifier.score, X, y)]
    bad = [call(classifier.predict, X[:, :2]), call(classifier.predict, "text"), call(classifier.fit, X, y[:3])]
    check("classifier", good, bad, times, record)


def test_figure(record, figure):
    figure(str(record))
