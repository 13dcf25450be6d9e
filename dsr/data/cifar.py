"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels in 10 or 100 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. Read from the official files: the binary version or the Python version
(pickles, of which nothing is executed: `dsr.files.pickles`), unpacked or still in the ``.tar.gz``.

The files must be complete: every batch with exactly the official number of images. A set that is cut short between two
records would train without a message and give other figures than those it is compared with, so it is an error.

Images are normalised with the constants of the DSR authors' code, after random crops from an image with a black border.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.augment import ImageTransform
from dsr.data.layout import decoded
from dsr.data.preprocessing import Preprocessing
from dsr.data.samples import ArraySamples, DataSet, Preparation
from dsr.files.download import download
from dsr.files.errors import DataError
from dsr.files.pickles import read_dict
from dsr.ops.arguments import shown as shown_value

PIXELS = 3 * 32 * 32
LARGEST = 200_000_000
"""Bytes of a file; the largest official one has 156 million."""
URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class _Format:
    """One of the two forms that the files come in."""

    folder: str
    archive: str
    checksum: str
    suffix: str
    """Of the files of images."""
    names: str
    """File of the names of the classes."""


@dataclass(frozen=True)
class _Kind:
    """What differs between the two data sets.

    Attributes
    ----------
    batches : dict
        By file of images (without suffix): split, number of its first image in the split, number of its images.
    labels : dict
        Number of classes by label, in the order of the bytes before the pixels, named as in the pickles. The last label
        is the one that is learnt.
    names : str
        Key of the names of the classes in the pickle of names.
    """

    name: str
    binary: _Format
    python: _Format
    batches: dict[str, tuple[str, int, int]]
    labels: dict[str, int]
    names: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


_CIFAR10 = _Kind(
    name="cifar10",
    binary=_Format(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
        suffix=".bin",
        names="batches.meta.txt",
    ),
    python=_Format(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        checksum="md5:c58f30108f718f92721af3b95e74349a",
        suffix="",
        names="batches.meta",
    ),
    batches={f"data_batch_{number + 1}": ("train", 10_000 * number, 10_000) for number in range(5)}
    | {"test_batch": ("test", 0, 10_000)},
    labels={"labels": 10},
    names="label_names",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    mean=(0.4914, 0.4822, 0.4465),
    deviation=(0.2023, 0.1994, 0.2010),
)

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

_CIFAR100 = _Kind(
    name="cifar100",
    binary=_Format(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        checksum="md5:03b5dce01913d631647c71ecec9e9cb8",
        suffix=".bin",
        names="fine_label_names.txt",
    ),
    python=_Format(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        checksum="md5:eb9058c3a382ffc7106e4002c42a8d85",
        suffix="",
        names="meta",
    ),
    batches={"train": ("train", 0, 50_000), "test": ("test", 0, 10_000)},
    labels={"coarse_labels": 20, "fine_labels": 100},
    names="fine_label_names",
    classes=tuple(_FINE.split()),
    mean=(0.5071, 0.4867, 0.4408),
    deviation=(0.2675, 0.2565, 0.2761),
)

_KINDS = {kind.name: kind for kind in (_CIFAR10, _CIFAR100)}


