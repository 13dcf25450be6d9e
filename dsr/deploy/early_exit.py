"""Early exit: a sample is done when its output is clear enough, and leaves the batch.

After each time step the output rates so far are those of a run of so many steps. How clear they are is told by the
`probability` of the most probable class (softmax of the rates, as `Model.predict_proba` gives it), or by the `margin`
between the largest rate and the next. Higher thresholds cost more steps, and lose less; which one is right follows from
a curve of accuracy against mean T, on samples that were not trained with and are not tested with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.deploy.continuous_batch import Runner, continuous_batch, most_slots
from dsr.deploy.integer_model import IntegerModel, IntegerStream
from dsr.deploy.session import Session, Stream
from dsr.deploy.slots import Numbers
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_class_numbers, as_count, as_number, shown
from dsr.ops.batches import batches_of

By = Literal["probability", "margin"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.99, 0.995, 0.999)
"""Probabilities that a curve is made of by default."""


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


def early_exit(session: Runner, data: ArrayLike, threshold: float, by: By = "probability", least: int = 1) -> Exits:
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
    Batches are continuous: where a sample leaves, the next one begins at once, in its slot, while the others go on.
    So each time step is computed for a full batch, and early exit saves time, not only steps. Of static samples, the
    first neurons are computed once, for all steps. When no sample is left to begin and half of the slots are empty, the
    others go on as a batch of half the size or less (a power of two). The more samples are given at once, the longer
    the slots are full; see `early_exit_in_parts`.

    The outputs are those of `rates_so_far` after as many steps. They have the same bits for integer models, and for
    static samples where all convolutions behind the first neurons are over spikes. Other convolutions, as those of
    frames and those behind average pooling, are rounded in a way that depends on the size of the batch.
    """
    return _exits("early_exit", "data", session, [data], threshold, by, least)


def early_exit_in_parts(
    session: Runner, parts: Iterable[ArrayLike], threshold: float, by: By = "probability", least: int = 1
) -> Exits:
    """`early_exit` of samples that come in parts, as if they came at once.

    Parameters
    ----------
    parts : iterable of array_like, shape ``(B, *features)`` or ``(T, B, *features)``
        The next one is read when all samples before it have begun. All are static, or all are frames.
    session, threshold, by, least
        As of `early_exit`.

    Raises
    ------
    TypeError, ValueError
        As `early_exit`, or parts are not alike.
    """
    if not isinstance(parts, Iterable):
        given = type(parts).__name__
        raise TypeError(f"early_exit_in_parts: argument 'parts': expected an iterable of arrays, got {given}")
    return _exits("early_exit_in_parts", "parts", session, parts, threshold, by, least)


def _exits(
    function: str, name: str, session: Runner, parts: Iterable[ArrayLike], threshold: float, by: By, least: int
) -> Exits:
    threshold = as_number(function, "threshold", threshold, lambda value: value > 0, "a number > 0")
    _require_by(function, by)
    least = as_count(function, "least", least)
    _require_classes(function, session)
    waiting = _Waiting(session, function, name, parts)
    found = _Found(session.output_features)
    if waiting.some():
        _leave(session, waiting, found, lambda rates: clearness(rates, by) >= threshold, least)
    return found.in_order()


class _Waiting:
    """Samples that have not begun, in batches of the session's size; `last` is the time step after which all leave."""

    def __init__(self, session: Runner, function: str, name: str, parts: Iterable[ArrayLike]) -> None:
        self.with_time: bool | None = None
        self.last = session.timesteps
        self._batches = self._of(session, function, name, parts)
        self._ahead: list[NDArray[Any]] = []

    def _of(self, session: Runner, function: str, name: str, parts: Iterable[ArrayLike]) -> Iterator[NDArray[Any]]:
        for part in parts:
            array, axis = session.checked(function, name, part)
            if self.with_time is None:
                self.with_time = axis == 1
                self.last = len(array) if axis else session.timesteps
            elif self.with_time != (axis == 1) or (axis and len(array) != self.last):
                raise ValueError(
                    f"{function}: argument '{name}': expected parts of the same kind, static samples or as many "
                    f"frames, got one of shape {array.shape}"
                )
            if array.shape[axis]:
                yield from batches_of(array, axis, session.batch)

    def count(self, batch: NDArray[Any]) -> int:
        """How many samples a batch has."""
        return int(batch.shape[1 if self.with_time else 0])

    def some(self, most: int = 1) -> int:
        """How many there are, counted up to `most`, so that no more parts are read than are needed."""
        while (known := sum(map(self.count, self._ahead))) < most:
            following = next(self._batches, None)
            if following is None:
                return known
            self._ahead.append(following)
        return most

    def next(self) -> NDArray[Any] | None:
        """The next batch, or None at the end."""
        return self._ahead.pop(0) if self.some() else None


