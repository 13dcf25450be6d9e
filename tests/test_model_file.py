"""Whole models: `dsr.load`, `dsr.save`, predictions of arrays, images and recordings, and `dsr predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zoo
from plan_table import KINDS, NAMES, network_of

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet, Preparation
from dsr.files import checkpoint
from dsr.files.errors import DataError
from dsr.nn.layer import Layer
from dsr.train import recipe, run_folder
from dsr.train.architecture import NotDescribedError, describe, make

DIGITS = data.load("digits")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of a network that knows the digits."""
    folder = tmp_path_factory.mktemp("models") / "run"
    train.Trainer(recipe.load("digits", ["epochs=5", "width=8"]), DIGITS, folder, str).fit()
    return folder


def pixels(numbers):
    """Test images as bytes, (B, 1, 8, 8)."""
    values = DIGITS.test.arrays[numbers]
    made = DIGITS.preprocessing
    return np.rint((values * made.deviation[0] + made.mean[0]) * 255).astype(np.uint8)


def expected_of(run, numbers):
    network, *_ = run_folder.load_run(run)
    return network.forward(DIGITS.test.arrays[numbers])


# ----------------------------------------------------------------------------------------------------------------- load


def test_a_model_of_a_run_predicts_names_and_probabilities(run):
    model = dsr.load(run)
    numbers = np.arange(60)
    rates = expected_of(run, numbers)
    x = DIGITS.test.arrays[numbers]
    np.testing.assert_array_equal(model.outputs(x, batch_size=7), rates)
    assert model.predict(x).tolist() == [str(number) for number in rates.argmax(axis=1)]
    exponentials = np.exp(rates.astype(np.float64))
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-12)
    assert model.classes == tuple("0123456789")
    assert "10 outputs: 0, 1, 2" in repr(model) and "epoch 5: test accuracy 0.9" in repr(model)
    assert dsr.load(run, timesteps=9).network.timesteps == 9


def test_bytes_are_normalised_as_in_training(run):
    numbers = np.arange(40)
    np.testing.assert_allclose(DIGITS.preprocessing.batch(pixels(numbers)), DIGITS.test.arrays[numbers], atol=0.02)
    same = dsr.load(run).predict(pixels(numbers)) == dsr.load(run).predict(DIGITS.test.arrays[numbers])
    assert same.mean() > 0.95


def test_sequences_are_cut_along_their_batch():
    network = dsr.Network(zoo.sound(lambda: dsr.IF(0.5), 2, 3), 2, inputs="NCL")
    x = np.random.default_rng(0).normal(size=(5, 2, 128)).astype(np.float32)
    np.testing.assert_array_equal(train.Model(network).outputs(x, batch_size=1), network.forward(x))


def test_image_files(run, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    paths = []
    for number, picture in enumerate(pixels(np.arange(12))):
        paths.append(tmp_path / f"{number}.{'png' if number % 2 else 'bmp'}")
        image.fromarray(picture[0]).save(paths[-1])
    model = dsr.load(run)
    np.testing.assert_array_equal(model.outputs(paths, batch_size=5), model.outputs(pixels(np.arange(12))))
    assert model.predict(str(paths[0])).shape == (1,)
    image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"large\.png: 9x8 pixels"):
        model.predict(tmp_path / "large.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.png: not a complete image"):
        model.predict([paths[0], tmp_path / "broken.png"])
    with pytest.raises(DataError, match=r"notes\.txt: expected an image \(.*\) or an array"):
        model.predict(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "none.png")