def load_cifar10(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """CIFAR-10 in memory, as bytes in ``train.arrays`` and ``test.arrays``, ``(N, 3, 32, 32)``.

    Parameters
    ----------
    path : Path
        The folder of the official files, a folder that holds it or the official archive, or the archive itself.
    preparation : Preparation
        `crop_padding`, `crop_reflect` and `flip` apply.

    Raises
    ------
    DataError
        A file is missing, cut short, damaged or not of CIFAR-10.
    OSError
        A file cannot be read.
    """
    return _load(_CIFAR10, path, preparation or Preparation())


def load_cifar100(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """CIFAR-100 with its 100 fine classes; otherwise like `load_cifar10`."""
    return _load(_CIFAR100, path, preparation or Preparation())


def download_cifar(name: str, folder: str | Path, say: Callable[[str], object] = print) -> Path:
    """Download the official archive of the binary version, about 170 MB, from its author's site.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
        Which data set.
    folder : path
        Where to save it; the folder is made if it does not exist.
    say : callable
        Called with lines of progress.

    Returns
    -------
    Path
        The archive, with its checksum checked; the loaders read it without unpacking.
    """
    if name not in _KINDS:
        raise ValueError(f"download_cifar: argument 'name': expected one of {', '.join(_KINDS)}, got {name!r}")
    form = _KINDS[name].binary
    return download(URL + form.archive, Path(folder) / form.archive, form.checksum, say=say)


def _load(kind: _Kind, path: Path | None, preparation: Preparation) -> DataSet:
    if path is None:
        raise ValueError(
            f"load_{kind.name}: argument 'path': expected where the official files of {kind.name} are "
            f"({URL}{kind.binary.archive}, or what is in it), got none"
        )
    counts = {split: sum(count for of, _, count in kind.batches.values() if of == split) for split in ("train", "test")}
    images = {split: np.empty((count, 3, 32, 32), np.uint8) for split, count in counts.items()}
    labels = {split: np.empty(count, np.int64) for split, count in counts.items()}
    missing, classes = set(kind.batches), kind.classes
    place = _find(kind, Path(path))
    for form, file, shown, content in _files(kind, place):
        if file == form.names:
            classes = _names(kind, form, content, shown)
            continue
        batch = file.removesuffix(form.suffix)
        if batch not in missing:
            raise DataError(f"{shown}: found {batch} of {kind.name} twice")
        missing.remove(batch)
        split, first, count = kind.batches[batch]
        part = slice(first, first + count)
        read = _binary if form is kind.binary else _pickled
        images[split][part], labels[split][part] = read(kind, content, shown, count)
    if missing:
        raise DataError(f"{place}: files of {kind.name} are missing: {', '.join(sorted(missing))}")
    transform = ImageTransform(kind.mean, kind.deviation, preparation)
    train, test = (ArraySamples(images[split], labels[split], transform) for split in ("train", "test"))
    preprocessing = Preprocessing("images", (3, 32, 32), kind.mean, kind.deviation)
    return DataSet(kind.name, classes, (3, 32, 32), train, test, preprocessing)


def _find(kind: _Kind, path: Path) -> Path:
    """The folder with files of images, or the archive, that is at a path or right below it."""
    if not path.exists():
        raise FileNotFoundError(f"load_{kind.name}: {path} does not exist")
    if path.is_file():
        return path
    for form in (kind.binary, kind.python):
        for folder in (path, path / form.folder):
            if any((folder / (batch + form.suffix)).is_file() for batch in kind.batches):
                return folder
        if (path / form.archive).is_file():
            return path / form.archive
    raise DataError(
        f"{path}: {kind.name} not found there: expected {kind.binary.folder} or {kind.python.folder}, the files of one "
        f"of these folders, or {kind.binary.archive} or {kind.python.archive}"
    )


def _files(kind: _Kind, place: Path) -> Iterator[tuple[_Format, str, str, bytes]]:
    """For each file that is needed: the form, its plain name, its name for messages, its content."""
    names = {
        form: [batch + form.suffix for batch in kind.batches] + [form.names] for form in (kind.binary, kind.python)
    }
    forms = {name: form for form in names for name in names[form]}
    if place.is_file():
        for name, shown, content in _members(place, set(forms)):
            yield forms[name], name, shown, content
        return
    binary = any((place / name).is_file() for name in names[kind.binary][:-1])
    for name in names[kind.binary if binary else kind.python]:
        file = place / name
        if file.is_file():
            _check_size(file.stat().st_size, str(file))
            yield forms[name], name, str(file), file.read_bytes()


def _members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, str, bytes]]:
    """Name, name for messages and content of some files of an archive, read to its end to check its checksum."""
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name, shown = PurePosixPath(member.name).name, f"{archive}: {member.name}"
                    if name in wanted and member.isreg():
                        _check_size(member.size, shown)
                        file = tar.extractfile(member)
                        yield name, shown, file.read() if file is not None else b""
            while stream.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{archive}: not a complete .tar.gz archive ({error})") from None


def _check_size(size: int, shown: str) -> None:
    if size > LARGEST:
        raise DataError(f"{shown}: expected no more than {LARGEST:,} bytes, got {size:,}")


def _binary(kind: _Kind, content: bytes, shown: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and labels of a file of records: one byte per label, then the planes of red, green and blue."""
    size = len(kind.labels) + PIXELS
    if len(content) != count * size:
        whole, rest = divmod(len(content), size)
        where = f"; record {whole} is cut short, it starts at byte {whole * size:,}" if rest else ""
        raise DataError(
            f"{shown}: expected {count * size:,} bytes, {count:,} records of {size:,}, got {len(content):,}{where}"
        )
    records = np.frombuffer(content, np.uint8).reshape(count, size)
    for column, (label, classes) in enumerate(kind.labels.items()):
        wrong = np.flatnonzero(records[:, column] >= classes)
        if len(wrong):
            raise DataError(
                f"{shown}: byte {wrong[0] * size + column:,}, record {wrong[0]:,}: {label.removesuffix('s')} "
                f"{records[wrong[0], column]}, expected 0 to {classes - 1}"
            )
    return records[:, len(kind.labels) :].reshape(count, 3, 32, 32), records[:, len(kind.labels) - 1]


def _pickled(kind: _Kind, content: bytes, shown: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of a file of the Python version."""
    batch = read_dict(content, shown)
    images, (label, classes) = batch.get("data"), list(kind.labels.items())[-1]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (count, PIXELS):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{shown}: 'data': expected uint8 ({count}, {PIXELS}), got {found}")
    labels = batch.get(label)
    if not isinstance(labels, list) or len(labels) != count:
        found = f"{len(labels)}" if isinstance(labels, list) else type(labels).__name__
        raise DataError(f"{shown}: '{label}': expected a list of {count:,} numbers, got {found}")
    for number, value in enumerate(labels):
        if type(value) is not int or not 0 <= value < classes:
            found = shown_value(value)
            raise DataError(f"{shown}: '{label}': entry {number:,}: expected 0 to {classes - 1}, got {found}")
    return images.reshape(count, 3, 32, 32), np.array(labels, np.int64)


def _names(kind: _Kind, form: _Format, content: bytes, shown: str) -> tuple[str, ...]:
    """The names of the classes in a file."""
    entries: Any = decoded(content, shown).split() if form is kind.binary else read_dict(content, shown).get(kind.names)
    if not isinstance(entries, list) or not all(isinstance(entry, bytes | str) for entry in entries):
        raise DataError(f"{shown}: '{kind.names}': expected a list of names")
    names = [entry.decode("latin-1") if isinstance(entry, bytes) else entry for entry in entries]
    if len(names) != len(kind.classes):
        raise DataError(f"{shown}: expected the names of {len(kind.classes)} classes, got {len(names)}")
    return tuple(names)
