"""What the steps of an integer network write: spikes and counts as planes of bits, or the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsr import ops
from dsr.ops import Integers, Words


@dataclass(frozen=True, eq=False)
class Planes:
    """Spikes or counts: plane k has bit k of the numbers, as words (ceil(C / 32), H, W, T, B)."""

    planes: tuple[Words, ...]
    channels: int

    def numbers(self) -> Integers:
        """Unpacked, (C, H, W, T, B)."""
        parts = [ops.unpack_words(words, self.channels, 2.0**k) for k, words in enumerate(self.planes)]
        return np.asarray(sum(parts[1:], parts[0])).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Data:
    """The data, (C, H, W, T or 1, B); of one step: the same at each."""

    array: Integers

    def numbers(self) -> Integers:
        """The array."""
        return self.array


Signal = Planes | Data


def batch_of(signal: Signal) -> int:
    """B."""
    return int((signal.array if isinstance(signal, Data) else signal.planes[0]).shape[4])
