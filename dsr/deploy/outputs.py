"""What output rates mean: classes by their names, labels, and probabilities; of float and of integer models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops import Values


def predictions(rates: Values, task: str, classes: Sequence[str]) -> NDArray[Any]:
    """The class of each sample, (B,), by its name or number; which labels are there, (B, K); or the rates themselves.

    Of outputs with more axes, (B, C, ...), the class numbers along axis 1.
    """
    if task == "multilabel":
        return rates > 0
    if task != "classification":
        return rates
    numbers = rates.argmax(axis=1)
    return np.array(classes)[numbers] if classes and rates.ndim == 2 else numbers


def probabilities(rates: Values, task: str) -> NDArray[np.float64]:
    """Softmax of the rates along axis 1, or of several labels the logistic function; see `require_probabilities`."""
    values = rates.astype(np.float64)
    if task == "multilabel":
        return np.exp(-np.logaddexp(0, -values))
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def require_probabilities(function: str, task: str) -> None:
    """ValueError where outputs are real values, which have no probabilities."""
    if task not in ("classification", "multilabel"):
        raise ValueError(f"{function}: expected a model of classes or labels, got one of {task}")
