"""Batches of samples that lie along one axis of an array."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray


def batches_of(array: NDArray[Any], axis: int, size: int) -> Iterator[NDArray[Any]]:
    """Views of at most `size` samples along `axis`, in order; none of no samples."""
    before = (slice(None),) * axis
    for first in range(0, array.shape[axis], size):
        yield array[(*before, slice(first, first + size))]
