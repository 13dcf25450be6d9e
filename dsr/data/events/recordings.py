"""Data sets of event recordings: folders of files, converted to frames once.

The frames are kept in the cache (`dsr.files.cache`), one entry per class, so that only the frames of one class are in
memory while they are made, and an interrupted conversion continues where it was. Entries contain integers in the
smallest dtype that fits: event counts or, if frames are resized, counts times bilinear weights with their common
denominator (36 for 128x128 to 48x48). Batches are divided by it, so nothing is lost to rounding.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import layout
from dsr.data.events.array import LARGEST_SIDE
from dsr.data.events.augment import FrameTransform
from dsr.data.events.frames import resize_exactly, to_frames
from dsr.data.events.reading import read_events
from dsr.data.preprocessing import Preprocessing
from dsr.data.samples import DataSet, Draws, Numbers, Preparation, Samples
from dsr.files.cache import Arrays, cache_folder, cached, sources
from dsr.files.errors import DataError
from dsr.files.progress import progress
from dsr.ops import Values

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN_RECORDINGS, TEST_RECORDINGS = 900, 100
"""Recordings of each class of CIFAR10-DVS."""

SUFFIXES = (".aedat", ".aedat4", ".bin", ".dat", ".h5", ".hdf5", ".mat", ".npy", ".npz", ".raw")
"""Of recordings, in formats that can be read and in others. In the folder of a class, every file is a recording."""

VERSION = 1
"""Version of the content of a cache entry."""

Files = Sequence[Path]


class FrameSamples(Samples):
    """Recordings as frames, in parts that are memory maps.

    Parameters
    ----------
    parts : sequence of ndarray of unsigned int, shape (N, T, 2, H, W)
        Frames, one part per class.
    labels : sequence of int
        Class of each part.
    transform : FrameTransform
        Makes a batch from them.
    """

    def __init__(self, parts: Sequence[NDArray[Any]], labels: Sequence[int], transform: FrameTransform) -> None:
        counts = [len(part) for part in parts]
        self.parts, self.transform = parts, transform
        self.labels = np.repeat(np.asarray(labels, np.int64), counts)
        self._starts = np.array([0, *accumulate(counts)])

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """Frames of some recordings, augmented if there are draws: ``(T, B, 2, H, W)``."""
        wanted = np.arange(len(self.labels))[numbers]
        chosen = np.searchsorted(self._starts, wanted, side="right") - 1
        frames = np.empty((len(wanted), *self.parts[0].shape[1:]), np.result_type(*self.parts))
        for place, (part, number) in enumerate(zip(chosen, wanted, strict=True)):
            frames[place] = self.parts[part][number - self._starts[part]]
        return self.transform(frames, draws)


def load_dvs_cifar10(path: Path | None, preparation: Preparation) -> DataSet:
    """CIFAR10-DVS: 10,000 recordings of a DVS128, in a folder for each class.

    H. Li et al., "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", Frontiers in Neuroscience, 2017,
    https://doi.org/10.6084/m9.figshare.4724671. It has no official split; this is the one in the published code of DSR:
    recordings 0 to 899 of each class for training, and 900 to 999 for testing.

    Parameters
    ----------
    path : Path
        Contains the folders airplane to truck, each with all 1,000 files: cifar10_airplane_0.aedat and so on (or files
        of these names in another format).
    preparation : Preparation
        timesteps, frames_by, image_size, crop_padding, flip, roll and cutout apply.

    Raises
    ------
    DataError
        A folder or a recording is missing, or a file is damaged.
    """
    folder = _folder("load_dvs_cifar10", path)
    layout.check_no_samples(folder, SUFFIXES)
    expected = set(range(TRAIN_RECORDINGS + TEST_RECORDINGS))
    train, test = [], []
    for name in CIFAR10:
        if not (folder / name).is_dir():
            raise DataError(f"{folder / name}: expected a folder with the recordings of this class, found none")
        files = {}
        for file in _recordings(folder / name):
            match = re.fullmatch(rf"cifar10_{name}_([0-9]+)", file.stem)
            if match is None or int(match[1]) not in expected or int(match[1]) in files:
                raise DataError(f"{file}: expected one file of each name cifar10_{name}_0 to {max(expected)}")
            files[int(match[1])] = file
        if missing := expected - files.keys():
            raise DataError(
                f"{folder / name}: {len(missing)} of {len(expected)} recordings are missing, the first "
                f"cifar10_{name}_{min(missing)}; the data set 'events' reads any part of it, with another split"
            )
        ordered = [files[number] for number in sorted(files)]
        train.append(ordered[:TRAIN_RECORDINGS])
        test.append(ordered[TRAIN_RECORDINGS:])
    return _data_set("dvs-cifar10", folder, CIFAR10, train, test, preparation, (128, 128))


def load_events(path: Path | None, preparation: Preparation) -> DataSet:
    """Event recordings of any kind that `dsr.data.events.read_events` reads, in a folder for each class.

    Parameters
    ----------
    path : Path
        With folders ``train/CLASS`` and ``val/CLASS``, or ``test/CLASS`` where there is no ``val``, in upper or lower
        case, as in N-MNIST; or with folders ``CLASS``, of each of which the last tenth (rounded up) is for testing, in
        natural order: file_2 before file_10. Hidden files are ignored. A file ``sensor_size.txt`` in `path`, such as
        ``128 128`` (columns, rows), gives the size of the sensor if neither the files nor their format contain it.
    preparation : Preparation
        timesteps, frames_by, image_size, crop_padding, flip, roll and cutout apply.

    Raises
    ------
    DataError
        The folders are not like this or have only one class, a file is not in a folder of a class or is damaged, or
        recordings are of sensors of different sizes.
    """
    folder = _folder("load_events", path)
    size = _sensor_size(folder / "sensor_size.txt")
    if found := layout.splits(folder):
        layout.check_no_samples(folder, SUFFIXES)
        train, test = map(_classes, found)
        layout.check_classes(found[0], list(train), (found[1], list(test)))
        parts = [(_recordings(entry), _recordings(test[name])) for name, entry in train.items()]
    else:
        train, parts = _classes(folder), []
        layout.check_classes(folder, list(train))
        for entry in train.values():
            files = _recordings(entry)
            if len(files) < 2:
                raise DataError(f"{entry}: expected at least two recordings to split, found {len(files)}")
            last = len(files) - -(-len(files) // 10)
            parts.append((files[:last], files[last:]))
    return _data_set("events", folder, list(train), [a for a, _ in parts], [b for _, b in parts], preparation, size)


def _data_set(
    name: str,
    folder: Path,
    classes: Sequence[str],
    train: Sequence[Files],
    test: Sequence[Files],
    preparation: Preparation,
    sensor_size: tuple[int, int] | None,
) -> DataSet:
    """The data set of files by class, converted to frames if that has not been done before."""
    jobs = [("train", label, files) for label, files in enumerate(train)]
    jobs += [("test", label, files) for label, files in enumerate(test)]
    total, done = sum(len(files) for *_, files in jobs), 0
    place = f"{name}-{zlib.crc32(str(folder.absolute()).encode()):08x}"
    about = {"timesteps": preparation.timesteps, "by": preparation.frames_by, "image_size": preparation.image_size}
    kind = f"T{preparation.timesteps}-{preparation.frames_by}-{preparation.image_size}"

    def steps() -> Iterator[None]:
        # this starts at the first recording that is not in the cache; `done` then counts those that were
        print(f"{name}: making frames of {total - done} recordings, to be kept in {cache_folder()}")
        yield from progress(repeat(None), f"{name} to frames", total, done, unit="recording")

    parts: dict[str, list[NDArray[Any]]] = {"train": [], "test": []}
    sizes: dict[tuple[int, ...], str] = {}
    divisor, skipped, step = 1, 0, steps()
    for split, label, files in jobs:
        key = {"sources": sources(files), **about, "sensor_size": sensor_size, "version": VERSION}
        convert = partial(_convert, files, preparation, sensor_size, step)
        arrays = cached(cache_folder(), f"{place}-{kind}-{split}-{label}", key, convert)
        parts[split].append(arrays["frames"])
        sizes.setdefault(tuple(arrays["sensor_size"].tolist()), f"{split}/{classes[label]}")
        divisor, skipped, done = int(arrays["divisor"]), skipped + int(arrays["skipped"]), done + len(files)
    if len(sizes) > 1:
        found = ", ".join(f"{where} of {size[0]}x{size[1]}" for size, where in sizes.items())
        raise DataError(f"{folder}: expected one size of sensors, found {found}")
    if skipped:
        print(f"{name}: {skipped} records of the files are not events of pixels and were left out")
    training = FrameTransform(divisor, preparation.crop_padding, preparation.flip, preparation.roll, preparation.cutout)
    return DataSet(
        name,
        tuple(classes),
        parts["train"][0].shape[2:],
        FrameSamples(parts["train"], range(len(train)), training),
        FrameSamples(parts["test"], range(len(test)), FrameTransform(divisor)),
        Preprocessing(
            "recordings",
            parts["train"][0].shape[2:],
            image_size=preparation.image_size,
            timesteps=preparation.timesteps,
            frames_by=preparation.frames_by,
            sensor_size=sensor_size or (),
        ),
    )


def _convert(
    files: Files, preparation: Preparation, sensor_size: tuple[int, int] | None, steps: Iterator[None]
) -> Arrays:
    """Frames of recordings as integers, the number by which to divide them, sensor size and skipped records."""
    stored: NDArray[Any] = np.empty(0)
    size, divisor, skipped = (0, 0, 2), 1, 0
    for number, file in enumerate(files):
        next(steps)
        recording = read_events(file, sensor_size)
        skipped += recording.skipped
        try:
            frames: NDArray[Any] = to_frames(recording, preparation.timesteps, by=preparation.frames_by)
        except ValueError as error:  # times go back
            raise DataError(f"{file}: {error}") from error
        if preparation.image_size:
            frames, divisor = resize_exactly(frames, preparation.image_size)
        if number == 0:
            stored, size = np.empty((len(files), *frames.shape), np.uint8), recording.sensor_size
        if recording.sensor_size != size:
            raise DataError(
                f"{file}: expected a sensor of {size[0]}x{size[1]} pixels as in {files[0].name}, got "
                f"{recording.sensor_size[0]}x{recording.sensor_size[1]}"
            )
        if frames.max() > np.iinfo(stored.dtype).max:
            stored = stored.astype(np.min_scalar_type(int(frames.max())))
        stored[number] = frames
    about = {"sensor_size": size, "divisor": divisor, "skipped": skipped}
    return {"frames": stored, **{name: np.array(value) for name, value in about.items()}}


def _folder(function: str, path: Path | None) -> Path:
    if path is None:
        raise ValueError(f"{function}: argument 'path': expected the folder of the recordings, got None")
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder of recordings, found {'a file' if path.exists() else 'nothing'}")
    return path


def _classes(folder: Path) -> dict[str, Path]:
    """The folders of the classes by name, in natural order."""
    return {entry.name: entry for entry in sorted(layout.class_folders(folder), key=_natural)}


def _recordings(folder: Path) -> list[Path]:
    """The files in a folder, in natural order, without hidden ones; a DataError if there are none."""
    files = sorted((entry for entry in folder.iterdir() if not layout.is_left_behind(entry.name)), key=_natural)
    for entry in files:
        if entry.is_dir():
            raise DataError(f"{entry}: expected a recording, found a folder")
    if not files:
        raise DataError(f"{folder}: expected recordings, found none")
    return files


def _natural(path: Path) -> tuple[list[str | int], str]:
    """A key that sorts file_2 before file_10."""
    parts = re.split("([0-9]+)", path.name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], path.name


def _sensor_size(path: Path) -> tuple[int, int] | None:
    """What sensor_size.txt says; None without it."""
    if not path.exists():
        return None
    words = layout.decoded(path.read_bytes(), path).split()
    if len(words) != 2 or not all(re.fullmatch("[0-9]{1,4}", word) and 0 < int(word) <= LARGEST_SIDE for word in words):
        raise DataError(
            f"{path}: expected two numbers of 1 to {LARGEST_SIDE}, columns and rows of the sensor, such as '128 128'"
        )
    return int(words[0]), int(words[1])
