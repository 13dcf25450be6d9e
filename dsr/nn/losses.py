"""Losses on output rates: ``loss(rates, targets) -> (value, gradient)``, the value a float, the gradient of the rates.

A loss of your own is a function with this contract. Those here check what they are given, compute in float64, and give
the gradient as float32, in the shape of the rates. A value that is not finite says that the rates were not.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.targets import as_labels, as_pair, as_shares
from dsr.ops import Values
from dsr.ops.arguments import LARGEST, as_array, as_number, shown


def cross_entropy(
    rates: ArrayLike,
    labels: ArrayLike,
    label_smoothing: float = 0.0,
    *,
    class_weights: ArrayLike | None = None,
    ignore_label: int | None = None,
) -> tuple[float, Values]:
    """Softmax cross-entropy, mean over the batch: one class per sample, or one per pixel of image-shaped rates.

    Parameters
    ----------
    rates : array_like, shape (B, classes) or (B, classes, H, W)
        Output of a network.
    labels : array_like of int, shape (B,) or (B, H, W)
        True classes. Or of float, in the shape of the rates: shares of the classes, numbers >= 0 whose sum is 1, such
        as those of mixed samples.
    label_smoothing : float
        Share of the target spread over all classes, in [0, 1).
    class_weights : array_like, shape (classes,), optional
        Numbers >= 0 by which the terms of the classes are multiplied; the mean is then the weighted one.
    ignore_label : int, optional
        Samples or pixels of this label have no part in the value and no gradient. It need not be a class. None with
        shares of the classes.

    Returns
    -------
    loss : float
        Not finite where the rates are not; 0 where all labels are ignored or have the weight 0.
    grad_rate : ndarray of float32
        In the shape of the rates.

    Raises
    ------
    TypeError, ValueError
        These are no numbers, shapes do not fit, or a label is no class.

    Notes
    -----
    ``sum_i sum_c w[c] target[i, c] -log softmax(rates[i])[c] / sum_i w[labels[i]]`` with the target ``(1 -
    label_smoothing)`` of the true class plus ``label_smoothing / classes`` everywhere; as in PyTorch. With
    shares, the target is ``(1 - label_smoothing)`` of them plus the same; the sum is divided by the number of rows.
    """
    name = "cross_entropy"
    label_smoothing = as_number(
        name, "label_smoothing", label_smoothing, lambda share: 0 <= share < 1, "a number in [0, 1)"
    )
    shares = as_shares(name, rates, labels, ignore_label)
    if shares is None:
        values, targets, kept = as_labels(name, rates, labels, ignore_label)
    else:
        values, kept = shares[0], np.ones(len(shares[1]), np.bool_)
    classes = values.shape[1]
    pixels = np.moveaxis(values, 1, -1)  # a row of scores for each label
    rows = pixels.reshape(-1, classes)[kept]
    wanted = np.full((len(rows), classes), label_smoothing / classes)
    total: NDArray[np.float64] | float = 1.0
    norm: float = len(rows)
    if shares is None:
        chosen = targets[kept]
        wanted[np.arange(len(rows)), chosen] += 1 - label_smoothing
    else:
        wanted += (1 - label_smoothing) * shares[1]
        total = wanted.sum(axis=1, keepdims=True)  # given shares need not have exactly the sum 1
    if class_weights is not None:
        weights = _class_weights(class_weights, classes)
        wanted *= weights
        total = wanted.sum(axis=1, keepdims=True)
        if shares is None:
            norm = float(weights[chosen].sum())
    grad = np.zeros((len(kept), classes), np.float32)
    loss = 0.0
    if norm > 0:
        log_probability = _log_softmax(rows)
        with np.errstate(invalid="ignore"):
            loss = float(-(wanted * log_probability).sum() / norm)
            grad[kept] = (total * np.exp(log_probability) - wanted) / norm
    return loss, np.ascontiguousarray(np.moveaxis(grad.reshape(pixels.shape), -1, 1))


def soft_cross_entropy(rates: ArrayLike, targets: ArrayLike) -> tuple[float, Values]:
    """Cross-entropy with the softmax of other outputs, such as those of a teacher, mean over the batch.

    Parameters
    ----------
    rates : array_like, shape (B, classes) or (B, classes, H, W)
        Output of a network.
    targets : array_like
        Outputs, finite numbers in the shape of the rates.

    Returns
    -------
    loss : float
        Not finite where the rates are not.
    grad_rate : ndarray of float32
        ``(softmax(rates) - softmax(targets)) / rows``, in the shape of the rates; rows are samples, or their pixels.

    Raises
    ------
    TypeError, ValueError
        These are no numbers, shapes do not fit, or a target is not finite.
    """
    values, scores = as_pair("soft_cross_entropy", rates, targets)
    classes = values.shape[1]
    rows, others = (np.moveaxis(array, 1, -1).reshape(-1, classes) for array in (values, scores))
    log_probability, share = _log_softmax(rows), np.exp(_log_softmax(others))
    with np.errstate(invalid="ignore"):
        loss = float(-(share * log_probability).sum() / len(rows))
        grad = ((np.exp(log_probability) - share) / len(rows)).astype(np.float32)
    pixels = np.moveaxis(values, 1, -1).shape
    return loss, np.ascontiguousarray(np.moveaxis(grad.reshape(pixels), -1, 1))


def mse(rates: ArrayLike, targets: ArrayLike) -> tuple[float, Values]:
    """Mean squared error over all outputs of all samples, for real targets.

    Parameters
    ----------
    rates : array_like, shape (B, N) or (B, C, H, W)
        Output of a network. Those of neurons lie in [0, v_threshold]; a last layer without neurons, whose output is its
        mean current, gives any number.
    targets : array_like
        Finite numbers in the shape of the rates.

    Returns
    -------
    loss : float
        ``mean((rates - targets)**2)``; not finite where the rates are not.
    grad_rate : ndarray of float32
        ``2 (rates - targets) / rates.size``.

    Raises
    ------
    TypeError, ValueError
        These are no numbers, shapes do not fit, or a target is not finite.
    """
    values, wanted = as_pair("mse", rates, targets)
    with np.errstate(over="ignore", invalid="ignore"):
        error = values - wanted
        return float((error * error).sum() / error.size), (2 / error.size * error).astype(np.float32)


def binary_cross_entropy(rates: ArrayLike, targets: ArrayLike, midpoint: float = 0.0) -> tuple[float, Values]:
    """Sigmoid cross-entropy, mean over all outputs of all samples: labels of which any number may be true at once.

    Parameters
    ----------
    rates : array_like, shape (B, N) or (B, C, H, W)
        Output of a network. The rate less `midpoint` is the logit, so the probability of a label is
        ``1 / (1 + exp(midpoint - rate))``.
    targets : array_like
        0 and 1, or probabilities in between, in the shape of the rates.
    midpoint : float
        The rate at which a label is as likely as not. Rates of neurons lie in [0, v_threshold]: with 0 no label could
        be less likely than 1/2, so take ``v_threshold / 2``. 0 fits a last layer without neurons, whose output is its
        mean current, which may be negative.

    Returns
    -------
    loss : float
        Not finite where the rates are not.
    grad_rate : ndarray of float32
        ``(probability - targets) / rates.size``.

    Raises
    ------
    TypeError, ValueError
        These are no numbers, shapes do not fit, or a target is not in [0, 1].
    """
    values, wanted = as_pair("binary_cross_entropy", rates, targets)
    if not (wanted.min() >= 0 and wanted.max() <= 1):
        given = f"{wanted.min():g} to {wanted.max():g}"
        raise ValueError(f"binary_cross_entropy: argument 'targets': expected numbers in [0, 1], got {given}")
    logits = values - as_number("binary_cross_entropy", "midpoint", midpoint, lambda m: -inf < m < inf, "a number")
    with np.errstate(over="ignore", invalid="ignore"):
        small = np.exp(-np.abs(logits))  # in (0, 1]: nothing overflows
        loss = np.maximum(logits, 0) - logits * wanted + np.log1p(small)
        probability = np.where(logits >= 0, 1, small) / (1 + small)
        return float(loss.sum() / loss.size), ((probability - wanted) / loss.size).astype(np.float32)


def _log_softmax(rows: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        shifted = rows.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _class_weights(class_weights: ArrayLike, classes: int) -> NDArray[np.float64]:
    weights = as_array("cross_entropy", "class_weights", class_weights).astype(np.float64)
    if weights.shape != (classes,) or not ((weights >= 0) & (weights <= LARGEST)).all():
        given = f"shape {weights.shape}" if weights.shape != (classes,) else shown(weights.tolist())
        raise ValueError(
            f"cross_entropy: argument 'class_weights': expected {classes} numbers >= 0, one per class, got {given}"
        )
    return weights
