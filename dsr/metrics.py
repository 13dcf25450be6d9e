"""Metrics by task, of output rates and what they should have been.

Classes: `accuracy`, `top_k_accuracy`. Real numbers: `mean_absolute_error`, `mean_squared_error`. Several labels at
once: `label_accuracy`, `f1_score`. Rates that are not finite are a ValueError: they would count as some answer.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.targets import as_labels, as_pair
from dsr.ops.arguments import as_count, as_number, require_finite

__all__ = ["accuracy", "f1_score", "label_accuracy", "mean_absolute_error", "mean_squared_error", "top_k_accuracy"]


def accuracy(rates: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None) -> float:
    """Share of the samples, or of the pixels, whose class has the largest rate.

    Parameters
    ----------
    rates : array_like, shape (B, classes) or (B, classes, H, W)
        Output of a network. Of several equal rates the first counts, as in `dsr.Network.predict`.
    labels : array_like of int, shape (B,) or (B, H, W)
        True classes.
    ignore_label : int, optional
        Samples or pixels of this label do not count.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    TypeError, ValueError
        These are no finite numbers, shapes do not fit, a label is no class, or all are ignored.
    """
    return _top_k("accuracy", rates, labels, 1, ignore_label)


def top_k_accuracy(rates: ArrayLike, labels: ArrayLike, k: int = 5, *, ignore_label: int | None = None) -> float:
    """Share of the samples whose class is among those of the `k` largest rates; otherwise as `accuracy`."""
    return _top_k("top_k_accuracy", rates, labels, as_count("top_k_accuracy", "k", k), ignore_label)


def mean_absolute_error(rates: ArrayLike, targets: ArrayLike) -> float:
    """Mean of ``|rates - targets|`` over all outputs of all samples.

    Parameters
    ----------
    rates : array_like, shape (B, N) or (B, C, H, W)
        Output of a network.
    targets : array_like
        Finite numbers in the shape of the rates.

    Raises
    ------
    TypeError, ValueError
        These are no finite numbers, or shapes do not fit.
    """
    return float(np.abs(_difference("mean_absolute_error", rates, targets)).mean())


def mean_squared_error(rates: ArrayLike, targets: ArrayLike) -> float:
    """Mean of ``(rates - targets)**2`` over all outputs of all samples; otherwise as `mean_absolute_error`."""
    return float((_difference("mean_squared_error", rates, targets) ** 2).mean())


def label_accuracy(rates: ArrayLike, targets: ArrayLike, midpoint: float = 0.0) -> NDArray[np.float64]:
    """For each label, the share of the samples for which it is rightly found or rightly not found.

    Parameters
    ----------
    rates : array_like, shape (B, N) or (B, C, H, W)
        Output of a network. A label is found where its rate is above `midpoint`.
    targets : array_like of 0 and 1
        Whether the label is there, in the shape of the rates.
    midpoint : float
        As of `dsr.binary_cross_entropy`.

    Returns
    -------
    ndarray of float64, shape (N,) or (C,)
        Over all pixels, where there are some.

    Raises
    ------
    TypeError, ValueError
        These are no finite numbers, shapes do not fit, or a target is neither 0 nor 1.
    """
    found, true = _found("label_accuracy", rates, targets, midpoint)
    return np.asarray((found == true).mean(axis=1))


def f1_score(rates: ArrayLike, targets: ArrayLike, midpoint: float = 0.0) -> NDArray[np.float64]:
    """For each label, the harmonic mean of precision and recall, ``2 TP / (2 TP + FP + FN)``.

    NaN where a label neither occurs nor is found, so that nothing is known of it; `numpy.nanmean` averages the others.
    Arguments, shapes and errors are those of `label_accuracy`.
    """
    found, true = _found("f1_score", rates, targets, midpoint)
    both, either = (found & true).sum(axis=1), found.sum(axis=1) + true.sum(axis=1)
    return np.divide(2 * both, either, out=np.full(len(found), np.nan), where=either > 0)


def _top_k(function: str, rates: ArrayLike, labels: ArrayLike, k: int, ignore_label: int | None) -> float:
    values, numbers, kept = as_labels(function, rates, labels, ignore_label)
    require_finite(function, "rates", values)
    if not kept.any():
        raise ValueError(
            f"{function}: argument 'labels': expected a label that is not ignored, got {ignore_label} alone"
        )
    rows = np.moveaxis(values, 1, -1).reshape(len(numbers), -1)
    own = np.take_along_axis(rows, numbers[:, np.newaxis], axis=1)
    earlier = np.arange(rows.shape[1]) < numbers[:, np.newaxis]
    better = ((rows > own) | ((rows == own) & earlier)).sum(axis=1)
    return float((better[kept] < k).mean())


def _difference(function: str, rates: ArrayLike, targets: ArrayLike) -> NDArray[np.float64]:
    values, wanted = as_pair(function, rates, targets)
    require_finite(function, "rates", values)
    return values - wanted


def _found(
    function: str, rates: ArrayLike, targets: ArrayLike, midpoint: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which labels are found, and which are true, (labels, samples)."""
    values, wanted = as_pair(function, rates, targets)
    require_finite(function, "rates", values)
    middle = as_number(function, "midpoint", midpoint, lambda m: -inf < m < inf, "a number")
    wrong = (wanted != 0) & (wanted != 1)
    if wrong.any():
        raise ValueError(f"{function}: argument 'targets': expected 0 and 1, got {wanted[wrong][0]:g}")
    labels = values.shape[1]
    found, true = (np.moveaxis(array, 1, 0).reshape(labels, -1) for array in (values > middle, wanted != 0))
    return found, true
