"""Comparisons and random arrays that several tests use."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_same(actual: Any, expected: Any) -> None:
    """Equal values (NaN equals NaN), shapes and dtypes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if not np.array_equal(actual, expected, equal_nan=actual.dtype.kind == "f"):
        different = ~((actual == expected) | ((actual != actual) & (expected != expected)))
        where = np.argwhere(different)
        raise AssertionError(
            f"{len(where)} of {actual.size} elements differ, first at {where[0]}: "
            f"{actual[tuple(where[0])]!r} instead of {expected[tuple(where[0])]!r}"
        )


def sum_in_contract_order(values: np.ndarray) -> float:
    """Sum of a line of numbers as dsr.h promises it: 16 partial sums in double, added in order."""
    partial = [0.0] * 16
    with np.errstate(all="ignore"):
        for i, value in enumerate(values.ravel().tolist()):
            partial[i % 16] += value
    total = 0.0
    for part in partial:
        total += part
    return total


def normal(shape: Any, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dyadic(rng: np.random.Generator, shape: Any, most: int = 64) -> np.ndarray:
    """Multiples of 1/64 below `most` / 64, whose sums and products are exact in float32 and float64."""
    return (rng.integers(-most, most, size=shape) / 64).astype(np.float32)
