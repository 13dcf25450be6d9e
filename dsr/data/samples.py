"""Samples: data with targets, in batches, augmented by random numbers that follow from seed, epoch and sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.options import COUNT, NATURAL, PORTION, PROBABILITY, SEED, SHARE, Range, With, check, documented
from dsr.data.preprocessing import Preprocessing
from dsr.data.targets import Task, as_targets
from dsr.ops import Values

Labels = NDArray[Any]
Numbers = NDArray[np.int64]
Draws = NDArray[np.float64]
Transform = Callable[[NDArray[Any], "Draws | None"], Values]

DRAWS = 8
"""Random numbers of a sample in an epoch; kinds of augmentation read columns of their own, or seed a generator."""

_MAGNITUDE = Range("an integer in [0, 30]", lambda value: 0 <= value <= 30)
_WORKERS = Range("an integer in [-1, 2**31)", lambda value: -1 <= value < 2**31)
_HALF = Range("a number in [0, 0.5]", lambda value: 0 <= value <= 0.5)


@documented
@dataclass(frozen=True)
class SampleOptions:
    """The options of a recipe that decide how samples are made ready; each kind of data reads some of them."""

    task: Annotated[Task, "What samples are trained towards, see `dsr.data.targets`."] = "classification"
    normalisation: Annotated[
        Literal["default", "data", "none"],
        "Mean and deviation: those usual for the data set, of the training samples, or 0 and 1.",
    ] = "default"
    mean: Annotated[
        tuple[float, ...], "Of each channel, instead of normalisation; of images for values in [0, 1]."
    ] = ()
    deviation: Annotated[tuple[float, ...], With("mean"), "Standard deviation of each channel."] = ()
    axes: Annotated[str, "Axes of the samples of arrays, such as HW, HWC or TF; where the shape leaves it open."] = ""
    test_share: Annotated[float, SHARE, "Share of each class that tests, where the data have no split."] = 0.1
    split_seed: Annotated[int, SEED, "Decides which samples these are."] = 0
    crop_padding: Annotated[int, NATURAL, "Pixels added around an image before a random crop of the old size."] = 0
    crop_reflect: Annotated[bool, With("crop_padding"), "Add the image reflected, instead of zeros."] = False
    flip: Annotated[bool, "Mirror half of the training samples left to right."] = False
    image_size: Annotated[int, NATURAL, "Side that images or frames are resized to, in pixels; 0: as they are."] = 0
    same_size: Annotated[
        Literal["keep", "scale"],
        With("image_size"),
        "Pictures of this size, where no random crop is taken: as they are, or like others scaled by 8/7 and cut.",
    ] = "keep"
    jpeg_draft: Annotated[
        bool,
        With("image_size"),
        "Decode JPEG pictures whose sides are at least 4 times as large as needed at 1/2, 1/4 or 1/8 of their size.",
    ] = True
    cache: Annotated[
        Literal["none", "memory", "disk"],
        "Keep decoded pictures: in memory, or in a file that processes share (in DSR_CACHE); the bits are the same.",
    ] = "none"
    on_error: Annotated[
        Literal["stop", "skip"], "What a damaged picture does: end the run, or give its place to another of its class."
    ] = "stop"
    random_resized_crop: Annotated[bool, "Train on random parts of images, of shapes from 3:4 to 4:3."] = False
    crop_area: Annotated[
        float, PORTION, With("random_resized_crop"), "Least share of the area that such a part has; the largest is 1."
    ] = 0.08
    frames_by: Annotated[
        Literal["number", "time"], "Frames of event recordings have equally many events, or are equally long."
    ] = "number"
    roll: Annotated[int, NATURAL, "Shift frames of events by at most so many pixels, around the edges."] = 0
    cutout: Annotated[
        int, NATURAL, "Side of a square that training samples lose, in pixels (of recordings, every other one does)."
    ] = 0
    random_erasing: Annotated[
        float, PROBABILITY, "Probability that a training image loses a rectangle of 2 to 33 % of its area."
    ] = 0.0
    colour_jitter: Annotated[
        float, SHARE, "Most by which brightness, contrast and saturation of training pictures change, as a share."
    ] = 0.0
    hue_jitter: Annotated[float, _HALF, "Most by which their hue turns, as a share of a full turn."] = 0.0
    trivial_augment: Annotated[bool, "Change each training picture by an operation of TrivialAugment (wide)."] = False
    rand_augment: Annotated[int, NATURAL, "Operations of RandAugment that change each training picture."] = 0
    rand_magnitude: Annotated[int, _MAGNITUDE, With("rand_augment"), "Their strength."] = 9


@documented
@dataclass(frozen=True)
class Preparation(SampleOptions):
    """How samples are made ready.

    What `dsr.data.load` and the loaders take. Values are checked; a wrong one is a ValueError.
    """

    timesteps: Annotated[int, COUNT, "T, the number of frames of an event recording."] = 1
    workers: Annotated[
        int, _WORKERS, "Processes that decode images of folders; 0: this process decodes; -1: as many as help."
    ] = 0

    def __post_init__(self) -> None:
        check(self, "Preparation: argument")
        if len(self.mean) != len(self.deviation) or 0 in self.deviation:
            raise ValueError(
                f"Preparation: arguments 'mean' and 'deviation': expected as many deviations, not 0, as means, got "
                f"{self.mean} and {self.deviation}"
            )


class Samples:
    """Samples with targets, numbered from 0.

    Attributes
    ----------
    labels : ndarray
        What the samples are trained towards: classes (int64, (N,)), labels that each has or not (bool, (N, K)), or
        values (float32, (N, ...)), see `dsr.data.targets`.
    task : {"classification", "multilabel", "regression", "other"}
        Which of these.
    """

    labels: Labels
    task: Task = "classification"

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

    def at_size(self, side: int) -> Samples:
        """The same samples as images of another size.

        Parameters
        ----------
        side : int
            Height and width, in pixels.

        Raises
        ------
        ValueError
            Samples of this kind have a size of their own.
        """
        raise ValueError(f"{type(self).__name__}.at_size: expected image files, which can be resized to {side} pixels")


def in_order(samples: Samples, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[tuple[Numbers, Values]]:
    """All samples without augmentation, in batches: their numbers, and the samples; those of one of `ranks`."""
    numbers = np.arange(len(samples))
    plan = [numbers[first : first + batch_size] for first in range(0, len(numbers), batch_size)][rank::ranks]
    return zip(plan, samples.batches((part, None) for part in plan), strict=True)


class ArraySamples(Samples):
    """Samples in memory.

    Parameters
    ----------
    arrays : ndarray, shape (N, ...)
        One entry a sample; may be a memory map.
    labels : array_like
        Targets: for classification one class number for each sample, from 0; else see `dsr.data.targets.as_targets`.
    transform : callable, optional
        ``transform(arrays[numbers], draws)`` gives the batch; by default the arrays are float32 and taken as they are.
    task : {"classification", "multilabel", "regression", "other"}
        What the samples are trained towards.

    Raises
    ------
    TypeError, ValueError
        The labels are not as the task wants them, such as one whole number >= 0 for each sample.
    """

    def __init__(
        self,
        arrays: NDArray[Any],
        labels: ArrayLike,
        transform: Transform | None = None,
        task: Task = "classification",
    ) -> None:
        self.arrays, self.transform, self.task = arrays, transform, task
        self.labels = as_targets("ArraySamples", "labels", labels, len(arrays), task)

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """The samples, transformed."""
        chosen = self.arrays[numbers]
        return chosen if self.transform is None else self.transform(chosen, draws)


class Subset(Samples):
    """Some of the samples of a set, in a given order, such as a part held out for validation."""

    def __init__(self, samples: Samples, numbers: Numbers) -> None:
        self.samples, self.numbers = samples, numbers
        self.labels, self.task = samples.labels[numbers], samples.task

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """The samples of the set below."""
        return self.samples.batch(self.numbers[numbers], draws)

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """The batches of the set below."""
        return self.samples.batches((self.numbers[numbers], draws) for numbers, draws in plan)

    def at_size(self, side: int) -> Samples:
        """These of the set below, as images of another size."""
        return Subset(self.samples.at_size(side), self.numbers)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set with its split into training and test samples.

    Attributes
    ----------
    name : str
        Of the data set.
    classes : sequence of str
        Names of the classes, of the labels, or of the values; a network has as many outputs.
    features : tuple of int
        Shape of a sample as a network gets it, ``(C, H, W)``, at every time step if it has several.
    train, test : Samples
        Samples to train on, and to measure with.
    preprocessing : Preprocessing, optional
        How raw samples become what a network gets; it goes into checkpoints, for `dsr.load`.

    Raises
    ------
    TypeError, ValueError
        Targets of `train` or `test` are not as their task wants them, or not of `classes`; or their tasks differ.
    """

    name: str
    classes: Sequence[str]
    features: tuple[int, ...]
    train: Samples
    test: Samples
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        if self.train.task != self.test.task:
            raise ValueError(f"DataSet: expected one task, got train of {self.train.task}, test of {self.test.task}")
        for name, samples in (("train", self.train), ("test", self.test)):
            as_targets("DataSet", f"{name}.labels", samples.labels, len(samples), self.task, len(self.classes))

    @property
    def task(self) -> Task:
        """What the samples are trained towards."""
        return self.train.task


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