def test_array_files(run, tmp_path):
    model, x = dsr.load(run), pixels(np.arange(4))
    np.save(tmp_path / "one.npy", x[0])
    np.save(tmp_path / "four.npy", x)
    np.savez(tmp_path / "four.npz", x=x, y=np.arange(4))
    outputs = model.outputs([tmp_path / "one.npy", tmp_path / "four.npy", tmp_path / "four.npz"])
    np.testing.assert_array_equal(outputs, model.outputs(np.concatenate([x[:1], x, x])))
    np.savez(tmp_path / "other.npz", images=x)
    with pytest.raises(DataError, match=r"other\.npz: expected an array 'x' \(or 'x_test'\) in it, got images.npy"):
        model.predict(tmp_path / "other.npz")
    np.save(tmp_path / "wide.npy", np.zeros((1, 8, 9)))
    with pytest.raises(DataError, match=r"wide\.npy: argument 'x': expected samples of shape \(B, 1, 8, 8\)"):
        model.predict(tmp_path / "wide.npy")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 8, 8)), r"expected samples of shape \(B, 1, 8, 8\) with features \(1, 8, 8\), got \(2, 8, 8\)"),
        (np.zeros((0, 1, 8, 8)), "expected at least one sample, got none"),
        (np.full((2, 1, 8, 8), np.nan), "expected finite values, got nan"),
        ("x", "expected an image|No such file"),
        (np.array(["a"]), "expected real numbers, got dtype"),
        (None, "expected real numbers, got dtype object"),
        ([], "expected samples of shape"),
    ],
)
def test_samples_that_are_refused(run, x, words):
    for method in ("predict", "predict_proba", "outputs"):
        with pytest.raises((TypeError, ValueError, OSError), match=words):
            getattr(dsr.load(run), method)(x)


def test_vectors_are_normalised_by_what_the_run_knows(tmp_path):
    x = np.random.default_rng(0).normal(5, 3, (80, 6))
    np.savez(tmp_path / "my.npz", x=x, y=np.array(["no", "yes"])[(x[:, 0] > 5).astype(int)])
    (tmp_path / "my.toml").write_text(recipe.text(recipe.load("arrays", ["epochs=2", "width=8", "test_share=0.2"])))
    assert (
        main(["train", str(tmp_path / "my.toml"), "--data", str(tmp_path / "my.npz"), "--out", str(tmp_path / "run")])
        == 0
    )
    model = dsr.load(tmp_path / "run")
    samples = data.load("arrays", tmp_path / "my.npz", Preparation(test_share=0.2))
    prepared = samples.test.batch(np.arange(8))
    np.testing.assert_array_equal(model.outputs(samples.test.arrays[:8]), model.network.forward(prepared))
    assert set(model.predict(x)) <= {"no", "yes"}


def test_recordings(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSR_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(24):
        name = "left" if number % 2 else "right"
        place = tmp_path / "events" / name
        place.mkdir(parents=True, exist_ok=True)
        x = rng.integers(0, 8, 200) + 8 * (name == "right")
        events = {"x": x, "y": rng.integers(0, 16, 200), "t": np.arange(200), "p": rng.integers(0, 2, 200)}
        np.savez(place / f"{number}.npz", sensor_size=(16, 16), **events)
    words = ["--set", "model=digits", "--set", "width=8", "--set", "image_size=8", "--set", "crop_padding=0"]
    words += ["--set", "timesteps=3", "--set", "epochs=4", "--set", "batch_size=4", "--out", str(tmp_path / "run")]
    assert main(["train", "recordings", "--data", str(tmp_path / "events"), *words]) == 0
    files = sorted((tmp_path / "events").glob("*/*.npz"))
    model = dsr.load(tmp_path / "run")
    samples = run_folder.load_run_data(*run_folder.load_run(tmp_path / "run")[1:])
    _, last = samples.test.labels, files[-1]  # the last recording of a class is one of the test
    number = len(samples.test) - 1
    np.testing.assert_array_equal(model.outputs(last), model.network.forward(samples.test.batch(np.array([number]))))
    assert set(model.predict(files)) == {"left", "right"}
    assert dsr.load(tmp_path / "run", timesteps=5).predict(files[:2]).shape == (2,)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), str(files[0])]) == 0
    assert capsys.readouterr().out.startswith(f"{files[0]}  ")


