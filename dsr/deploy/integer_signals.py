"""What the steps of an integer network write: spikes and counts as planes of bits, or the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.ops import Integers, Values, Words


@dataclass(frozen=True, eq=False)
class Planes:
    """Spikes or counts: plane k has bit k of the numbers, as words (ceil(C / 32), H, W, T, B)."""

    planes: tuple[Words, ...]
    channels: int


@dataclass(frozen=True, eq=False)
class Data:
    """The data, (C, H, W, T or 1, B); of one step: the same at each."""

    array: Integers


Signal = Planes | Data


def write_data(array: NDArray[Any], source: i.Input, values: Values, out: Integers) -> None:
    """Data as integers: scaled by a power of two, rounded to the nearest (halves to even) and cut off. EXACT.

    Parameters
    ----------
    array : ndarray, shape (B, *features) or (T, B, *features)
        The data; what is beyond float32 is cut off, as all that is too large.
    source : Input
        Their scale and their largest integer.
    values : ndarray of float32, shape (T or 1, B, C, H, W)
        Memory that is overwritten.
    out : ndarray of int32, shape (C, H, W, T or 1, B)
        Where the integers go.
    """
    with np.errstate(over="ignore"):
        np.copyto(values, array.reshape(values.shape), casting="unsafe")
        np.multiply(values, np.float32(2.0**source.shift), out=values)  # exact
    np.rint(values, out=values)
    np.clip(values, -source.most, source.most, out=values)
    np.copyto(out, values.transpose(2, 3, 4, 0, 1), casting="unsafe")


def as_data(array: NDArray[Any], source: i.Input, has_time: bool) -> Data:
    """Data ``(B, *features)``, or ``(T, B, *features)`` where they have time, as `write_data` has them."""
    steps, batch = array.shape[:2] if has_time else (1, len(array))
    values = np.empty((steps, batch, *source.features), np.float32)
    out = np.empty((*source.features, steps, batch), np.int32)
    write_data(array, source, values, out)
    return Data(out)


def batch_of(signal: Signal) -> int:
    """B."""
    return int((signal.array if isinstance(signal, Data) else signal.planes[0]).shape[4])
