"""Losses on output rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dsr.ops import Values
from dsr.ops.arguments import as_array, as_class_numbers, as_number


def cross_entropy(rates: ArrayLike, labels: ArrayLike, label_smoothing: float = 0.0) -> tuple[float, Values]:
    """Softmax cross-entropy, mean over the batch.

    Parameters
    ----------
    rates : array_like, shape (B, classes)
        Output of a network.
    labels : array_like of int, shape (B,)
        True classes.
    label_smoothing : float
        Share of the target spread over all classes, in [0, 1).

    Returns
    -------
    loss : float
        Not finite where the rates are not.
    grad_rate : ndarray of float32, shape (B, classes)

    Raises
    ------
    TypeError, ValueError
        These are no numbers, shapes do not fit, or a label is no class.
    """
    rates = as_array("cross_entropy", "rates", rates)
    if rates.ndim != 2 or rates.shape[1] == 0:
        raise ValueError(f"cross_entropy: argument 'rates': expected shape (B, classes), got {rates.shape}")
    batch, classes = rates.shape
    if batch == 0:
        raise ValueError("cross_entropy: argument 'rates': expected at least one sample, got none")
    targets = as_class_numbers("cross_entropy", "labels", labels, batch, classes)
    label_smoothing = as_number(
        "cross_entropy", "label_smoothing", label_smoothing, lambda share: 0 <= share < 1, "a number in [0, 1)"
    )
    wanted = np.full((batch, classes), label_smoothing / classes)
    wanted[np.arange(batch), targets] += 1 - label_smoothing
    with np.errstate(invalid="ignore"):
        shifted = rates.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        loss = -(wanted * log_probability).sum() / batch
    return float(loss), ((np.exp(log_probability) - wanted) / batch).astype(np.float32)