# ----------------------------------------------------------------------------------------------------------------- save


def test_a_saved_model_is_the_whole_model(run, tmp_path):
    model = dsr.load(run, best=True)
    dsr.save(model, tmp_path / "model.safetensors")
    again = dsr.load(tmp_path / "model.safetensors")
    x = pixels(np.arange(30))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert (again.classes, again.task, again.preprocessing) == (model.classes, model.task, model.preprocessing)
    assert "this epoch was chosen on the test samples" in repr(again)
    assert dsr.load(tmp_path / "model.safetensors", timesteps=2).network.timesteps == 2
    net = run_folder.load_run(run)[0]
    dsr.load_state(net, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(net.forward(DIGITS.test.arrays[:3]), model.outputs(DIGITS.test.arrays[:3]))


def test_a_network_alone_is_saved_with_its_layers(tmp_path):
    net = dsr.Network(
        dsr.Sequential(first=dsr.Linear(6, 8), norm=dsr.BatchNorm(8), lif=dsr.LIF(0.3, tau=2.0, alpha=0.4)), 4
    )
    dsr.save(net, tmp_path / "net.safetensors")
    model = dsr.load(tmp_path / "net.safetensors")
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_array_equal(model.outputs(x), net.forward(x))
    assert model.predict(x).tolist() == net.predict(x).tolist()  # classes without names
    assert (model.network.body.layers["lif"].tau, model.network.timesteps) == (2.0, 4)
    with pytest.raises(ValueError, match="the model does not know how files become samples"):
        model.predict("x.png")
    with pytest.raises(TypeError, match="save: argument 'model': expected a Model or a Network, got dict"):
        dsr.save(net.state(), tmp_path / "x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_described_by_its_layers(name, kind):
    network, batch = network_of(name, kind, 0)
    described = json.loads(json.dumps(describe(network.body), sort_keys=True))
    again = dsr.Network(make(described), network.timesteps, seed=3)
    again.load_state(network.state())
    np.testing.assert_array_equal(again.forward(batch), network.forward(batch))


class Own(Layer):
    """A layer that a file cannot describe."""


def test_layers_that_cannot_be_described_are_named(tmp_path):
    def net(*layers):
        return dsr.Network(dsr.Sequential(*layers), 1)

    changed = net(dsr.Linear(3, 3))
    changed.body.layers["0"] = dsr.Linear(3, 4)
    threshold = net(dsr.Linear(3, 3), dsr.IF(1.0))
    threshold.body.layers["1"].alpha = 0.25
    longer = net(dsr.Linear(3, 3))
    longer.body.layers["1"] = dsr.IF()
    for network, words in (
        (net(dsr.Flatten(), Own()), "layer '1' is a Own of test_model_file, not a layer of dsr"),
        (changed, "layer '' was changed after it was made|layer '0' was changed after it was made"),
        (threshold, "layer '1' was changed after it was made"),
        (longer, "layers were added or removed after the network was made"),
    ):
        with pytest.raises(NotDescribedError, match=words):
            describe(network.body)
        with pytest.raises(ValueError, match=rf"save: argument 'model': {words}.*network.state"):
            dsr.save(network, tmp_path / "x.safetensors")
        assert not (tmp_path / "x.safetensors").exists()


def test_a_run_of_own_layers_needs_a_network(tmp_path):
    def net():
        return dsr.Network(dsr.Sequential(dsr.Flatten(), Same(), dsr.Linear(64, 10)), 1)

    part = ArraySamples(DIGITS.train.arrays[:40], DIGITS.train.labels[:40])
    samples = DataSet("few", DIGITS.classes, DIGITS.features, part, part)
    dsr.Trainer(net(), samples, tmp_path / "run", str, epochs=1, batch_size=20).fit()
    with pytest.raises(checkpoint.CheckpointError, match=r"is a Same of .* dsr.load\(..., network=NETWORK\) gives"):
        dsr.load(tmp_path / "run", run_code=True)
    network = net()
    assert dsr.load(tmp_path / "run", network=network).network is network
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoint.safetensors: Network.load_state: missing"):
        dsr.load(tmp_path / "run", network=dsr.Network(dsr.Sequential(dsr.Linear(3, 3), dsr.BatchNorm(3)), 1))


class Same(Layer):
    """Passes on what it gets."""

    def forward(self, signal, run):
        return signal

    def backward(self, gradient):
        return gradient


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"layer": "Nothing", "arguments": [], "named": []}}, "there is no layer Nothing"),
        (
            {"network": {"layer": "Linear", "arguments": [-1, 2], "named": []}},
            "argument 'in_features': expected",
        ),
        ({"network": {"layer": "Sequential", "arguments": [3], "named": []}}, "expected a layer, got int"),
        ({"network": {"layer": "Linear"}}, "the description of the network cannot be read"),
        ({"network": {"layer": "Sequential", "arguments": [], "named": []}}, "missing nothing, unknown"),
        ({"network": {"layer": "Linear", "arguments": [2, 2], "named": [["x", 1]]}}, "unexpected keyword argument 'x'"),
        ({"preprocessing": {"kind": "images", "speed": 3}}, "its preprocessing cannot be read"),
        ({"preprocessing": [1]}, "its preprocessing cannot be read"),
    ],
)
def test_files_that_say_something_else(tmp_path, change, words):
    net = dsr.Network(dsr.Sequential(dsr.Linear(2, 2)), 1)
    dsr.save(net, tmp_path / "net.safetensors")
    arrays, metadata = checkpoint.load(tmp_path / "net.safetensors")
    checkpoint.save(tmp_path / "net.safetensors", arrays, {**metadata, **change})
    with pytest.raises(checkpoint.CheckpointError, match=rf"net\.safetensors: .*{words}"):
        dsr.load(tmp_path / "net.safetensors")


