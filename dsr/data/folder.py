"""Images in folders, one folder per class, as ImageNet is laid out; they are decoded when they are needed.

    PATH/train/CLASS/*.JPEG    PATH/val/CLASS/*.JPEG (or PATH/test)    PATH/classes.txt (optional)

The folders of the classes are sorted by name. ``classes.txt`` may give the classes names to be shown, a line each: the
name of the folder, a space or tab, the name. Images may lie deeper in the folder of their class.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dsr.data import layout
from dsr.data.augment import ImageTransform
from dsr.data.images import Decoder, need_pillow, open_image
from dsr.data.samples import DataSet, Draws, Labels, Numbers, Preparation, Samples
from dsr.data.workers import call_ahead
from dsr.files.errors import DataError
from dsr.ops import Values

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_folder(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """Labelled images in two folders, ``train`` and ``val`` (or ``test``, if there is no ``val``).

    Normalised with ImageNet's mean and standard deviation.

    Parameters
    ----------
    path : Path
        The folder that contains both.
    preparation : Preparation
        `image_size`, `random_resized_crop`, `crop_padding`, `crop_reflect`, `flip` and `workers` apply. The two crops
        exclude each other. Without `image_size` all images must have one size.

    Raises
    ------
    DataError
        Folders are missing or empty, differ in classes or have only one, or a file is not in a folder of a class or not
        an image. When a batch is decoded: a file is damaged, or of another size.
    ImportError
        Pillow is not installed.
    """
    preparation = preparation or Preparation()
    need_pillow("load_folder")
    if path is None:
        raise ValueError("load_folder: argument 'path': expected the folder that contains train and val, got None")
    if preparation.random_resized_crop and not preparation.image_size:
        raise ValueError("load_folder: random_resized_crop needs image_size, the side to which it resizes; got 0")
    if preparation.random_resized_crop and preparation.crop_padding:
        raise ValueError("load_folder: expected crop_padding 0 with random_resized_crop, got both")
    train, test = _splits(Path(path))
    folders, test_folders = ([entry.name for entry in layout.class_folders(split)] for split in (train, test))
    layout.check_classes(train, folders, (test, test_folders))
    files, labels = _files(train, folders)
    test_files, test_labels = _files(test, folders)
    height = width = preparation.image_size
    if not preparation.image_size:
        first = open_image(files[0])
        height, width = first.height, first.width
    decoder = Decoder(preparation.image_size, preparation.random_resized_crop, (height, width))
    transform = ImageTransform(MEAN, DEVIATION, preparation)
    return DataSet(
        Path(path).resolve().name,
        _names(Path(path), folders),
        (3, height, width),
        FolderSamples(files, labels, decoder, transform, preparation.workers),
        FolderSamples(test_files, test_labels, decoder, transform, preparation.workers),
    )


class FolderSamples(Samples):
    """Images that are decoded when a batch is asked for.

    Parameters
    ----------
    files : sequence of str
        One per sample.
    labels : ndarray of int64
        Classes.
    decoder : Decoder
        Decodes files to bytes.
    transform : ImageTransform
        Makes a batch from bytes.
    workers : int
        Processes that decode during `batches`; 0: decode in this process.
    """

    def __init__(
        self, files: Sequence[str], labels: Labels, decoder: Decoder, transform: ImageTransform, workers: int = 0
    ) -> None:
        self.files, self.labels, self.decoder, self.transform, self.workers = files, labels, decoder, transform, workers

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """Some images, decoded in this process."""
        return self.transform(self.decoder.batch(self._task(numbers, draws)), draws)

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """Batches, decoded ahead by worker processes, one batch each; the values do not depend on their number."""
        if self.workers == 0:
            yield from super().batches(plan)
            return
        kept: list[Draws | None] = []

        def tasks() -> Iterator[tuple[list[str], Draws | None]]:
            for numbers, draws in plan:
                kept.append(draws)
                yield self._task(numbers, draws)

        for images in call_ahead(self.decoder.batch, tasks(), self.workers):
            yield self.transform(images, kept.pop(0))

    def _task(self, numbers: Numbers, draws: Draws | None) -> tuple[list[str], Draws | None]:
        return [self.files[number] for number in numbers], draws


def _splits(path: Path) -> tuple[Path, Path]:
    if not path.is_dir():
        raise FileNotFoundError(f"load_folder: {path} is not a folder")
    found = layout.splits(path)
    if found is None:
        raise DataError(f"{path}: expected the folders 'train' and 'val' (or 'test') in it")
    layout.check_no_samples(path, SUFFIXES)
    return found


def _files(split: Path, folders: Sequence[str]) -> tuple[list[str], Labels]:
    """The files, by class and then by name, and their labels."""
    files: list[str] = []
    counts: list[int] = []
    for folder in folders:
        of_class = sorted(_images(str(split / folder)))
        if not of_class:
            raise DataError(f"{split / folder}: no images in it; expected files ending in {', '.join(SUFFIXES)}")
        files += of_class
        counts.append(len(of_class))
    return files, np.repeat(np.arange(len(folders)), counts)


def _images(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if layout.is_left_behind(entry.name) or suffix in layout.NOTES:
                continue
            if entry.is_dir():
                yield from _images(entry.path)
            elif suffix in SUFFIXES:
                yield entry.path
            else:
                raise DataError(f"{entry.path}: expected an image, a file ending in {', '.join(SUFFIXES)}")


def _names(path: Path, folders: Sequence[str]) -> tuple[str, ...]:
    """The names to be shown, from classes.txt where it exists."""
    file = path / "classes.txt"
    if not file.is_file():
        return tuple(folders)
    known, names = set(folders), dict[str, str]()
    for line in map(str.strip, layout.decoded(file.read_bytes(), file).splitlines()):
        # the name of a folder may have spaces, and begin with that of another folder
        ends = [len(line), *reversed([space.start() for space in re.finditer(r"\s", line)])]
        folder = next((line[:end] for end in ends if line[:end] in known), None)
        if folder is not None:
            name = line[len(folder) :].strip() or folder
            if names.setdefault(folder, name) != name:
                raise DataError(f"{file}: two names of the folder '{folder}': '{names[folder]}' and '{name}'")
    if unknown := [folder for folder in folders if folder not in names]:
        raise DataError(f"{file}: no line begins with {layout.some(unknown)}")
    return tuple(names[folder] for folder in folders)
