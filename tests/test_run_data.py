"""A run and data are put together: names of classes, shapes, numbers and content are compared."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from dsr import data, train
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet
from dsr.data.identity import with_classes
from dsr.files import checkpoint
from dsr.train import recipe, run_folder

COLOURS = {"a": 0, "b": 1, "c": 2, "d": 0}


def pictures(folder, classes, side=8, train_count=20, rename=None):
    """Plainly coloured pictures with noise of 20 levels, in folders train and val, a folder a class."""
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    rng = np.random.default_rng(5)
    for split, count in (("train", train_count), ("val", 10)):
        for name in classes:
            place = folder / split / (rename or {}).get(name, name)
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 20, (side, side, 3))
                pixels[..., COLOURS[name]] += 200
                image.fromarray(pixels.astype(np.uint8)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Three classes, and a run that tells them apart."""
    folder = tmp_path_factory.mktemp("colours")
    pictures(folder / "abc", "abc")
    text = 'data = "folder"\nmodel = "digits"\nwidth = 8\nv_threshold = 1.0\nepochs = 4\nbatch_size = 10\n'
    (folder / "f.toml").write_text(text + "learning_rate = 0.1\n")
    assert main(["train", str(folder / "f.toml"), "--data", str(folder / "abc"), "--out", str(folder / "run")]) == 0
    assert run_folder.load_metrics(folder / "run")[-1]["test_accuracy"] == 1
    return folder


def command(capsys, *words):
    capsys.readouterr()
    status = main([str(word) for word in words])
    return status, capsys.readouterr()


@pytest.mark.parametrize("classes", ["bc", "ca"])
def test_some_of_the_classes_are_taken_in_the_order_of_the_run(colours, capsys, tmp_path, classes):
    status, output = command(capsys, "evaluate", colours / "run", "--data", pictures(tmp_path / "some", classes))
    assert status == 0
    assert output.out == (
        f"the test samples are of {len(classes)} of the 3 classes of the run\ntest accuracy 100.00 %\n"
    )


def test_data_of_one_class_are_refused_as_in_training(colours, capsys, tmp_path):
    status, output = command(capsys, "evaluate", colours / "run", "--data", pictures(tmp_path / "one", "c"))
    assert status == 1
    assert "'c'" in output.err and "class" in output.err


@pytest.mark.parametrize(
    ("classes", "rename", "words"),
    [
        ("bcd", {}, "only the data have d; only the run has a"),
        ("abcd", {}, "only the data have d"),
        ("abc", {"c": "C"}, "only the data have C; only the run has c"),
    ],
)
@pytest.mark.parametrize("kind", ["evaluate", "inspect", "summary", "resume"])
def test_other_classes_are_named(colours, capsys, tmp_path, kind, classes, rename, words):
    other = pictures(tmp_path / "other", classes, rename=rename)
    lines = {
        "evaluate": ["evaluate", colours / "run"],
        "inspect": ["inspect", colours / "run"],
        "summary": ["summary", colours / "run", "--spikes"],
        "resume": ["train", "--resume", colours / "run"],
    }
    status, output = command(capsys, *lines[kind], "--data", other)
    assert status == 1
    assert output.err == f"dsr: the classes of the data are not those of the run: {words}\n"


@pytest.mark.parametrize("kind", ["evaluate", "inspect", "resume"])
def test_samples_of_another_shape_are_named(colours, capsys, tmp_path, kind):
    lines = {"evaluate": ["evaluate"], "inspect": ["inspect"], "resume": ["train", "--resume"]}
    status, output = command(
        capsys, *lines[kind], colours / "run", "--data", pictures(tmp_path / "large", "abc", side=12)
    )
    assert status == 1
    assert "have the shape (3, 12, 12), but the network of the run takes (3, 8, 8)" in output.err


def small(classes="abc", count=60, seed=0, labels=None):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, 1, 8, 8)).astype(np.float32)
    labels = np.arange(count) % len(classes) if labels is None else labels
    return DataSet("small", tuple(classes), (1, 8, 8), *[ArraySamples(images, labels)] * 2)


def test_classes_are_mapped_by_name():
    given = small("cab")
    mapped = with_classes(given, ("a", "b", "c", "d"))
    assert mapped.classes == ("a", "b", "c", "d")
    np.testing.assert_array_equal(mapped.test.labels, np.array([2, 0, 1])[given.test.labels])
    np.testing.assert_array_equal(mapped.train.batch(np.arange(3)), given.train.batch(np.arange(3)))
    assert with_classes(given, ("c", "a", "b")) is given
    with pytest.raises(ValueError, match="their order or number differs"):
        with_classes(small("aab"), ("a", "b"))


def trainer_of(folder, samples, say=str):
    chosen = recipe.load("digits", ["epochs=2", "width=4", "batch_size=20"])
    return train.Trainer(chosen, samples, folder, say)