def test_what_is_no_model(run, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(checkpoint.CheckpointError, match=r"x\.npz: not a readable safetensors file"):
        dsr.load(tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError):
        dsr.load(tmp_path)
    with pytest.raises(ValueError, match="load: argument 'best': expected a run folder with it, got the file"):
        dsr.load(run / run_folder.BEST, best=True)


# -------------------------------------------------------------------------------------------------------- command line


def test_predict_prints_classes_and_probabilities(run, tmp_path, capsys):
    x = pixels(np.arange(3))
    np.save(tmp_path / "three.npy", x)
    np.save(tmp_path / "one.npy", x[1])
    probabilities = dsr.load(run).predict_proba(x)
    assert main(["predict", str(run), str(tmp_path / "three.npy"), str(tmp_path / "one.npy"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *(f"{tmp_path / 'three.npy'}[{k}]" for k in range(3)),
        str(tmp_path / "one.npy"),
    ]
    first, second = np.argsort(-probabilities[1])[:2]
    shown = f"{first} {100 * probabilities[1, first]:.1f} %  {second} {100 * probabilities[1, second]:.1f} %"
    assert lines[1].endswith(f"  {shown}") and lines[3].endswith(f"  {shown}")
    assert main(["predict", str(run), str(tmp_path / "one.npy"), "--json", "--best"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(tmp_path / "one.npy") and len(found["probabilities"]) == 10
    assert found["class"] == max(found["probabilities"], key=found["probabilities"].get)
    dsr.save(dsr.load(run), tmp_path / "model.safetensors")
    assert main(["predict", str(tmp_path / "model.safetensors"), str(tmp_path / "one.npy"), "--top", "2"]) == 0
    assert capsys.readouterr().out.endswith(f"  {shown}\n")
    assert main(["predict", str(run), str(tmp_path / "none.npy")]) == 1
    assert "none.npy" in capsys.readouterr().err
