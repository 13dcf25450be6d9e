"""Images in folders, one folder per class, as ImageNet is laid out; they are decoded when they are needed.

    PATH/train/CLASS/*.JPEG    PATH/val/CLASS/*.JPEG (or PATH/test)    PATH/classes.txt (optional)
    PATH/CLASS/*.JPEG          without a split: a share of each class is drawn for the test, always the same

Or archives that are read in place, see `dsr.data.imagenet`. The folders of the classes are sorted by name.
``classes.txt`` may give the classes names to be shown, a line each: the name of the folder, a space or tab, the name;
without it, ``LOC_synset_mapping.txt`` or ``words.txt`` of ImageNet does. Images may lie deeper in the folder of their
class.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsr.data import imagenet, layout
from dsr.data.augment import Bytes, ImageTransform
from dsr.data.colours import Colours
from dsr.data.images import Decoder, Reader, need_pillow, open_image
from dsr.data.kept import Kept, keep
from dsr.data.preprocessing import PICTURES, Preprocessing
from dsr.data.samples import DataSet, Draws, Labels, Numbers, Preparation, Samples
from dsr.data.split import split
from dsr.data.tars import Member, content
from dsr.data.workers import call_ahead
from dsr.files.errors import DataError
from dsr.ops import Values

SUFFIXES = PICTURES

MEASURED = 1000
"""Training images of which mean and deviation are taken, where they are to be those of the data."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_folder(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """Labelled images in two folders, ``train`` and ``val`` (or ``test``, if there is no ``val``), or without a split.

    Normalised with ImageNet's mean and standard deviation, unless the preparation says otherwise.

    Parameters
    ----------
    path : Path
        The folder that contains both.
    preparation : Preparation
        `image_size`, `same_size`, `random_resized_crop`, `crop_area`, `crop_padding`, `crop_reflect`, `flip`, `cutout`,
        `random_erasing`, `colour_jitter`, `hue_jitter`, `trivial_augment`, `rand_augment`, `rand_magnitude`,
        `jpeg_draft`, `cache` and `workers` apply. The two crops exclude each other, and so do TrivialAugment and
        RandAugment. Without `image_size` all images must have one size. `mean` and `deviation` are of red, green and
        blue in [0, 1]; with ``normalisation = "data"`` they are those of `MEASURED` training images (or all, if there
        are fewer).
        `test_share` and `split_seed` decide the split where there is none.

    Raises
    ------
    ValueError
        Two options exclude each other, or there is too little room for what `cache` is to keep.
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
    place = Path(path)
    found = imagenet.find(_existing(place)) or _class_folders(place, preparation)
    files = found.train.files
    height = width = preparation.image_size
    if not preparation.image_size:
        first = open_image(files[0])
        height, width = first.height, first.width
    if preparation.trivial_augment and preparation.rand_augment:
        raise ValueError("load_folder: expected rand_augment 0 with trivial_augment, got both")
    colours = Colours(
        preparation.colour_jitter,
        preparation.hue_jitter,
        preparation.trivial_augment,
        preparation.rand_augment,
        preparation.rand_magnitude,
    )
    decoder = Decoder(
        preparation.image_size,
        preparation.random_resized_crop,
        (height, width),
        colours,
        preparation.same_size,
        crop_area=preparation.crop_area,
        draft_for=preparation.image_size if preparation.jpeg_draft else 0,
    )
    mean, deviation = _normalisation(files, decoder, preparation)
    transform = ImageTransform(mean, deviation, preparation)
    name, skip = place.resolve().name, preparation.on_error == "skip"

    def samples(part: imagenet.Part, training: bool) -> FolderSamples:
        kept = None
        if preparation.cache != "none":
            title = f"{name} {'train' if training else 'test'}"
            kept = keep(
                part.files,
                decoder,
                preparation.cache,
                training=training,
                name=title,
                workers=preparation.workers,
                skip=skip,
            )
        return FolderSamples(part.files, part.labels, decoder, transform, preparation.workers, skip, kept)

    return DataSet(
        name,
        _names(place, found),
        (3, height, width),
        samples(found.train, training=True),
        samples(found.test, training=False),
        Preprocessing(
            "images",
            (3, height, width),
            mean,
            deviation,
            image_size=preparation.image_size,
            random_resized_crop=preparation.random_resized_crop,
            same_size=preparation.same_size,
            jpeg_draft=decoder.draft_for > 0,
        ),
    )