@pytest.fixture
def stopped(tmp_path):
    """A run with one of two epochs done."""
    (tmp_path / "run").mkdir()
    trainer_of(tmp_path / "run", small())._epoch()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (small(count=40), "it had 60 training samples, now there are 40"),
        (small(count=63), "it had 60 training samples, now there are 63"),
        (small(labels=np.arange(60) // 20), "the labels of the training samples are not those"),
        (small("acb"), "the classes of the data are not those of the run: their order"),
        (small("abd"), "the classes of the data are not those of the run: only the data have d; only the run has c"),
    ],
)
def test_a_run_is_not_resumed_with_other_data(stopped, other, words):
    with pytest.raises(checkpoint.CheckpointError, match=f"it is of other data: {words}"):
        trainer_of(stopped, other).resume()


def test_other_content_is_said(stopped):
    lines = []
    trainer_of(stopped, small(), lines.append).resume()
    assert lines == []
    trainer_of(stopped, small(seed=1), lines.append).resume()
    assert lines == [
        f"the training samples differ from those that {stopped} was trained with until now",
        f"the test samples differ from those that {stopped} was trained with until now",
    ]


def test_a_checkpoint_from_before_fingerprints_is_resumed(stopped):
    arrays, metadata = checkpoint.load(stopped / run_folder.CHECKPOINT)
    del metadata["samples"], metadata["position"]["steps_per_epoch"]
    checkpoint.save(stopped / run_folder.CHECKPOINT, arrays, metadata)
    trainer = trainer_of(stopped, small())
    trainer.resume()
    trainer.fit()
    assert trainer.position.steps_per_epoch == 3


def test_a_run_whose_data_came_with_dsr_ignores_an_old_path(tmp_path, capsys):
    """Earlier versions took --data with digits, and noted it."""
    trainer_of(tmp_path / "run", data.load("digits")).fit()
    arrays, metadata = checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)
    metadata["data_path"] = str(tmp_path)
    checkpoint.save(tmp_path / "run" / run_folder.CHECKPOINT, arrays, metadata)
    assert command(capsys, "evaluate", tmp_path / "run")[0] == 0
    status, output = command(capsys, "evaluate", tmp_path / "run", "--data", tmp_path)
    assert status == 1 and "expected none with digits, which comes with dsr" in output.err


def test_a_source_of_weights_with_other_classes_is_said(tmp_path):
    chosen = recipe.load("digits", ["epochs=1", "width=4", "batch_size=20", "neuron=relu", "timesteps=1"])
    train.Trainer(chosen, small("abd"), tmp_path / "ann", str).fit()
    lines = []
    trainer = trainer_of(tmp_path / "snn", small(), lines.append)
    trainer.start_from(tmp_path / "ann")
    assert len(lines) == 2 and lines[0].startswith(f"--from: {tmp_path / 'ann' / run_folder.BEST}: the classes of")
    assert lines[0].endswith("are not those of the run: only the data have c; only the run has d")
    shutil.copy(tmp_path / "ann" / run_folder.BEST, tmp_path / "weights.safetensors")
    assert lines[1].endswith(": all 16 arrays taken; thresholds by the activations of the ReLU network")
    trainer_of(tmp_path / "other", small("abd"), lines.append).start_from(tmp_path / "weights.safetensors")
    assert len(lines) == 3 and "arrays taken" in lines[2]


def test_evaluation_at_another_size(capsys, tmp_path):
    """Of a network that pools globally: what Python computes for pictures of that size, which is no multiple of 32."""
    pictures(tmp_path / "data", "abc", side=50)
    text = 'data = "folder"\nmodel = "resnet18"\nwidth = 4\nv_threshold = 1.0\ntimesteps = 2\nbatch_size = 10\n'
    (tmp_path / "f.toml").write_text(text + "learning_rate = 0.1\nepochs = 1\nimage_size = 36\n")
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "f.toml"), "--data", str(tmp_path / "data"), "--out", str(run)]) == 0
    for size in (45, 64):
        status, output = command(capsys, "evaluate", run, "--image-size", size)
        network, chosen, metadata = run_folder.load_run(run)
        assert metadata["features"] == [3, 36, 36]
        samples = run_folder.load_run_data(chosen, metadata, image_size=size)
        assert samples.test.batch(np.arange(2)).shape == (2, 3, size, size)
        other = train.build_network(chosen, (3, size, size), 3)  # one that was made for this size
        other.load_state(network.state())
        assert status == 0
        assert output.out == f"test accuracy {100 * train.accuracy(other, samples.test):.2f} %\n"


def test_another_size_is_refused_where_there_is_none(colours, capsys, tmp_path):
    status, output = command(capsys, "evaluate", colours / "run", "--image-size", 12)
    assert status == 1
    assert "Linear linear: expected features" in output.err
    words = ["digits", "--set", "epochs=1", "--set", "width=4", "--out", tmp_path / "run"]
    assert command(capsys, "train", *words)[0] == 0
    status, output = command(capsys, "evaluate", tmp_path / "run", "--image-size", 12)
    assert status == 1
    assert "--image-size: expected none, since samples of digits have a size of their own" in output.err
