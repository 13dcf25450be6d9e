"""Pictures as ImageNet's archives, Kaggle's download and WebDataset shards have them, read in place.

    PATH/ILSVRC2012_img_train.tar    PATH/ILSVRC2012_img_val.tar    with the development kit, or LOC_val_solution.csv
    PATH/train/CLASS/*.JPEG          PATH/val/*.JPEG                with LOC_val_solution.csv
    PATH/ILSVRC/Data/CLS-LOC/...     the same, as Kaggle's archive is unpacked, the list in PATH
    PATH/train/*.tar  PATH/val/*.tar (or PATH/NAME-train-0000.tar, PATH/NAME-val-0000.tar): shards with KEY.jpg, KEY.cls
    PATH.tar                         an archive of train/CLASS/* and val/CLASS/*

The development kit (``ILSVRC2012_devkit_t12.tar.gz``, or its folder) has the classes of the validation pictures as
numbers, whose meaning is in ``meta.mat``; that is a file of MATLAB, which scipy reads. Without scipy, a list
``map_clsloc.txt`` of later kits (a line each: n02119789 1 kit_fox) does, or ``LOC_val_solution.csv``.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dsr.data import layout
from dsr.data.preprocessing import PICTURES
from dsr.data.samples import Labels
from dsr.data.tars import CLASS, NO_NUMBER, Index, Member, Members, index_of
from dsr.files.errors import DataError, reason

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SOLUTION, TRUTH = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"
NAMES = ("LOC_synset_mapping.txt", "words.txt")
_KIT, _META, _MAP = "ILSVRC2012_devkit_t12.tar.gz", "meta.mat", "map_clsloc.txt"
_KAGGLE = Path("ILSVRC", "Data", "CLS-LOC")


@dataclass(frozen=True)
class Part:
    """The pictures of a split, and their labels."""

    files: Sequence[str | Member]
    labels: Labels


@dataclass(frozen=True)
class Found:
    """What lies at a path: classes, by the names of their folders or numbers, and the two splits.

    `names` is a member ``classes.txt`` of an archive, with names of the classes for people.
    """

    classes: Sequence[str]
    train: Part
    test: Part
    names: Member | None = None


def find(path: Path) -> Found | None:
    """What lies at a path, if it is one of the layouts above; None: it is none of them.

    Raises
    ------
    DataError
        An archive is damaged, something is missing or unknown, or classes differ; the message names file and member.
    OSError
        A file cannot be read.
    """
    if path.is_file():
        if path.suffix.lower() != ".tar":
            raise DataError(f"{path}: expected a folder or a .tar archive with pictures")
        return _tar_of_folders(path)
    if (path / TRAIN).is_file():
        return _official(path)
    place = path / _KAGGLE if (path / _KAGGLE).is_dir() else path
    if (path / SOLUTION).is_file() and (place / "train").is_dir():
        return _kaggle(path, place)
    return _web_dataset(path)


def _official(path: Path) -> Found:
    index = index_of(path / TRAIN)
    by_class: dict[str, list[tuple[int, int]]] = {}
    for number, name in enumerate(index.names):
        folder, slash, _ = name.partition(".tar/")
        if not slash:
            raise DataError(f"{index.path}: {name}: expected only archives of classes, such as n01440764.tar")
        _require_picture(index, name)
        by_class.setdefault(folder, []).append((0, number))
    classes = sorted(by_class)
    train = _part([index], {name: by_class[name] for name in classes})
    if not (path / VAL).is_file():
        raise DataError(f"{path}: expected {VAL} beside {TRAIN}, found none")
    val = index_of(path / VAL)
    for name in val.names:
        _require_picture(val, name)
    labels = _labels(path, [PurePosixPath(name).stem for name in val.names], val.path, classes)
    return Found(classes, train, Part(Members([val], [(0, number) for number in range(len(labels))]), labels))


def _kaggle(path: Path, place: Path) -> Found | None:
    val = place / "val"
    if not val.is_dir():
        raise DataError(f"{place}: expected a folder 'val' with the pictures that {path / SOLUTION} lists, found none")
    if layout.folders(val):
        return None  # sorted into folders of classes already
    files = []
    for entry in sorted(val.iterdir()):
        if entry.suffix.lower() in PICTURES:
            files.append(entry)
        elif not layout.is_left_behind(entry.name) and entry.suffix.lower() not in layout.NOTES:
            raise DataError(f"{entry}: expected a picture, a file ending in {', '.join(PICTURES)}")
    from dsr.data.folder import files_of_classes

    classes = [entry.name for entry in layout.class_folders(place / "train")]
    train, train_labels = files_of_classes(place / "train", classes)
    labels = _labels(path, [file.stem for file in files], str(place / "val"), classes)
    return Found(classes, Part(train, train_labels), Part([str(file) for file in files], labels))


def _tar_of_folders(path: Path) -> Found:
    index = index_of(path)
    splits: dict[str, dict[str, list[tuple[int, int]]]] = {}
    names = None
    for number, name in enumerate(index.names):
        parts = PurePosixPath(name).parts
        place = next((i for i, part in enumerate(parts[:2]) if part.lower() in ("train", "val", "test")), None)
        if PurePosixPath(name).suffix.lower() in layout.NOTES:
            if parts[-1] == "classes.txt" and len(parts) <= 2:
                names = Members([index], [(0, number)])[0]
            continue
        _require_picture(index, name)
        if place is None or len(parts) < place + 3:
            raise DataError(f"{path}: {name}: expected pictures as train/CLASS/NAME and val/CLASS/NAME")
        splits.setdefault(parts[place].lower(), {}).setdefault(parts[place + 1], []).append((0, number))
    test = "val" if "val" in splits else "test"
    if "train" not in splits or test not in splits:
        raise DataError(f"{path}: expected 'train' and 'val' (or 'test') in it, found {layout.some(sorted(splits))}")
    classes = sorted(splits["train"])
    layout.check_classes(path / "train", classes, (path / test, sorted(splits[test])))
    train, held_out = (_part([index], {name: splits[part][name] for name in classes}) for part in ("train", test))
    return Found(classes, train, held_out, names)


def _web_dataset(path: Path) -> Found | None:
    shards: dict[str, list[Path]] = {"train": [], "val": []}
    inner = {entry.name.lower(): entry for entry in layout.folders(path)}
    for split, words in (("train", ("train",)), ("val", ("val", "validation", "test"))):
        shards[split] = sorted(shard for word in words if word in inner for shard in inner[word].glob("*.tar"))
        beside = sorted(path.glob("*.tar")) if not inner else []
        shards[split] += [shard for shard in beside if any(word in shard.name.lower() for word in words)]
    if not any(shards.values()) or any(layout.folders(inner[name]) for name in inner if name in ("train", "val")):
        return None
    for split, found in shards.items():
        if not found:
            raise DataError(f"{path}: expected shards (.tar) to train and to validate, found none of {split}")
    train, val = (_shards(found) for found in shards.values())
    count = int(train.labels.max()) + 1
    if unknown := sorted(set(val.labels.tolist()) - set(train.labels.tolist())):
        raise DataError(f"{path}: the shards to validate have classes that those to train have not: {unknown[:5]}")
    return Found([str(number) for number in range(count)], train, val)


def _shards(paths: Sequence[Path]) -> Part:
    indices, chosen, labels, keys = [index_of(path) for path in paths], [], list[int](), dict[str, str]()
    for which, index in enumerate(indices):
        pictures, numbers = dict[str, int](), dict[str, int]()
        for place, name in enumerate(index.names):
            key, dot, ending = name.rpartition("/")[2].partition(".")
            key = name[: len(name) - len(dot) - len(ending)]
            if f".{ending.lower()}" in PICTURES:
                if pictures.setdefault(key, place) != place:
                    raise DataError(f"{index.path}: {name}: a second picture of the name {key}")
                if keys.setdefault(key, index.path) != index.path:
                    raise DataError(f"{index.path}: {name}: a picture of this name is in {keys[key]} as well")
            elif index.numbers[place] != NO_NUMBER:
                if index.numbers[place] < 0:
                    raise DataError(f"{index.path}: {name}: expected a class number >= 0 as text")
                numbers[key] = int(index.numbers[place])
        for one, other, words in (
            (pictures, numbers, f"a class, {{}}{CLASS}"),
            (numbers, pictures, "a picture, {}.jpg"),
        ):
            if missing := [key for key in one if key not in other]:
                raise DataError(f"{index.path}: {missing[0]}: expected {words.format(missing[0])}, found none")
        chosen += [(which, place) for place in pictures.values()]
        labels += [numbers[key] for key in pictures]
    return Part(Members(indices, chosen), np.array(labels, np.int64))


def _part(indices: Sequence[Index], by_class: Mapping[str, list[tuple[int, int]]]) -> Part:
    chosen = [place for places in by_class.values() for place in places]
    return Part(Members(indices, chosen), np.repeat(np.arange(len(by_class)), [len(p) for p in by_class.values()]))


def _require_picture(index: Index, name: str) -> None:
    if PurePosixPath(name).suffix.lower() not in PICTURES:
        raise DataError(f"{index.path}: {name}: expected a picture, a member ending in {', '.join(PICTURES)}")


# ------------------------------------------------------------------------------------ classes of validation pictures


def _labels(path: Path, stems: Sequence[str], shown: str, classes: Sequence[str]) -> Labels:
    """The classes of validation pictures, by the list that lies beside them."""
    source = str(path / SOLUTION)
    if (path / SOLUTION).is_file():
        listed = _solution(path / SOLUTION)
    else:
        source, listed = _ground_truth(path)
    numbers = {name: number for number, name in enumerate(classes)}
    found = set(stems)
    if missing := sorted(found - listed.keys()):
        raise DataError(f"{source}: no line for {layout.some(missing)}, which {shown} has")
    if missing := sorted(listed.keys() - found):
        raise DataError(f"{shown}: no picture {layout.some(missing)}, which {source} lists")
    if unknown := next((stem for stem in stems if listed[stem] not in numbers), None):
        raise DataError(f"{source}: {unknown}: the class {listed[unknown]} is not among those to train")
    return np.array([numbers[listed[stem]] for stem in stems], np.int64)


def _solution(file: Path) -> dict[str, str]:
    listed: dict[str, str] = {}
    rows = csv.reader(io.StringIO(layout.decoded(file.read_bytes(), file)))
    for line, row in enumerate(rows, 1):
        if (line == 1 and row and row[0] == "ImageId") or not row:
            continue
        words = row[1].split() if len(row) == 2 else []
        if not words:
            raise DataError(f"{file}: line {line}: expected the name of a picture, a comma, and its class")
        if listed.setdefault(row[0], words[0]) != words[0]:
            raise DataError(f"{file}: line {line}: a second class of {row[0]}")
    return listed


def _ground_truth(path: Path) -> tuple[str, dict[str, str]]:
    kit = _Kit(path)
    shown, content = kit.read(TRUTH)
    if content is None:
        raise DataError(f"{path}: expected the classes of the validation pictures: {SOLUTION}, {_KIT} or {TRUTH}")
    numbers = layout.decoded(content, shown).split()
    synsets = kit.synsets(shown)
    listed = {}
    for line, number in enumerate(numbers, 1):
        if number not in synsets:
            raise DataError(f"{shown}: line {line}: expected the number of a class, got {number!r}")
        listed[f"ILSVRC2012_val_{line:08d}"] = synsets[number]
    return shown, listed


class _Kit:
    """The development kit: its archive, its folder, or single files of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.members = path, dict[str, bytes]()
        if (path / _KIT).is_file():
            try:
                with tarfile.open(path / _KIT) as archive:
                    for member in archive:
                        name = PurePosixPath(member.name).name
                        if name in (TRUTH, _META, _MAP) and (file := archive.extractfile(member)):
                            self.members[name] = file.read()
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f"{path / _KIT}: damaged or cut short ({reason(error)})") from None

    def read(self, name: str) -> tuple[str, bytes | None]:
        """What messages call a file, and its content; None: there is none."""
        for file in (self.path / name, *sorted(self.path.glob(f"*devkit*/data/{name}"))):
            if file.is_file():
                return str(file), file.read_bytes()
        return f"{self.path / _KIT}: {name}", self.members.get(name)

    def synsets(self, needed_for: str) -> dict[str, str]:
        """The name of each class by its number, as text."""
        shown, content = self.read(_MAP)
        if content is not None:
            rows = [line.split() for line in layout.decoded(content, shown).splitlines() if line.strip()]
            if any(len(row) < 2 for row in rows):
                raise DataError(f"{shown}: expected the name of a class and its number in each line")
            return {row[1]: row[0] for row in rows}
        shown, content = self.read(_META)
        if content is None:
            raise DataError(f"{needed_for}: what its numbers mean is in {_META} or {_MAP}, which are missing")
        if find_spec("scipy") is None:
            raise DataError(
                f"{shown}: a file of MATLAB, which needs scipy: pip install scipy, or put {_MAP} (a line each: "
                f"n02119789 1 kit_fox) or {SOLUTION} into {self.path}"
            )
        load: Any = import_module("scipy.io").loadmat
        try:
            rows = load(io.BytesIO(content), squeeze_me=True)["synsets"]
            return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in rows}
        except Exception as error:  # scipy raises nearly every kind on damaged files
            raise DataError(f"{shown}: expected the table 'synsets' of ImageNet ({reason(error)})") from None


def readable(path: Path, classes: Sequence[str]) -> tuple[str, ...] | None:
    """Names for people from a list of ImageNet's classes, such as "n01440764 tench, Tinca tinca": the first of each.

    A name that several classes have is followed by that of the class. None: there is no such list, or it has not all.
    """
    file = next((path / name for name in NAMES if (path / name).is_file()), None)
    if file is None:
        return None
    known: dict[str, str] = {}
    for line in layout.decoded(file.read_bytes(), file).splitlines():
        name, _, words = line.strip().replace("\t", " ").partition(" ")
        known[name] = words.partition(",")[0].strip() or name
    if not set(classes) <= known.keys():
        return None
    shared = _several(known[name] for name in classes)
    return tuple(f"{known[name]} ({name})" if known[name] in shared else known[name] for name in classes)


def _several(names: Iterable[str]) -> set[str]:
    seen, twice = set[str](), set[str]()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice
