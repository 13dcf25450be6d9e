"""Checks of what losses and metrics are given: rates of a network, and what they should have been."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.ops.arguments import as_array, as_class_numbers, as_number


def as_scores(function: str, rates: ArrayLike) -> NDArray[Any]:
    """`rates` as an array of at least one sample, samples first."""
    values = as_array(function, "rates", rates)
    if values.ndim < 2 or values.size == 0:
        wanted = "expected (B, N) or (B, C, H, W) with at least one sample"
        raise ValueError(f"{function}: argument 'rates': {wanted}, got shape {values.shape}")
    return values


def as_pair(function: str, rates: ArrayLike, targets: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates, and finite targets of their shape."""
    values, wanted = as_scores(function, rates), as_array(function, "targets", targets)
    if wanted.shape != values.shape:
        hint = ""
        if (*wanted.shape, 1) == values.shape:
            hint = "; .reshape(-1, 1) makes it one target per sample and output"
        elif wanted.shape == values.shape[:1] and wanted.dtype.kind in "iu":
            hint = "; np.eye(N)[labels] makes a row of 0 and 1 of each class number"
        raise ValueError(
            f"{function}: argument 'targets': expected shape {values.shape} as 'rates', got {wanted.shape}{hint}"
        )
    finite = np.isfinite(wanted)
    if not finite.all():
        place = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), wanted.shape))
        raise ValueError(f"{function}: argument 'targets': expected finite numbers, got {wanted[place]} at {place}")
    return values.astype(np.float64), wanted.astype(np.float64)


def as_labels(
    function: str, rates: ArrayLike, labels: ArrayLike, ignore_label: int | None = None
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.bool_]]:
    """Rates (B, classes, ...), class numbers of all samples or pixels in a row, and which of them count."""
    values, given = as_scores(function, rates), as_array(function, "labels", labels)
    expected = (len(values), *values.shape[2:])
    if values.ndim > 2 and given.shape != expected:
        raise ValueError(
            f"{function}: argument 'labels': expected shape {expected}, one class per pixel, got {given.shape}"
        )
    flat = given if values.ndim == 2 else given.reshape(-1)
    ignored = np.zeros(flat.shape, np.bool_)
    if ignore_label is not None:
        number = as_number(function, "ignore_label", ignore_label, lambda value: value % 1 == 0, "an integer")
        ignored = np.asarray(flat == number)
        flat = np.where(ignored, flat.dtype.type(0), flat)
    numbers = as_class_numbers(function, "labels", flat, values.size // values.shape[1], values.shape[1])
    return values, numbers, ~ignored


def as_shares(
    function: str, rates: ArrayLike, labels: ArrayLike, ignore_label: int | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """Rates (B, classes, ...), and a row of shares of the classes for each sample or pixel.

    None where `labels` are none, since they are integers or have not the shape of the rates.
    """
    values, given = as_scores(function, rates), as_array(function, "labels", labels)
    if given.dtype.kind != "f" or given.shape != values.shape:
        return None
    if ignore_label is not None:
        raise ValueError(
            f"{function}: argument 'ignore_label': expected None with shares of the classes, got {ignore_label}"
        )
    rows = np.moveaxis(given, 1, -1).reshape(-1, given.shape[1]).astype(np.float64)
    wrong = ~((rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) <= 1e-3))
    if wrong.any():
        row = rows[np.argmax(wrong)]
        raise ValueError(
            f"{function}: argument 'labels': expected shares of the classes, numbers >= 0 whose sum is 1, got a row "
            f"with the sum {row.sum():g} and the smallest number {row.min():g}"
        )
    return values, rows