class _Found:
    """Outputs of samples in the order in which they leave."""

    def __init__(self, features: tuple[int, ...]) -> None:
        self._numbers: list[Numbers] = [np.empty(0, np.int64)]
        self._rates: list[Values] = [np.empty((0, *features), np.float32)]
        self._times: list[Numbers] = [np.empty(0, np.int64)]

    def add(self, numbers: Numbers, rates: Values, times: Numbers) -> None:
        """Add samples that leave: their numbers, (N,), output rates, (N, classes), and time steps, (N,)."""
        self._numbers.append(numbers)
        self._rates.append(rates)
        self._times.append(times)

    def in_order(self) -> Exits:
        """All of them, by the numbers of the samples."""
        order = np.concatenate(self._numbers).argsort()
        return Exits(np.concatenate(self._rates)[order], np.concatenate(self._times)[order])


EMPTY = -1
"""Instead of the number of a sample: the slot has none."""


def _leave(
    session: Runner, waiting: _Waiting, found: _Found, clear: Callable[[Values], NDArray[np.bool_]], least: int
) -> None:
    """Run all samples; each leaves after at least `least` steps, when its rates are clear or there is no step left."""
    with_time = bool(waiting.with_time)
    size = waiting.some(most_slots(session, with_time))
    batch = continuous_batch(session, size, with_time)
    sample_of, times = np.full(size, EMPTY), np.zeros(size, np.int64)
    begun = received = column = 0  # samples that have begun; those of the last part, and which of them is next
    try:
        while True:
            free = np.flatnonzero(sample_of == EMPTY)
            while len(free):
                if column == received:
                    samples = waiting.next()
                    if samples is None:
                        break
                    batch.receive(samples)
                    received, column = waiting.count(samples), 0
                n = min(len(free), received - column)
                slots, free = free[:n], free[n:]
                batch.fill(slots, np.arange(column, column + n))
                sample_of[slots], times[slots] = np.arange(begun, begun + n), 0
                begun, column = begun + n, column + n
            if len(free) == len(sample_of):
                return
            fewer = 1 << (len(sample_of) - len(free) - 1).bit_length()  # powers of two, so that memory is used again
            if 2 * fewer <= len(sample_of):
                kept = np.argsort(sample_of == EMPTY, kind="stable")[:fewer]  # slots with a sample come first
                batch.keep(kept)
                sample_of, times = sample_of[kept], times[kept]
                free = np.flatnonzero(sample_of == EMPTY)
            if len(free):
                batch.empty(free)
            rates = batch.step()
            times += 1
            leaves = (sample_of != EMPTY) & ((times == waiting.last) | ((times >= least) & clear(rates)))
            found.add(sample_of[leaves], rates[leaves], times[leaves])
            sample_of[leaves] = EMPTY
    finally:
        batch.close()


def rates_so_far(session: Runner, data: ArrayLike) -> Values:
    """Output rates after each step, ``(T, B, *output_features)``; arguments and errors are those of `Session.run`."""
    array, axis = session.checked("rates_so_far", "data", data)
    parts = []
    for part in batches_of(array, axis, session.batch):
        stream: Stream | IntegerStream = session.take(part.shape[axis])
        steps = []
        for step in range(len(part) if axis else session.timesteps):
            stream.advance(part[step] if axis else part, 1, held=True, changed=axis == 1 or step == 0)
            steps.append(stream.rates())
        stream.give_back()
        parts.append(np.stack(steps))
    if not parts:
        return np.empty((len(array) if axis else session.timesteps, 0, *session.output_features), np.float32)
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


def _require_by(function: str, by: object) -> None:
    if by not in get_args(By):
        raise ValueError(f"{function}: argument 'by': expected 'probability' or 'margin', got {shown(by)}")


def _require_classes(function: str, session: object) -> None:
    if not isinstance(session, Session | IntegerModel):
        given = type(session).__name__
        raise TypeError(f"{function}: argument 'session': expected a Session or an IntegerModel, got {given}")
    features = session.output_features
    if len(features) != 1 or features[0] < 2:
        raise ValueError(f"{function}: argument 'session': expected outputs of two or more classes, got {features}")
