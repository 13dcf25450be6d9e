"""Early exit: a sample is done when its output is clear enough, and leaves the batch.

After each time step the output rates so far are those of a run of so many steps. How clear they are is told by the
`probability` of the most probable class (softmax of the rates, as `Model.predict_proba` gives it), or by the `margin`
between the largest rate and the next. Higher thresholds cost more steps, and lose less; which one is right follows from
a curve of accuracy against mean T, on samples that were not trained with and are not tested with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.deploy.batches import batches_of
from dsr.deploy.integer_model import IntegerModel
from dsr.deploy.session import Session
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_class_numbers, as_count, as_number, shown

By = Literal["probability", "margin"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
"""Probabilities that a curve is made of by default."""


class _Steps(Protocol):
    """A `Stream`, or one of integers."""

    def advance(self, array: NDArray[Any], steps: int, held: bool, changed: bool = True) -> object: ...
    def rates(self) -> Values: ...
    def selected(self, numbers: NDArray[np.int64]) -> Self: ...


_Stream = TypeVar("_Stream", bound=_Steps)


class _Runner(Protocol[_Stream]):
    """A `Session`, or an `IntegerModel`."""

    batch: int
    timesteps: int

    @property
    def output_features(self) -> tuple[int, ...]: ...
    def checked(self, function: str, name: str, data: ArrayLike) -> tuple[NDArray[Any], int]: ...
    def take(self, batch: int) -> _Stream: ...
    def give_back(self, stream: _Stream) -> None: ...


@dataclass(frozen=True, eq=False)
class Exits:
    """Outputs of samples that left early.

    Attributes
    ----------
    rates : ndarray of float32, shape (B, classes)
        Output rates at the step at which each sample left.
    timesteps : ndarray of int, shape (B,)
        How many steps that were.
    """

    rates: Values
    timesteps: NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """What a threshold gives.

    Attributes
    ----------
    threshold : float
        Infinity: all steps of all samples.
    accuracy : float
        Share of the samples that were right when they left.
    timesteps : float
        Mean T at which they left.
    """

    threshold: float
    accuracy: float
    timesteps: float


def clearness(rates: Values, by: By = "probability") -> NDArray[np.float64]:
    """How clear outputs (..., classes) are, (...,): probability of the largest one, or its distance to the next."""
    _require_by("clearness", by)
    if rates.shape[-1] < 2:
        raise ValueError(f"clearness: argument 'rates': expected at least two classes, got shape {rates.shape}")
    values = rates.astype(np.float64)
    if by == "margin":
        second, first = np.moveaxis(np.partition(values, -2, axis=-1)[..., -2:], -1, 0)
        return np.asarray(first - second)
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(1 / np.exp(values - largest).sum(axis=-1))


def early_exit(
    session: _Runner[Any], data: ArrayLike, threshold: float, by: By = "probability", least: int = 1
) -> Exits:
    """Run samples until their outputs are clear enough, at most for all T steps.

    Parameters
    ----------
    session : Session or IntegerModel
        Of a network whose outputs are classes.
    data : array_like, shape ``(B, *features)`` or ``(T, B, *features)``
        As `Session.run` takes it.
    threshold : float
        A sample leaves when its output is at least so clear; > 0.
    by : {"probability", "margin"}
        How that is measured, see `clearness`.
    least : int
        Steps that all samples stay.

    Raises
    ------
    TypeError, ValueError
        `data` does not fit, an argument is not as described, or the outputs are not those of two or more classes.

    Notes
    -----
    When half of the samples have left, the others go on as a batch of half the size or less (a power of two): time is
    saved, not only steps. The outputs are those of `Session.run` with as many steps, but for rounding of values that
    are no spikes, whose convolution depends on the size of the batch. Those of an integer model are EXACT.
    """
    threshold = as_number("early_exit", "threshold", threshold, lambda value: value > 0, "a number > 0")
    _require_by("early_exit", by)
    least = as_count("early_exit", "least", least)
    _require_classes("early_exit", session)
    array, axis = session.checked("early_exit", "data", data)
    parts = [_exits(session, part, axis, threshold, by, least) for part in batches_of(array, axis, session.batch)]
    if not parts:
        return Exits(np.empty((0, *session.output_features), np.float32), np.zeros(0, np.int64))
    return Exits(np.concatenate([p.rates for p in parts]), np.concatenate([p.timesteps for p in parts]))


def _exits(session: _Runner[_Stream], array: NDArray[Any], axis: int, threshold: float, by: By, least: int) -> Exits:
    count = array.shape[axis]
    found = Exits(np.empty((count, *session.output_features), np.float32), np.zeros(count, np.int64))
    numbers, stays = np.arange(count), np.ones(count, np.bool_)  # of those in the stream
    stream, changed = session.take(count), True
    last = len(array) if axis else session.timesteps
    try:
        for step in range(1, last + 1):
            frame = array[step - 1] if axis else array
            read = changed or axis == 1  # a static sample is read once
            stream.advance(frame.take(numbers, 0) if read else frame, 1, held=True, changed=read)
            rates, changed = stream.rates(), False
            leaves = stays & (clearness(rates, by) >= threshold if step >= least else False)
            if step == last:
                leaves = stays.copy()
            found.rates[numbers[leaves]] = rates[leaves]
            found.timesteps[numbers[leaves]] = step
            stays &= ~leaves
            left = int(stays.sum())
            if left == 0:
                break
            size = 1 << (left - 1).bit_length()  # few sizes, for which there is memory: the last ones may be idle
            if 2 * size <= len(numbers):
                chosen = np.resize(np.flatnonzero(stays), size)
                smaller = stream.selected(chosen)
                session.give_back(stream)
                stream, numbers, stays, changed = smaller, numbers[chosen], np.arange(size) < left, True
    finally:
        session.give_back(stream)
    return found


def rates_so_far(session: _Runner[Any], data: ArrayLike) -> Values:
    """Output rates after each step, ``(T, B, *output_features)``; arguments and errors are those of `Session.run`."""
    array, axis = session.checked("rates_so_far", "data", data)
    parts = []
    for part in batches_of(array, axis, session.batch):
        stream = session.take(part.shape[axis])
        steps = []
        for step in range(len(part) if axis else session.timesteps):
            stream.advance(part[step] if axis else part, 1, held=True, changed=axis == 1 or step == 0)
            steps.append(stream.rates())
        session.give_back(stream)
        parts.append(np.stack(steps))
    if not parts:
        return np.empty((session.timesteps, 0, *session.output_features), np.float32)
    return np.concatenate(parts, axis=1)


def curve(
    rates: Values, labels: ArrayLike, thresholds: Iterable[float] = THRESHOLDS, by: By = "probability", least: int = 1
) -> list[Point]:
    """Accuracy against mean T, for many thresholds at once.

    Parameters
    ----------
    rates : ndarray, shape (T, B, classes)
        Of `rates_so_far`.
    labels : array_like of int, shape (B,)
        Classes.
    thresholds : iterable of float
        Each > 0. All steps, as if the threshold were infinite, are always the last point.
    by, least
        As of `early_exit`.

    Returns
    -------
    list of Point
        By rising threshold.

    Raises
    ------
    TypeError, ValueError
        These are no rates or labels, there are no samples, or a threshold is not > 0.
    """
    rates = np.asarray(as_array("curve", "rates", rates), np.float32)
    if rates.ndim != 3 or 0 in rates.shape:
        raise ValueError(f"curve: argument 'rates': expected shape (T, B, classes), got {rates.shape}")
    targets = as_class_numbers("curve", "labels", labels, rates.shape[1], rates.shape[2])
    wanted = [as_number("curve", "thresholds", t, lambda value: value > 0, "numbers > 0") for t in thresholds]
    clear, right = clearness(rates, by), rates.argmax(axis=2) == targets
    clear[: as_count("curve", "least", least) - 1] = -np.inf
    points = []
    for threshold in sorted({*wanted, float("inf")}):
        passed = clear >= threshold
        passed[-1] = True
        leaves = passed.argmax(axis=0)
        correct = right[leaves, np.arange(len(targets))]
        points.append(Point(threshold, float(correct.mean()), float(leaves.mean() + 1)))
    return points


def choose(points: Sequence[Point], loss: float = 0.005) -> Point:
    """The point of the fewest steps whose accuracy is at most `loss` below that of all steps.

    Parameters
    ----------
    points : sequence of Point
        Of `curve`, on samples for validation: chosen on test samples, the accuracy there is too high an estimate.
    loss : float
        Accuracy that may be given up, in [0, 1].
    """
    allowed = as_number("choose", "loss", loss, lambda value: 0 <= value <= 1, "a number in [0, 1]")
    if not points:
        raise ValueError("choose: argument 'points': expected at least one, got none")
    full = max(points, key=lambda point: point.threshold)
    return min((p for p in points if p.accuracy >= full.accuracy - allowed), key=lambda p: (p.timesteps, -p.accuracy))


def _require_by(function: str, by: Any) -> None:
    if by not in get_args(By):
        raise ValueError(f"{function}: argument 'by': expected 'probability' or 'margin', got {shown(by)}")


def _require_classes(function: str, session: Any) -> None:
    if not isinstance(session, Session | IntegerModel):
        given = type(session).__name__
        raise TypeError(f"{function}: argument 'session': expected a Session or an IntegerModel, got {given}")
    features = session.output_features
    if len(features) != 1 or features[0] < 2:
        raise ValueError(f"{function}: argument 'session': expected outputs of two or more classes, got {features}")
