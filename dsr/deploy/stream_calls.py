"""What the streams of float and of integer networks share: one thread at a time, frames, and samples by numbers."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.ops.arguments import as_array


class OneThread:
    """A stream's owner: ``with owner.call(function):`` refuses a thread while another one is in such a call."""

    def __init__(self, start: str) -> None:
        self.lock, self._start = Lock(), start

    def call(self, function: str) -> OneThread:
        """Begin a call, which the end of the block ends; RuntimeError if another thread is in one."""
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(
                f"{function}: another thread is using this stream; start one for each thread, with {self._start}"
            )
        return self

    def __enter__(self) -> None:
        """The lock is held already."""

    def __exit__(self, *_: object) -> None:
        """Let the next call begin."""
        self.lock.release()


def frames_of(function: str, frames: ArrayLike, batch: int, features: tuple[int, ...], several: bool) -> NDArray[Any]:
    """A frame ``(B, *features)``, or `several`, ``(S, B, *features)``; ValueError if they have another shape.

    The axis of a single sample, B = 1, may be left out.
    """
    name, axes = ("frames", 1) if several else ("frame", 0)
    array = as_array(function, name, frames)
    if batch == 1 and array.shape[axes:] == features:
        array = np.expand_dims(array, axes)
    if array.shape[axes:] != (batch, *features) or 0 in array.shape[:axes]:
        wanted = ", ".join(map(str, (batch, *features)))
        wanted = f"(S, {wanted}) with S >= 1" if several else f"({wanted})"
        raise ValueError(f"{function}: argument '{name}': expected shape {wanted}, got {array.shape}")
    return array


def numbers_of(function: str, samples: Any, batch: int) -> NDArray[np.int64]:
    """The argument 'samples', numbers 0 to B - 1, none for all; TypeError or ValueError if they are something else."""
    if samples is None:
        return np.arange(batch)
    numbers = np.atleast_1d(as_array(function, "samples", samples))
    if numbers.ndim != 1 or (numbers.dtype.kind not in "iu" and numbers.size):
        given = f"{numbers.dtype} of shape {numbers.shape}"
        raise TypeError(f"{function}: argument 'samples': expected numbers of samples, got {given}")
    bad = (numbers < 0) | (numbers >= batch)
    if bad.any():
        wanted = f"numbers 0 to {batch - 1}"
        raise ValueError(f"{function}: argument 'samples': expected {wanted}, got {int(numbers[bad][0])}")
    return numbers.astype(np.int64)
