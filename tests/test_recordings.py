"""Data sets of recordings: which file is where, frames without loss, and a cache that notices changes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from shared_events import aedat2_bytes, nmnist_bytes, recordings

from dsr import data
from dsr.data.events import recordings as module
from dsr.data.events.frames import resize, to_frames
from dsr.data.events.reading import EVENT, read_events
from dsr.files.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DSR_CACHE", str(folder))
    return folder


def some_events(seed, count=60, most=34):
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["x"], events["y"] = rng.integers(most, size=(2, count))
    events["p"] = rng.random(count) < 0.5
    events["t"] = np.sort(rng.integers(5000, size=count))
    return events


def write(folder, names, make=nmnist_bytes, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, start=first):
        (folder / name).write_bytes(make(some_events(number)))


@pytest.fixture
def split(tmp_path):
    root = tmp_path / "set"
    write(root / "train" / "cat", ["a_10.bin", "a_2.bin", "a_1.bin"])
    write(root / "train" / "ant", ["b.bin"], first=10)
    write(root / "test" / "cat", ["c.bin"], first=20)
    write(root / "test" / "ant", ["d.bin", "e.bin"], first=30)
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"no recording")
    return root


def second_class(root, make=nmnist_bytes):
    write(root / "b", ["1.bin", "2.bin"], make, first=50)


def frames_of(path, timesteps=4):
    return to_frames(read_events(path), timesteps)


def test_folders_train_and_test(split):
    loaded = data.load("events", split, data.Preparation(timesteps=4))
    assert (loaded.name, loaded.classes, loaded.features) == ("events", ("ant", "cat"), (2, 34, 34))
    assert loaded.train.labels.tolist() == [0, 1, 1, 1] and loaded.test.labels.tolist() == [0, 0, 1]
    order = ["ant/b.bin", "cat/a_1.bin", "cat/a_2.bin", "cat/a_10.bin"]
    expected = np.stack([frames_of(split / "train" / name) for name in order], axis=1)
    batch = loaded.train.batch(np.arange(4))
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch, expected)
    np.testing.assert_array_equal(loaded.train.batch(np.array([3, 0, 3])), expected[:, [3, 0, 3]])
    np.testing.assert_array_equal(loaded.test.batch(np.array([1]))[:, 0], frames_of(split / "test" / "ant" / "e.bin"))
    with pytest.raises(IndexError):
        loaded.train.batch(np.array([4]))


def test_one_folder_a_class_is_split_in_natural_order(tmp_path):
    write(tmp_path / "set" / "x", [f"r{number}.bin" for number in range(21)])
    write(tmp_path / "set" / "y", ["1.bin", "2.bin"])
    loaded = data.load("events", tmp_path / "set", data.Preparation(timesteps=2))
    assert np.bincount(loaded.train.labels).tolist() == [18, 1] and np.bincount(loaded.test.labels).tolist() == [3, 1]
    for number in range(3):
        expected = frames_of(tmp_path / "set" / "x" / f"r{18 + number}.bin", 2)
        np.testing.assert_array_equal(loaded.test.batch(np.array([number]))[:, 0], expected)


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "val"), ("TRAIN", "Val")])
def test_the_layout_of_nmnist(split, names):
    """``Train/0/*.bin`` and ``Test/0/*.bin``, in upper or lower case, and ``val`` in the place of ``test``."""
    expected = data.load("events", split, data.Preparation(timesteps=2))
    (split / "train").rename(split / names[0])
    (split / "test").rename(split / names[1])
    found = data.load("events", split, data.Preparation(timesteps=2))
    assert found.classes == expected.classes
    for part, other in ((found.train, expected.train), (found.test, expected.test)):
        assert part.labels.tolist() == other.labels.tolist()
        numbers = np.arange(len(part))
        np.testing.assert_array_equal(part.batch(numbers), other.batch(numbers))


def test_val_is_preferred_to_test(split):
    write(split / "val" / "cat", ["c.bin", "d.bin"])
    write(split / "val" / "ant", ["e.bin"])
    assert data.load("events", split, data.Preparation(timesteps=2)).test.labels.tolist() == [0, 1, 1]


def test_one_folder_too_many(split):
    (split / "train").rename(split / "classes")
    shutil.rmtree(split / "test")
    with pytest.raises(DataError, match=r"set: .* 'classes'; perhaps the classes are the folders in it, such as ant"):
        data.load("events", split)


def test_frames_by_time_and_resized_are_exact(split):
    preparation = data.Preparation(timesteps=3, frames_by="time", image_size=20)
    loaded = data.load("events", split, preparation)
    assert loaded.features == (2, 20, 20)
    recording = read_events(split / "train" / "cat" / "a_2.bin")
    expected = resize(to_frames(recording, 3, by="time"), 20)
    np.testing.assert_array_equal(loaded.train.batch(np.array([2]))[:, 0], expected)
    assert (expected % 1).any()


def test_only_training_is_augmented(split):
    preparation = data.Preparation(timesteps=4, crop_padding=4, flip=True, roll=3, cutout=5)
    loaded, plain = data.load("events", split, preparation), data.load("events", split, data.Preparation(timesteps=4))
    numbers, draws = np.arange(3), np.random.default_rng(2).random((3, 8))
    for samples, changes in ((loaded.train, True), (loaded.test, False)):
        without = samples.batch(numbers)
        expected = plain.train if changes else plain.test
        np.testing.assert_array_equal(without, expected.batch(numbers))
        assert (samples.batch(numbers, draws) != without).any() == changes


def test_frames_are_stored_in_the_smallest_dtype_that_holds_them(tmp_path):
    for name, count in (("a", 255), ("b", 256), ("c", 70_000)):
        hot = np.zeros(count, EVENT)
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, events in enumerate([some_events(0), hot, some_events(1)]):
            (tmp_path / "set" / name / f"{number}.bin").write_bytes(nmnist_bytes(events))
    loaded = data.load("events", tmp_path / "set", data.Preparation(timesteps=1))
    assert [part.dtype for part in loaded.train.parts] == ["u1", "u2", "u4"]
    batch = loaded.train.batch(np.arange(6))
    assert batch[0, [1, 3, 5], 0, 0, 0].tolist() == [255, 256, 70_000]
    for number in (0, 2, 4):
        np.testing.assert_array_equal(batch[:, number], to_frames(some_events(0), 1, (34, 34)))


# --- cache


def test_files_are_read_once_and_again_when_they_change(split, cache, capsys, monkeypatch):
    read = []
    monkeypatch.setattr(module, "read_events", lambda *arguments: read.append(arguments) or read_events(*arguments))
    first = data.load("events", split, data.Preparation(timesteps=4))
    assert len(read) == 7
    assert capsys.readouterr().out == f"events: making frames of 7 recordings, to be kept in {cache}\n"
    assert isinstance(first.train.parts[0], np.memmap)
    data.load("events", split, data.Preparation(timesteps=4, flip=True))
    assert len(read) == 7 and capsys.readouterr().out == ""
    (split / "train" / "cat" / "a_2.bin").write_bytes(nmnist_bytes(some_events(99)))
    again = data.load("events", split, data.Preparation(timesteps=4))
    assert len(read) == 10 and "making frames of 6 recordings" in capsys.readouterr().out  # after a class that is kept
    assert again.train.batch(np.array([2])).sum() == 60
    assert (again.train.batch(np.array([2])) != first.train.batch(np.array([2]))).any()
    for other in ({"timesteps": 5}, {"timesteps": 4, "frames_by": "time"}, {"timesteps": 4, "image_size": 16}):
        before = len(read)
        data.load("events", split, data.Preparation(**other))
        assert len(read) == before + 7
    before = len(read)
    data.load("events", split, data.Preparation(timesteps=4))
    assert len(read) == before  # kept beside the others


def test_a_recording_that_takes_the_place_of_another_is_read(split):
    """With its size and time of change, as ``cp -p`` and tar leave them: its frames were those of the old one."""
    preparation = data.Preparation(timesteps=4)
    old = data.load("events", split, preparation).train.batch(np.array([2]))
    file, other = split / "train" / "cat" / "a_2.bin", split / "other"
    other.write_bytes(nmnist_bytes(some_events(99)))
    shutil.copystat(file, other)
    assert other.stat().st_size == file.stat().st_size
    other.replace(file)
    new = data.load("events", split, preparation).train.batch(np.array([2]))
    np.testing.assert_array_equal(new[:, 0], to_frames(some_events(99), 4, (34, 34)))
    assert (new != old).any()


def test_an_interrupted_conversion_goes_on(split, monkeypatch):
    read = []

    def stop_at_the_fifth(*arguments):
        read.append(arguments)
        if len(read) == 5:
            raise KeyboardInterrupt
        return read_events(*arguments)

    monkeypatch.setattr(module, "read_events", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        data.load("events", split, data.Preparation(timesteps=4))
    data.load("events", split, data.Preparation(timesteps=4))
    assert len(read) == 5 + 3  # four were kept: those of both classes that train


# --- CIFAR10-DVS


@pytest.fixture
def small_cifar(tmp_path, monkeypatch):
    """Ten recordings a class instead of 1,000, written in an order of their own."""
    monkeypatch.setattr(module, "TRAIN_RECORDINGS", 9)
    monkeypatch.setattr(module, "TEST_RECORDINGS", 2)
    root = tmp_path / "cifar"
    for label, name in enumerate(module.CIFAR10):
        for number in (10, 3, 0, 9, 1, 2, 4, 8, 5, 7, 6):
            (root / name).mkdir(parents=True, exist_ok=True)
            path = root / name / f"cifar10_{name}_{number}.aedat"
            path.write_bytes(aedat2_bytes(some_events(100 * label + number, count=200, most=128)))
    return root


def test_cifar10_dvs_has_the_published_split(small_cifar):
    loaded = data.load("dvs-cifar10", small_cifar, data.Preparation(timesteps=5, image_size=48, crop_padding=4))
    assert loaded.name == "dvs-cifar10" and loaded.features == (2, 48, 48) and loaded.classes[3] == "cat"
    assert np.bincount(loaded.train.labels).tolist() == [9] * 10
    assert np.bincount(loaded.test.labels).tolist() == [2] * 10
    for samples, place, name in (
        (loaded.train, 3 * 9 + 8, "cat/cifar10_cat_8.aedat"),
        (loaded.test, 2 * 2, "bird/cifar10_bird_9.aedat"),
        (loaded.test, 9 * 2 + 1, "truck/cifar10_truck_10.aedat"),
    ):
        expected = resize(to_frames(read_events(small_cifar / name), 5), 48)
        np.testing.assert_array_equal(samples.batch(np.array([place]))[:, 0], expected)


def test_cifar10_dvs_in_npz_without_a_size(small_cifar):
    path = small_cifar / "dog" / "cifar10_dog_4.aedat"
    events = read_events(path).events
    path.unlink()
    np.savez(path.with_suffix(".npz"), **{name: events[name] for name in "txyp"})
    loaded = data.load("dvs-cifar10", small_cifar, data.Preparation(timesteps=2))
    assert loaded.train.batch(np.array([5 * 9 + 4])).sum() == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "dog" / "cifar10_dog_3.aedat").unlink(),
            r"dog: 1 of 11 .* missing, the first cifar10_dog_3",
        ),
        (lambda root: (root / "dog").rename(root / "dogs"), "dog: expected a folder with the recordings of this class"),
        (
            lambda root: (root / "dog" / "x.aedat").touch(),
            r"x.aedat: expected one file of each name cifar10_dog_0 to 10",
        ),
        (lambda root: (root / "dog" / "cifar10_dog_11.aedat").touch(), "dog_11.aedat: expected one file"),
        (lambda root: (root / "dog" / "cifar10_dog_3.npz").touch(), r"dog_3.(npz|aedat): expected one file"),
        (
            lambda root: (root / "cifar10_dog_3.aedat").touch(),
            r"cifar10_dog_3.aedat: expected it in the folder",
        ),
    ],
)
def test_cifar10_dvs_must_be_whole(small_cifar, change, message):
    change(small_cifar)
    with pytest.raises(DataError, match=message):
        data.load("dvs-cifar10", small_cifar, data.Preparation(timesteps=2))


def test_cifar10_dvs_is_that_of_the_paper():
    assert (module.TRAIN_RECORDINGS, module.TEST_RECORDINGS, len(module.CIFAR10)) == (900, 100, 10)


# --- sizes and errors


def test_the_size_of_the_sensor_can_be_told(tmp_path):
    for number in range(4):
        folder = tmp_path / "set" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", some_events(number))
    with pytest.raises(DataError, match=r"0.npy: the size of the sensor .* in the file sensor_size.txt in its folder"):
        data.load("events", tmp_path / "set", data.Preparation(timesteps=2))
    for encoding in ("ascii", "utf-8-sig", "utf-16"):  # the last two begin with a byte order mark
        (tmp_path / "set" / "sensor_size.txt").write_text("40 36\n", encoding)
        loaded = data.load("events", tmp_path / "set", data.Preparation(timesteps=2))
        assert loaded.features == (2, 36, 40)
    (tmp_path / "set" / "sensor_size.txt").write_text("40x36\n")
    with pytest.raises(DataError, match=r"sensor_size.txt: expected two numbers"):
        data.load("events", tmp_path / "set", data.Preparation(timesteps=2))


def test_records_that_are_no_events_are_reported(tmp_path, capsys):
    write(tmp_path / "set" / "a", ["1.aedat", "2.aedat"], lambda e: aedat2_bytes(e) + bytes.fromhex("0000800000ffffff"))
    second_class(tmp_path / "set", aedat2_bytes)
    for _ in range(2):
        data.load("events", tmp_path / "set", data.Preparation(timesteps=2))
        assert "events: 2 records of the files are not events of pixels and were left out\n" in capsys.readouterr().out


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def back_in_time(path):
    events = some_events(0)[::-1]
    path.with_suffix(".aedat").write_bytes(aedat2_bytes(events))
    path.unlink()


def larger(path):
    path.with_suffix(".aedat").write_bytes(aedat2_bytes(some_events(0)))
    path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: cut(root / "test" / "cat" / "c.bin"), r"c.bin: byte 295: 4 bytes left, but an event has 5"),
        (
            lambda root: (root / "test" / "ant").rename(root / "bug"),
            "test differ in classes: only one has ant",
        ),
        (lambda root: (root / "test").rename(root / "vol"), r"'train' and 'val' \(or 'test'\), found only train"),
        (lambda root: (root / "train").rename(root / "Test"), "expected one folder 'test', found Test and test"),
        (lambda root: (root / "train" / "cat" / "more").mkdir(), "more: expected a recording, found a folder"),
        (lambda root: [(root / s / "dog").mkdir() for s in ("train", "test")], "dog: expected recordings, found none"),
        (lambda root: write(root / "train", ["1.bin"]), "train/1.bin: expected only folders of classes"),
        (lambda root: write(root / "test", ["x"]), "test/x: expected only folders of classes"),
        (lambda root: write(root, ["1.NPZ"]), "1.NPZ: expected it in the folder of a class"),
        (
            lambda root: [shutil.rmtree(root / s / "ant") for s in ("train", "test")],
            "train: expected two classes or more, found only 'cat'$",
        ),
        (lambda root: (root / "train" / "cat" / "notes.txt").write_text("hello"), "notes.txt: byte 0: expected AEDAT"),
        (
            lambda root: larger(root / "train" / "cat" / "a_2.bin"),
            "a_2.aedat: expected a sensor of 34x34 pixels as in a_1",
        ),
        (
            lambda root: larger(root / "test" / "cat" / "c.bin"),
            "expected one size of sensors, found train/ant of 34x34, ",
        ),
        (lambda root: back_in_time(root / "train" / "ant" / "b.bin"), "b.aedat: to_frames: time goes back at event 1"),
    ],
)
def test_what_is_wrong_is_named(split, change, message):
    change(split)
    with pytest.raises(DataError, match=message):
        data.load("events", split, data.Preparation(timesteps=3, frames_by="time"))


def test_arguments(tmp_path):
    for name in ("events", "dvs-cifar10"):
        with pytest.raises(ValueError, match="argument 'path': expected the folder of the recordings, got None"):
            data.load(name)
        with pytest.raises(DataError, match="none: expected a folder of recordings, found nothing"):
            data.load(name, tmp_path / "none")
    write(tmp_path / "one" / "a", ["1.bin"])
    second_class(tmp_path / "one")
    with pytest.raises(DataError, match="a: expected at least two recordings to split, found 1"):
        data.load("events", tmp_path / "one")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"timesteps": 0}, r"'timesteps': expected an integer in \[1, 2\*\*31\), got 0"),
        ({"image_size": -1}, r"'image_size': expected an integer in \[0, 2\*\*31\), got -1"),
        ({"roll": 1.5}, r"'roll': expected an integer in \[0, 2\*\*31\), got 1.5"),
        ({"frames_by": "count"}, "'frames_by': expected one of number, time, got 'count'"),
    ],
)
def test_preparations_that_are_impossible(wrong, message):
    with pytest.raises(ValueError, match=f"Preparation: argument {message}"):
        data.Preparation(**wrong)


def test_real_recordings_from_files_to_batches(shared, tmp_path):
    for number, (events, label) in enumerate(recordings(shared / "data" / "nmnist-1100.tar", "nmnist/test")):
        path = tmp_path / "set" / str(label) / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(nmnist_bytes(events))
    loaded = data.load("events", tmp_path / "set", data.Preparation(timesteps=10))
    labels = np.bincount(np.concatenate([loaded.train.labels, loaded.test.labels]))
    assert labels.tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    sums = [samples.batch(np.arange(len(samples))).sum(dtype=np.float64) for samples in (loaded.train, loaded.test)]
    assert sum(sums) == 385_596 and len(loaded.test) == 15  # a tenth of each class, rounded up
