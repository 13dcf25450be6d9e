"""Events of a dynamic vision sensor as one structured array, and the checks that all readers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.ops.arguments import shown

EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
"""Column, row, time in microseconds, and polarity (True: brighter, "on"): the fields and dtypes of tonic's arrays."""

LARGEST_SIDE = 4096
"""Pixels; no sensor is larger, and frames of a larger size would fill the memory."""

LARGEST_TIME = 1 << 62

SensorSize = tuple[int, int, int]
Fail = Callable[[int, str], ValueError]
"""Makes an error from the number of an event and what is wrong with it; it adds the place, in a file or argument."""


@dataclass(frozen=True, eq=False)
class Events:
    """A recording.

    Attributes
    ----------
    events : ndarray of `EVENT`, shape (N,)
        In the order in which the sensor sent them.
    sensor_size : tuple of int
        ``(W, H, 2)``: columns, rows and polarities, as in tonic.
    skipped : int
        Number of records of the file that are not events of pixels, such as external triggers; not in `events`.
    """

    events: NDArray[np.void]
    sensor_size: SensorSize
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.events)


def as_events(
    array: Events | NDArray[np.void] | Mapping[str, ArrayLike], sensor_size: Sequence[int] | None = None
) -> Events:
    """Check events that are in memory.

    Parameters
    ----------
    array : Events, structured array or mapping
        With the fields x, y, t and p in any order and dtype, such as an array of tonic or a dict of SpikingJelly. An
        array of dtype `EVENT` is not copied.
    sensor_size : sequence of int
        ``(W, H)`` or ``(W, H, 2)``; may be left out for `Events`.

    Raises
    ------
    TypeError
        `array` is of another kind, or a field does not contain numbers.
    ValueError
        A field is missing or too short, a number is not an integer, or an event is outside the sensor. Times may go
        back.
    """
    if isinstance(array, Events):
        if sensor_size is None or check_size("as_events", sensor_size) == array.sensor_size:
            return array
        array = array.events
    if sensor_size is None:
        raise ValueError("as_events: argument 'sensor_size': expected (W, H), got None")
    size = check_size("as_events", sensor_size)
    names = array.dtype.names if isinstance(array, np.ndarray) else array if isinstance(array, Mapping) else None
    if names is None:
        given = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"as_events: expected a structured array or a mapping with x, y, t and p, got {given}")
    for name in EVENT.names or ():
        if name not in names:
            raise ValueError(f"as_events: expected fields x, y, t and p, got {', '.join(map(str, names))}")
    try:
        fields = {name: np.asarray(array[name]) for name in EVENT.names or ()}
    except Exception as error:  # an object of the user's may raise anything
        raise TypeError("as_events: x, y, t or p: expected numbers, got something that is not an array") from error
    events = pack(fields, size, 0, lambda number, what: ValueError(f"as_events: event {number}: {what}"))
    if isinstance(array, np.ndarray) and array.dtype == EVENT:
        return Events(array, size)
    return events


def shown_size(size: Any) -> str:
    """A size for a message, in one line."""
    if not isinstance(size, tuple | list):
        return shown(size)
    return f"({', '.join(map(shown, size))}{',' * (len(size) == 1)})"


def check_size(function: str, sensor_size: Sequence[int]) -> SensorSize:
    """``(W, H, 2)`` of ``(W, H)`` or ``(W, H, 2)``, or a ValueError."""
    try:
        size = tuple(sensor_size)
    except TypeError:
        size = ()
    whole = all(isinstance(side, int | np.integer) for side in size)
    if not whole or len(size) not in (2, 3) or (len(size) == 3 and size[2] != 2):
        raise ValueError(
            f"{function}: argument 'sensor_size': expected (W, H) or (W, H, 2), got {shown_size(sensor_size)}"
        )
    if not (1 <= size[0] <= LARGEST_SIDE and 1 <= size[1] <= LARGEST_SIDE):
        raise ValueError(
            f"{function}: argument 'sensor_size': expected 1 to {LARGEST_SIDE} a side, got {shown_size(sensor_size)}"
        )
    return int(size[0]), int(size[1]), 2


def pack(fields: Mapping[str, NDArray[Any]], size: SensorSize, skipped: int, fail: Fail) -> Events:
    """`Events` from integers x, y, t and p; raises ``fail(number, what is wrong with the event)``."""
    limits = {
        "x": (0, size[0] - 1, f"outside the sensor of {size[0]}x{size[1]}"),
        "y": (0, size[1] - 1, f"outside the sensor of {size[0]}x{size[1]}"),
        "t": (-LARGEST_TIME, LARGEST_TIME, "not a time in microseconds"),
        "p": (0, 1, "not a polarity (0 or 1)"),
    }
    count = len(fields["x"]) if fields["x"].ndim == 1 else 0
    packed = np.empty(count, EVENT)
    for name, (least, most, wrong) in limits.items():
        values = fields[name]
        if values.dtype.kind not in "biuf":
            raise TypeError(str(fail(0, f"{name}: expected numbers, got {values.dtype}")))
        if values.shape != (count,):
            raise fail(0, f"{name}: expected one value per event, {count}, got shape {values.shape}")
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
        bad = ~((values >= least) & (values <= most))  # catches NaN, too
        if bad.any():
            number = int(bad.argmax())
            raise fail(number, f"{name} = {values[number]} is {wrong}")
        if values.dtype.kind == "f" and (broken := values != np.floor(values)).any():
            number = int(broken.argmax())
            raise fail(number, f"{name} = {values[number]} is not an integer")
        packed[name] = values
    return Events(packed, size, skipped)


BLOCK = 1 << 17
"""Number of events that are decoded at once: intermediate results take many times the memory of the file."""


def blocks(count: int) -> Iterator[slice]:
    """The parts, of `BLOCK` events each, in which `count` events are decoded."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def join(parts: Iterable[Events], most: int, size: SensorSize) -> Events:
    """Join the parts of a recording, which together have at most `most` events."""
    events, count, skipped = np.empty(most, EVENT), 0, 0
    for part in parts:
        events[count : count + len(part)] = part.events
        count, skipped = count + len(part), skipped + part.skipped
    return Events(events[:count], size, skipped)


def first_step_back(times: NDArray[Any]) -> int | None:
    """Number of the first event that is earlier than the one before it; None if time never goes back."""
    back = times[1:] < times[:-1]
    return int(back.argmax()) + 1 if back.any() else None
