"""Frames: the events of a recording, counted by pixel, polarity and time step; and how frames are resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.data.events.array import Events, as_events, first_step_back
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_count, shown

Counts = NDArray[np.int32]


def to_frames(
    events: Events | NDArray[np.void] | Mapping[str, ArrayLike],
    timesteps: int,
    sensor_size: Sequence[int] | None = None,
    by: Literal["number", "time"] = "number",
) -> Counts:
    """Count events, one frame per time step; each event is in exactly one frame.

    Parameters
    ----------
    events : Events, structured array or mapping
        As for `dsr.data.events.as_events`.
    timesteps : int
        T, the number of frames.
    sensor_size : sequence of int, optional
        ``(W, H)`` or ``(W, H, 2)``; it may be left out for `Events`.
    by : {"number", "time"}
        As in the published code of DSR and in SpikingJelly:

        - number: ``N // T`` events per frame in the order of the recording; the last frame has the remainder, too.
          If there are fewer than T events, the last frame has all of them.
        - time: frames of ``(t[-1] - t[0]) // T`` microseconds; the last one extends to the end and includes it. If the
          recording is shorter than T microseconds, the last frame has all events.

    Returns
    -------
    ndarray of int32, shape (T, 2, H, W)
        Channel 0 counts off events (p = 0), channel 1 on events.

    Raises
    ------
    TypeError, ValueError
        `events` are not valid (see `as_events`), another argument is not as described, or times go back and `by` is
        "time".
    """
    recording = as_events(events, sensor_size)
    if not isinstance(timesteps, int | np.integer) or timesteps < 1:
        raise ValueError(f"to_frames: argument 'timesteps': expected an integer >= 1, got {shown(timesteps)}")
    timesteps = as_count("to_frames", "timesteps", timesteps)
    if not isinstance(by, str) or by not in ("number", "time"):
        raise ValueError(f"to_frames: argument 'by': expected 'number' or 'time', got {shown(by)}")
    table = recording.events
    if by == "number":
        each, place = len(table) // timesteps, np.arange(len(table))
    else:
        number = first_step_back(table["t"])
        if number is not None:
            raise ValueError(f"to_frames: time goes back at event {number}; such events can be split by number only")
        place = table["t"] - table["t"][:1]
        each = int(place[-1]) // timesteps if len(table) else 0
    # place never decreases, so that each frame is a contiguous part of the recording
    starts = np.searchsorted(place, each * np.arange(timesteps + 1), side="left") if each else np.zeros(timesteps + 1)
    starts = starts.astype(np.intp)
    starts[-1] = len(table)
    width, height, polarities = recording.sensor_size
    pixel = (table["p"].astype(np.intp) * height + table["y"]) * width + table["x"]
    frames = np.empty((timesteps, polarities * height * width), np.int32)
    for step in range(timesteps):
        frames[step] = np.bincount(pixel[starts[step] : starts[step + 1]], minlength=frames.shape[1])
    return frames.reshape(timesteps, polarities, height, width)


def resize(frames: NDArray[np.integer], size: int) -> Values:
    """Resize frames, bilinearly.

    Values are interpolated between the centres of the four nearest pixels, as by
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False, antialias=False)``, which is what
    ``torchvision.transforms.Resize`` did with tensors when DSR was published (since 0.17 it smooths by default). There
    is no rounding before the last step.

    Parameters
    ----------
    frames : ndarray of int, shape (..., H, W)
        Counts.
    size : int
        Rows and columns of the result.

    Returns
    -------
    ndarray of float32, shape (..., size, size)
    """
    array = as_array("resize", "frames", frames, least_axes=2)
    if array.dtype.kind not in "iub" or 0 in array.shape[-2:]:
        raise ValueError(
            f"resize: argument 'frames': expected integers, (..., H, W), got {array.dtype} of shape {array.shape}"
        )
    whole, divisor = resize_exactly(array, as_count("resize", "size", size))
    return np.divide(whole, divisor).astype(np.float32)


def resize_exactly(frames: NDArray[np.integer], size: int) -> tuple[NDArray[np.int64], int]:
    """Resized frames as integers, and by what to divide them: bilinear weights are fractions."""
    rows, high = _resize_rows(frames.astype(np.int64), size)
    columns, wide = _resize_rows(rows.swapaxes(-1, -2), size)
    return columns.swapaxes(-1, -2), high * wide


def _resize_rows(frames: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], int]:
    """Weighted sums of neighbouring rows, times the smallest number that makes the weights integers; that number."""
    old = frames.shape[-2]
    # the centre of new row i is at (i + 1/2) old / size - 1/2; here in units of 1 / (2 size), and not before row 0
    place = np.maximum((2 * np.arange(size) + 1) * old - size, 0)
    upper, part = np.divmod(place, 2 * size)
    common = gcd(2 * size, *part.tolist())
    divisor, weight = 2 * size // common, (part // common)[:, np.newaxis]
    lower = np.minimum(upper + 1, old - 1)
    return (divisor - weight) * frames[..., upper, :] + weight * frames[..., lower, :], divisor