class FolderSamples(Samples):
    """Images that are decoded when a batch is asked for.

    Parameters
    ----------
    files : sequence of str or Member
        One per sample: a path, or where it lies in an archive.
    labels : ndarray of int64
        Classes.
    decoder : Decoder
        Decodes files to bytes.
    transform : ImageTransform
        Makes a batch from bytes.
    workers : int
        Processes that decode during `batches`, as of `dsr.data.workers.call_ahead`; 0: decode in this process.
    skip : bool
        Whether the place of a damaged picture is taken by the next one of its class, with a RuntimeWarning for each
        such picture; else it raises a DataError.
    kept : Kept, optional
        The pictures, decoded already; this process takes them.

    Attributes
    ----------
    skipped : dict of str to str
        The damaged pictures so far, and what is wrong with each.
    """

    def __init__(
        self,
        files: Sequence[str | Member],
        labels: Labels,
        decoder: Decoder,
        transform: ImageTransform,
        workers: int = 0,
        skip: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self.files, self.labels, self.decoder, self.transform, self.workers = files, labels, decoder, transform, workers
        self.reader, self.skipped, self.kept = Reader(decoder, skip), dict[str, str](), kept

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """Some images, decoded in this process, or taken from those that are kept."""
        read = self.reader(self._task(numbers, draws)) if self.kept is None else self._kept(self.kept, numbers, draws)
        return self._made(read, numbers, draws)

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """Batches, decoded ahead by worker processes, one batch each; the values do not depend on their number."""
        if self.workers == 0 or self.kept is not None:
            yield from super().batches(plan)
            return
        kept: list[tuple[Numbers, Draws | None]] = []

        def tasks() -> Iterator[tuple[list[str | Member], Draws | None]]:
            for numbers, draws in plan:
                kept.append((numbers, draws))
                yield self._task(numbers, draws)

        for read in call_ahead(self.reader, tasks(), self.workers):
            yield self._made(read, *kept.pop(0))

    def at_size(self, side: int) -> FolderSamples:
        """The same files, decoded to another size; pictures that are skipped are counted together.

        Those that are kept are taken if they are whole, as where random parts of them are; else files are decoded.
        """
        other = copy(self)
        other.decoder = replace(self.decoder, image_size=side, size=(side, side))
        other.reader = replace(self.reader, decoder=other.decoder)
        if self.kept is not None and not self.kept.whole and side != self.decoder.image_size:
            other.kept = None
        return other

    def _kept(self, kept: Kept, numbers: Numbers, draws: Draws | None) -> tuple[Bytes, dict[int, str]]:
        """What the reader gives, from pictures that are kept where they are."""
        images = np.zeros((len(numbers), 3, *(self.decoder.size or ())), np.uint8)
        damaged = dict[int, str]()
        for row, number in enumerate(numbers):
            of_row = None if draws is None else draws[row]
            image = self._from(kept, int(number), of_row)
            if image is None:
                read, words = self.reader(([self.files[number]], None if draws is None else draws[row : row + 1]))
                image = read[0]
                if words:
                    damaged[row] = words[0]
            images[row] = image
        return images, damaged

    def _from(self, kept: Kept, number: int, draws: NDArray[np.float64] | None) -> Bytes | None:
        """A picture that is kept, made ready; None: it has to be read."""
        from PIL import Image

        if self.decoder.random_resized_crop and draws is not None and not kept.whole:
            return None
        pixels = kept.pictures[number]
        if pixels is None:
            return None
        decoder = self.decoder
        if not kept.whole and (draws is None or decoder.colours is None or decoder.colours.none):
            return pixels.transpose(2, 0, 1)
        picture = Image.fromarray(pixels)
        if kept.whole:
            picture = decoder.resized(picture, self.files[number], draws)
        return decoder.finished(decoder.coloured(picture, draws))

    def _made(self, read: tuple[Bytes, dict[int, str]], numbers: Numbers, draws: Draws | None) -> Values:
        """The batch; others of their classes take the places of damaged pictures."""
        images, damaged = read
        for row, words in damaged.items():
            images[row] = self._other(int(numbers[row]), words, None if draws is None else draws[row])
        return self.transform(images, draws)

    def _other(self, number: int, words: str, draws: NDArray[np.float64] | None) -> Bytes:
        """The next picture of the class of a damaged one; the same on every rank and in every epoch."""
        of_class = np.flatnonzero(self.labels == self.labels[number])
        for other in np.roll(of_class, -int(np.searchsorted(of_class, number)))[1:]:
            try:
                found = self.decoder.one(self.files[other], draws)
            except DataError:
                continue
            if self.skipped.setdefault(str(self.files[number]), words) is words:
                warnings.warn(
                    f"skipped {len(self.skipped)} of {len(self):,} pictures so far, last: {words}; {self.files[other]} "
                    "takes its place",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return found
        raise DataError(f"{words}; no other picture of its class can be read")

    def _task(self, numbers: Numbers, draws: Draws | None) -> tuple[list[str | Member], Draws | None]:
        return [self.files[number] for number in numbers], draws


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"load_folder: {path} is neither a folder nor an archive")
    return path


def _class_folders(folder: Path, preparation: Preparation) -> imagenet.Found:
    """The classes and files of folders of classes, with a split of the folder or one that is drawn."""
    splits = layout.splits(folder)
    layout.check_no_samples(folder, SUFFIXES)
    train = splits[0] if splits else folder
    folders = [entry.name for entry in layout.class_folders(train)]
    layout.check_classes(
        train, folders, splits and (splits[1], [entry.name for entry in layout.class_folders(splits[1])])
    )
    files, labels = files_of_classes(train, folders)
    if not splits and all(re.match("(train|val|test)", name.lower()) for name in folders):
        raise DataError(f"{folder}: expected folders of classes, or 'train' and 'val', found {layout.some(folders)}")
    if splits:
        test_files, test_labels = files_of_classes(splits[1], folders)
    else:
        kept, drawn = split(labels, len(labels), preparation.test_share, preparation.split_seed, str(folder))
        test_files, test_labels = [files[number] for number in drawn], labels[drawn]
        files, labels = [files[number] for number in kept], labels[kept]
    return imagenet.Found(folders, imagenet.Part(files, labels), imagenet.Part(test_files, test_labels))


def _normalisation(
    files: Sequence[str | Member], decoder: Decoder, wanted: Preparation
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of red, green and blue in [0, 1]: given, of the data, or those of ImageNet."""
    if wanted.mean:
        if len(wanted.mean) != 3:
            raise ValueError(f"load_folder: expected a mean and a deviation of 3 channels, got {len(wanted.mean)}")
        return wanted.mean, wanted.deviation
    if wanted.normalisation == "none":
        return (0.0,) * 3, (1.0,) * 3
    if wanted.normalisation == "default":
        return MEAN, DEVIATION
    chosen = np.random.default_rng([wanted.split_seed, 6]).permutation(len(files))[:MEASURED]
    sums, count = np.zeros((2, 3)), 0
    for number in chosen:
        try:
            pixels = decoder.one(files[number]).reshape(3, -1) / 255
        except DataError:
            if wanted.on_error == "stop":
                raise
            continue
        sums += pixels.sum(axis=1), (pixels**2).sum(axis=1)
        count += pixels.shape[1]
    if not count:
        raise DataError(f"{files[0]}: neither it nor any other picture that was tried can be read")
    mean = sums[0] / count
    deviation = np.sqrt(np.maximum(sums[1] / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1).tolist())


def files_of_classes(split: Path, folders: Sequence[str]) -> tuple[list[str], Labels]:
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


def _names(path: Path, found: imagenet.Found) -> tuple[str, ...]:
    """The names to be shown, from classes.txt or a list of ImageNet's classes where there is one."""
    file, folders = found.names or path / "classes.txt", found.classes
    if isinstance(file, Path) and not file.is_file():
        return imagenet.readable(path, folders) or tuple(folders)
    known, names = set(folders), dict[str, str]()
    for line in map(str.strip, layout.decoded(content(file), str(file)).splitlines()):
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
