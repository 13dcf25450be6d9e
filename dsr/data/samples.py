"""Samples: labelled data in batches, augmented by random numbers that follow from seed, epoch and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.options import COUNT, NATURAL, With, check, documented
from dsr.ops import Values
from dsr.ops.arguments import as_class_numbers

Labels = NDArray[np.int64]
Numbers = NDArray[np.int64]
Draws = NDArray[np.float64]
Transform = Callable[[NDArray[Any], "Draws | None"], Values]

DRAWS = 8
"""Random numbers of a sample in an epoch; each kind of augmentation reads columns of its own."""


@documented
@dataclass(frozen=True)
class SampleOptions:
    """The options of a recipe that decide how samples are made ready; each kind of data reads some of them."""

    crop_padding: Annotated[int, NATURAL, "Pixels added around an image before a random crop of the old size."] = 0
    crop_reflect: Annotated[bool, With("crop_padding"), "Add the image reflected, instead of zeros."] = False
    flip: Annotated[bool, "Mirror half of the training samples left to right."] = False
    image_size: Annotated[int, NATURAL, "Side that images or frames are resized to, in pixels; 0: as they are."] = 0
    random_resized_crop: Annotated[bool, "Train on random parts of images: 8 to 100 % of the area, 3:4 to 4:3."] = False
    frames_by: Annotated[
        Literal["number", "time"], "Frames of event recordings have equally many events, or are equally long."
    ] = "number"
    roll: Annotated[int, NATURAL, "Shift frames of events by at most so many pixels, around the edges."] = 0
    cutout: Annotated[
        int, NATURAL, "Side of a square that training samples lose, in pixels (of recordings, every other one does)."
    ] = 0


@documented
@dataclass(frozen=True)
class Preparation(SampleOptions):
    """How samples are made ready.

    What `dsr.data.load` and the loaders take. Values are checked; a wrong one is a ValueError.
    """

    timesteps: Annotated[int, COUNT, "T, the number of frames of an event recording."] = 1
    workers: Annotated[int, NATURAL, "Processes that decode images of folders; 0: this process decodes."] = 0

    def __post_init__(self) -> None:
        check(self, "Preparation: argument")


class Samples:
    """Labelled samples, numbered from 0.

    Attributes
    ----------
    labels : ndarray of int64, shape (N,)
        Classes.
    """

    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """Some samples, ready for a network.

        Parameters
        ----------
        numbers : ndarray of int64, shape (B,)
            Which.
        draws : ndarray of float64, shape (B, DRAWS), optional
            Uniform random numbers in [0, 1), a row a sample, that decide the augmentation; None: no augmentation.

        Returns
        -------
        ndarray of float32, shape (B, C, H, W) or (T, B, C, H, W)
        """
        raise NotImplementedError

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """`batch` for each entry of `plan`, in order; samples that are slow to decode are decoded ahead."""
        for numbers, draws in plan:
            yield self.batch(numbers, draws)


class ArraySamples(Samples):
    """Samples in memory.

    Parameters
    ----------
    arrays : ndarray, shape (N, ...)
        One entry a sample; may be a memory map.
    labels : array_like of int, shape (N,)
        Classes, numbered from 0.
    transform : callable, optional
        ``transform(arrays[numbers], draws)`` gives the batch; by default the arrays are float32 and taken as they are.

    Raises
    ------
    TypeError, ValueError
        The labels are not one whole number >= 0 for each sample.
    """

    def __init__(self, arrays: NDArray[Any], labels: ArrayLike, transform: Transform | None = None) -> None:
        self.arrays, self.transform = arrays, transform
        self.labels = as_class_numbers("ArraySamples", "labels", labels, len(arrays))

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """The samples, transformed."""
        chosen = self.arrays[numbers]
        return chosen if self.transform is None else self.transform(chosen, draws)


class Subset(Samples):
    """Some of the samples of a set, in a given order, such as a part held out for validation."""

    def __init__(self, samples: Samples, numbers: Numbers) -> None:
        self.samples, self.numbers = samples, numbers
        self.labels = samples.labels[numbers]

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """The samples of the set below."""
        return self.samples.batch(self.numbers[numbers], draws)

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """The batches of the set below."""
        return self.samples.batches((self.numbers[numbers], draws) for numbers, draws in plan)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with its split into training and test samples.

    Attributes
    ----------
    name : str
        Of the data set.
    classes : sequence of str
        Names of the classes.
    features : tuple of int
        Shape of a sample as a network gets it, ``(C, H, W)``, at every time step if it has several.
    train, test : Samples
        Samples to train on, and to measure with.

    Raises
    ------
    TypeError, ValueError
        Labels of `train` or `test` are not one class number for each sample, or not of `classes`.
    """

    name: str
    classes: Sequence[str]
    features: tuple[int, ...]
    train: Samples
    test: Samples

    def __post_init__(self) -> None:
        for name, samples in (("train", self.train), ("test", self.test)):
            as_class_numbers("DataSet", f"{name}.labels", samples.labels, len(samples), len(self.classes))


def epoch_draws(count: int, seed: int, epoch: int, alternate_flip: bool = False) -> Draws:
    """The random numbers of an epoch, ``(count, DRAWS)``; the same whichever process decodes a sample.

    Column 0 decides about flips. With `alternate_flip` it moves by one half each epoch, so that every sample is seen
    as often mirrored as not (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024).
    """
    draws = np.random.default_rng([seed, 1, epoch]).random((count, DRAWS))
    if alternate_flip:
        first = np.random.default_rng([seed, 2]).random(count)
        draws[:, 0] = (first + 0.5 * (epoch % 2)) % 1
    return draws
