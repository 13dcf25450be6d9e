"""Your own arrays and folders without code: which are read, how they are split and normalised, which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from dsr import data
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet, Preparation, Preprocessing
from dsr.data.split import split
from dsr.data.targets import as_targets
from dsr.files.errors import DataError
from dsr.train import recipe, run_folder

RNG = np.random.default_rng(7)
Y = np.arange(40) % 4
VECTORS = (RNG.normal(3, 2, (40, 6)) + Y[:, np.newaxis]).astype(np.float32)
IMAGES = RNG.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8)


def load(path, arrays, **wanted):
    np.savez(path / "my.npz", **arrays)
    return data.load("arrays", path / "my.npz", Preparation(**wanted))


# ------------------------------------------------------------------------------------------------------------- samples


def test_a_file_with_a_split(tmp_path):
    parts = {"x_train": VECTORS[:30], "y_train": Y[:30], "x_test": VECTORS[30:], "y_test": Y[30:]}
    found = load(tmp_path, parts)
    assert (found.name, found.features, found.classes, found.task) == (
        "my",
        (6,),
        ("0", "1", "2", "3"),
        "classification",
    )
    np.testing.assert_array_equal(found.test.labels, Y[30:])
    every = found.train.batch(np.arange(30))
    assert every.dtype == np.float32
    np.testing.assert_allclose(every.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(every.std(axis=0), 1, rtol=1e-5)
    mean, deviation = VECTORS[:30].mean(axis=0, dtype=float), VECTORS[:30].std(axis=0, dtype=float)
    np.testing.assert_allclose(found.test.batch(np.arange(10)), (VECTORS[30:] - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_a_file_without_a_split_is_split_by_seed_and_class(tmp_path):
    found = load(tmp_path, {"x": VECTORS, "y": Y}, test_share=0.25)
    assert (len(found.train), len(found.test)) == (28, 12)
    assert np.bincount(found.test.labels).tolist() == [3, 3, 3, 3]
    again, other = (load(tmp_path, {"x": VECTORS, "y": Y}, test_share=0.25, split_seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(again.test.arrays, found.test.arrays)
    assert not np.array_equal(other.test.arrays, found.test.arrays)
    both = np.concatenate([found.train.arrays, found.test.arrays])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(VECTORS, axis=0))


def test_the_split_is_the_same_on_every_machine():
    train, test = split(Y, 40, 0.1, 0, "x")
    assert test.tolist() == [19, 22, 24, 33] and len(train) == 36
    with pytest.raises(ValueError, match="x: class 1: 1 are too few to hold out 10 % for the test"):
        split(np.array([0, 0, 1]), 3, 0.1, 0, "x")
    with pytest.raises(ValueError, match="test_share is 0, and the data have no test samples"):
        split(None, 3, 0.0, 0, "x")


def test_names_of_classes(tmp_path):
    names = np.array(["cat", "dog", "eel", "fox"])
    found = load(tmp_path, {"x": VECTORS, "y": names[Y]})
    assert found.classes == tuple(names)
    found = load(tmp_path, {"x": VECTORS, "y": Y, "classes": names[::-1]})
    assert found.classes == tuple(names[::-1])
    with pytest.raises(DataError, match="y has 'fox', which is not among its classes"):
        load(tmp_path, {"x": VECTORS, "y": names[Y], "classes": names[:3]})


def test_images_are_pixels(tmp_path):
    found = load(tmp_path, {"x": IMAGES, "y": Y}, mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.2, 0.1))
    assert found.features == (3, 8, 8) and found.preprocessing.kind == "images"
    pixels = found.test.arrays.transpose(0, 2, 3, 1) / 255
    expected = ((pixels - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.1]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found.test.batch(np.arange(len(found.test))), expected, rtol=1e-5, atol=1e-6)
    plain = load(tmp_path, {"x": IMAGES, "y": Y}, normalisation="none")
    np.testing.assert_allclose(plain.test.batch(np.arange(2)), plain.test.arrays[:2] / 255, rtol=1e-6)
    flipped = load(tmp_path, {"x": IMAGES, "y": Y}, flip=True, normalisation="none")
    draws = np.zeros((2, 8))
    np.testing.assert_allclose(
        flipped.train.batch(np.arange(2), draws), flipped.train.arrays[:2, ..., ::-1] / 255, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("axes", "raw", "features", "batch"),
    [
        ("HW", (8, 6), (1, 8, 6), lambda x: x[:, np.newaxis]),
        ("HWC", (8, 6, 3), (3, 8, 6), lambda x: x.transpose(0, 3, 1, 2)),
        ("CHW", (8, 6, 3), (8, 6, 3), lambda x: x),
        ("TF", (4, 5), (5,), lambda x: x.swapaxes(0, 1)),
        ("TCHW", (4, 2, 8, 6), (2, 8, 6), lambda x: x.swapaxes(0, 1)),
        ("THW", (4, 8, 6), (1, 8, 6), lambda x: x.swapaxes(0, 1)[:, :, np.newaxis]),
        ("THWC", (4, 8, 6, 2), (2, 8, 6), lambda x: x.transpose(1, 0, 4, 2, 3)),
    ],
)
def test_axes_by_name(tmp_path, axes, raw, features, batch):
    x = RNG.normal(size=(40, *raw)).astype(np.float32)
    found = load(tmp_path, {"x": x, "y": Y}, axes=axes, timesteps=4, normalisation="none")
    assert found.features == features
    np.testing.assert_array_equal(found.test.batch(np.arange(3)), batch(found.test.arrays[:3]))
    np.testing.assert_array_equal(found.preprocessing.batch(found.test.arrays[:3]), batch(found.test.arrays[:3]))


def test_channels_are_normalised_over_time_and_place(tmp_path):
    x = RNG.normal([1, 5], [2, 3], (40, 4, 8, 8, 2)).astype(np.float32)
    found = load(tmp_path, {"x": x, "y": Y}, axes="THWC", timesteps=4)
    every = found.train.batch(np.arange(len(found.train)))
    np.testing.assert_allclose(every.mean(axis=(0, 1, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(every.std(axis=(0, 1, 3, 4)), 1, rtol=1e-4)
    constant = load(tmp_path, {"x": np.full((40, 6), 1e9), "y": Y})
    np.testing.assert_array_equal(constant.train.batch(np.arange(3)), 0)


@pytest.mark.parametrize(
    ("arrays", "wanted", "words"),
    [
        ({"x": VECTORS}, {}, "expected the arrays x_train, y_train, x_test and y_test, or x and y, got x.npy"),
        ({"x": VECTORS, "y": Y, "z": Y}, {}, "or x and y, got x.npy, y.npy, z.npy"),
        ({"x": VECTORS, "y": Y[:-1]}, {}, "argument 'y': expected 40 integers, one per sample"),
        ({"x": VECTORS, "y": Y[:, None]}, {}, r"got int64 of shape \(40, 1\); .reshape"),
        ({"x": VECTORS, "y": np.eye(4, dtype=int)[Y]}, {}, "argmax"),
        ({"x": VECTORS, "y": Y - 1}, {}, "expected classes 0 to"),
        ({"x": VECTORS, "y": Y / 3}, {}, 'for real values set task = "regression"'),
        ({"x": VECTORS, "y": Y > 1}, {}, 'for several labels set task = "multilabel"'),
        ({"x": VECTORS, "y": Y, "classes": np.array(["a", "b"])}, {}, "expected classes 0 to 1, got 0 to 3"),
        ({"x": VECTORS, "y": Y}, {"task": "multilabel"}, "expected 40 rows of true and false"),
        ({"x": VECTORS, "y": np.full(40, np.nan)}, {"task": "regression"}, "expected finite values, got nan"),
        ({"x": VECTORS, "y": np.full(40, 1e300)}, {"task": "regression"}, "expected finite values, got inf"),
        ({"x": np.where(VECTORS > 5, np.inf, VECTORS), "y": Y}, {}, "x: expected finite numbers, got NaN or infinity"),
        ({"x": VECTORS.astype(str), "y": Y}, {}, "x: expected numbers, got dtype <U"),
        ({"x": VECTORS[:0], "y": Y[:0]}, {}, "x: expected samples, got none"),
        ({"x": np.zeros((40, 4, 5)), "y": Y}, {}, "to name their axes, axes = TF or HW"),
        ({"x": np.zeros((40, 8, 8, 3)), "y": Y}, {}, "to name their axes, axes = CHW or HWC or THW"),
        ({"x": np.zeros((40, 8, 8)), "y": Y}, {"axes": "CHW"}, "axes = 'CHW': expected"),
        ({"x": np.zeros((40, 8, 8)), "y": Y}, {"axes": "AB"}, "axes = 'AB': expected"),
        ({"x": np.zeros((40, 3, 5)), "y": Y}, {"axes": "TF"}, "x has 3 time steps, the recipe timesteps = 1"),
        ({"x": VECTORS, "y": Y}, {"mean": (1.0,), "deviation": (1.0,)}, "a mean and a deviation of 6 channels, got 1"),
        (
            {"x_train": VECTORS, "y_train": Y, "x_test": VECTORS[:, :3], "y_test": Y},
            {},
            r"x_test has samples of shape \(3,\), x_train of \(6,\)",
        ),
        ({"x": np.array([object()] * 40), "y": Y}, {}, "expected numbers, got Python objects"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, wanted, words):
    with pytest.raises(DataError, match=words):
        load(tmp_path, arrays, **wanted)


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.npz: not a readable ZIP archive"):
        data.load("arrays", tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"expected a \.npz file of arrays, found a folder"):
        data.load("arrays", tmp_path)
    with pytest.raises(FileNotFoundError):
        data.load("arrays", tmp_path / "none.npz")


@pytest.mark.parametrize(("mean", "deviation"), [((1.0,), ()), ((1.0,), (0.0,)), ((), (1.0,))])
def test_a_mean_has_a_deviation(mean, deviation):
    with pytest.raises(ValueError, match="expected as many deviations, not 0, as means"):
        Preparation(mean=mean, deviation=deviation)


# ------------------------------------------------------------------------------------------------------------- targets


def test_targets_by_task():
    labels = as_targets("f", "y", [[0, 1], [1, 1]], 2, "multilabel", 2)
    assert labels.dtype == bool and labels.tolist() == [[False, True], [True, True]]
    values = as_targets("f", "y", [1.5, 2.0], 2, "regression", 1)
    assert values.dtype == np.float32 and values.shape == (2, 1)
    assert as_targets("f", "y", np.zeros((2, 3, 4, 5)), 2, "regression", 3).shape == (2, 3, 4, 5)
    maps = np.zeros((2, 4, 5), np.int64)
    assert as_targets("f", "y", maps, 2, "other", 3) is maps


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        ("multilabel", [[0.5, 1.0]], "rows of true and false"),
        ("multilabel", [0], "rows of true and false"),
        ("multilabel", [[1, 0, 1]], "expected 2 columns, one for each output"),
        ("regression", [[1.0]], "expected 2 columns"),
        ("regression", 3.0, "expected targets of 1 samples"),
        ("regression", [[np.inf, 0]], "expected finite values"),
        ("other", [1, 2], "expected targets of 1 samples"),
        ("classification", [2], "expected classes 0 to 1"),
    ],
)
def test_targets_that_do_not_fit(task, targets, words):
    with pytest.raises(ValueError, match=f"f: argument 'y': .*{words}"):
        as_targets("f", "y", targets, 1, task, 2)


def test_train_and_test_have_one_task():
    x = np.zeros((4, 6), np.float32)
    classes, values = ArraySamples(x, [0, 1, 0, 1]), ArraySamples(x, np.zeros((4, 2)), task="regression")
    with pytest.raises(ValueError, match="expected one task, got train of classification, test of regression"):
        DataSet("x", "ab", (6,), classes, values)
    assert DataSet("x", "ab", (6,), values, values).task == "regression"


# ------------------------------------------------------------------------------------------------------------- folders


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    for number in range(40):
        place = tmp_path / "pictures" / "abcd"[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        pixels = IMAGES[number].transpose(1, 2, 0)
        image.fromarray(np.ascontiguousarray(pixels)).save(place / f"{number:02}.png")
    return tmp_path / "pictures"


def test_a_folder_without_a_split(folder):
    found = data.load("folder", folder, Preparation(test_share=0.2))
    assert found.classes == tuple("abcd") and (len(found.train), len(found.test)) == (32, 8)
    assert np.bincount(found.test.labels).tolist() == [2, 2, 2, 2]
    assert not set(found.train.files) & set(found.test.files)
    again = data.load("folder", folder, Preparation(test_share=0.2))
    assert again.test.files == found.test.files
    assert data.load("folder", folder, Preparation(test_share=0.2, split_seed=1)).test.files != found.test.files


def test_normalisation_of_a_folder(folder):
    found = data.load("folder", folder, Preparation(normalisation="data"))
    every = found.train.batch(np.arange(len(found.train)))
    np.testing.assert_allclose(every.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(every.std(axis=(0, 2, 3)), 1, rtol=1e-5)
    plain = data.load("folder", folder, Preparation(normalisation="none"))
    given = data.load("folder", folder, Preparation(mean=(0.5,) * 3, deviation=(2.0,) * 3))
    first = plain.test.batch(np.arange(3))
    assert first.min() >= 0 and first.max() <= 1
    np.testing.assert_allclose(given.test.batch(np.arange(3)), (first - 0.5) / 2, atol=1e-6)
    assert given.preprocessing.mean == (0.5,) * 3
    with pytest.raises(ValueError, match="expected a mean and a deviation of 3 channels, got 1"):
        data.load("folder", folder, Preparation(mean=(0.5,), deviation=(2.0,)))


# -------------------------------------------------------------------------------------------------------- command line


def test_arrays_and_folders_train_without_code(tmp_path, folder, capsys):
    np.savez(tmp_path / "my.npz", x=VECTORS, y=Y)
    for name, path, changes in (
        ("arrays", tmp_path / "my.npz", []),
        ("images", folder, ["model=digits", "image_size=8", "crop_padding=1"]),
    ):
        assert main(["recipe", name]) == 0
        text = capsys.readouterr().out
        assert text.startswith("# Your own ")
        (tmp_path / f"{name}.toml").write_text(text)
        assert recipe.load(str(tmp_path / f"{name}.toml")) == recipe.load(name)
        small = [word for change in ["epochs=1", "width=4", *changes] for word in ("--set", change)]
        words = ["train", str(tmp_path / f"{name}.toml"), "--data", str(path), "--out", str(tmp_path / name)]
        assert main([*words, *small]) == 0, capsys.readouterr().err
        assert "note: " not in capsys.readouterr().out
        assert main(["evaluate", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out.startswith("test accuracy ")


def test_data_without_a_recipe_says_what_to_do(tmp_path, folder, capsys):
    np.savez(tmp_path / "my.npz", x=VECTORS, y=Y)
    (tmp_path / "events" / "a").mkdir(parents=True)
    (tmp_path / "events" / "a" / "1.aedat").touch()
    (tmp_path / "notes").mkdir()
    for path, words in (
        (tmp_path / "my.npz", "looks like an array file; get a recipe for it with: dsr recipe arrays > my.toml"),
        (folder, "looks like a folder of images; get a recipe for it with: dsr recipe images > my.toml"),
        (tmp_path / "events", "looks like a folder of recordings; get a recipe for it with: dsr recipe recordings >"),
        (tmp_path / "notes", "is neither a file of arrays (.npz) nor a folder of images or recordings"),
        (tmp_path / "nothing", "nothing does not exist"),
    ):
        assert main(["train", "--data", str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("dsr: train: expected a recipe. --data: ") and words in error


def test_recipes_of_several_tasks_read_what_they_say():
    chosen = recipe.from_dict(
        {"data": "arrays", "model": "mlp", "task": "regression", "mean": [1, 2.5], "deviation": [1, 2]}
    )
    assert run_folder.preparation(chosen).mean == (1.0, 2.5)
    assert "mean = [1.0, 2.5]" in recipe.text(chosen)
    for wrong in (3, ["a"], [float("nan")], "1"):
        with pytest.raises(ValueError, match="key 'mean': expected a list of finite numbers, got"):
            recipe.from_dict({"data": "arrays", "model": "mlp", "mean": wrong})


def test_preprocessing_as_plain_values():
    made = Preprocessing(
        "recordings", (2, 48, 48), timesteps=4, frames_by="time", sensor_size=(128, 128), image_size=48
    )
    assert Preprocessing.from_dict(made.to_dict()) == made
