"""Frames one after the other, of a recording or of events as they come: what a stream of a session is fed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.events.array import EVENT, Events, as_events, check_size, first_step_back
from dsr.data.events.frames import Counts
from dsr.data.events.reading import read_events
from dsr.ops.arguments import as_count, shown

Recording = str | Path | Events | NDArray[np.void] | Mapping[str, ArrayLike]


def frames_of(
    source: Recording | Iterable[Recording],
    each: int,
    by: Literal["number", "time"] = "time",
    sensor_size: Sequence[int] | None = None,
) -> Iterator[Counts]:
    """Frames of events, each as soon as all its events are there.

    Parameters
    ----------
    source : path, Events, structured array, mapping, or iterable of these
        A recording: a file as `read_events` takes it (AEDAT, ``.dat``, ``.bin``, ``.npz``, ``.npy``), or its events as
        `as_events` takes them. Or parts of one in their order, such as a camera gives them; a part may be empty.
    each : int
        Microseconds of a frame, or events, >= 1.
    by : {"time", "number"}
        - time: the first frame begins at the first event, and every one is as long; one in which nothing happens is
          all zeros.
        - number: every frame has as many events.

        The last frame is what is left at the end.
    sensor_size : sequence of int, optional
        ``(W, H)`` or ``(W, H, 2)``; it may be left out for `Events` and for files that say it.

    Yields
    ------
    ndarray of int32, shape (2, H, W)
        Channel 0 counts off events (p = 0), channel 1 on events.

    Raises
    ------
    TypeError, ValueError
        Events are not valid, parts have sensors of different sizes, another argument is not as described, or, by time,
        times go back.
    DataError, OSError
        A file cannot be read.

    Examples
    --------
    >>> stream = session.start()
    >>> for frame in frames_of("hand.aedat", each=20_000):
    ...     rates = stream.step(frame[np.newaxis])
    """
    if not isinstance(by, str) or by not in ("number", "time"):
        raise ValueError(f"frames_of: argument 'by': expected 'number' or 'time', got {shown(by)}")
    size = None if sensor_size is None else check_size("frames_of", sensor_size)
    return _frames(source, as_count("frames_of", "each", each), by == "time", size)


def _frames(source: Any, each: int, by_time: bool, size: tuple[int, int, int] | None) -> Iterator[Counts]:
    waiting = np.empty(0, EVENT)
    begin: int | None = None  # of the frame, in microseconds
    for part in _parts(source):
        if isinstance(part, Events) and size not in (None, part.sensor_size):
            raise ValueError(f"frames_of: expected events of a sensor of size {size}, got {part.sensor_size}")
        events = read_events(part, size) if isinstance(part, str | Path) else as_events(part, size)
        size = events.sensor_size
        waiting = np.concatenate([waiting, events.events])
        if not len(waiting):
            continue
        if not by_time:
            whole = len(waiting) // each
            for i in range(whole):
                yield _counted(waiting[i * each : (i + 1) * each], size)
            waiting = waiting[whole * each :]
            continue
        number = first_step_back(waiting["t"])
        if number is not None or (begin is not None and waiting["t"][0] < begin):
            at = 0 if number is None else number
            raise ValueError(
                f"frames_of: time goes back to {waiting['t'][at]} microseconds; such events can be split by number only"
            )
        begin = int(waiting["t"][0]) if begin is None else begin
        while int(waiting["t"][-1]) >= begin + each:
            end = int(np.searchsorted(waiting["t"], begin + each, side="left"))
            yield _counted(waiting[:end], size)
            waiting, begin = waiting[end:], begin + each
    if len(waiting) and size is not None:
        yield _counted(waiting, size)


def _parts(source: Any) -> Iterable[Any]:
    """A recording as its only part, or the parts."""
    if isinstance(source, str | Path | Events | np.ndarray | Mapping):
        return (source,)
    if not isinstance(source, Iterable):
        raise TypeError(f"frames_of: argument 'source': expected a recording or parts of one, got {shown(source)}")
    return source


def _counted(events: NDArray[np.void], size: tuple[int, int, int]) -> Counts:
    width, height, polarities = size
    pixel = (events["p"].astype(np.intp) * height + events["y"]) * width + events["x"]
    counts = np.bincount(pixel, minlength=polarities * height * width)
    return counts.astype(np.int32).reshape(polarities, height, width)
