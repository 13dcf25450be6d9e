"""Batches of samples that lie along one axis of an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray


def batches_of(array: NDArray[Any], axis: int, size: int) -> Iterator[NDArray[Any]]:
    """Copies of at most `size` samples along `axis`, in order; none of no samples."""
    count = array.shape[axis]
    for first in range(0, count, size):
        yield array.take(range(first, min(first + size, count)), axis)
