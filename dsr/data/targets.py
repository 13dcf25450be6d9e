"""What samples are trained towards: one class, several labels, or real values each."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.ops.arguments import as_array, as_class_numbers, require_finite

Task = Literal["classification", "multilabel", "regression", "other"]


def as_targets(
    function: str, name: str, targets: ArrayLike, count: int, task: Task = "classification", outputs: int | None = None
) -> NDArray[Any]:
    """The targets of `count` samples, or an error that names function and argument.

    Parameters
    ----------
    function, name : str
        For errors.
    targets : array_like
        As `task` wants them.
    count : int
        Number of samples.
    task : {"classification", "multilabel", "regression", "other"}
        One class number for each sample, (N,); which labels a sample has, (N, K) of booleans or of 0 and 1; real
        values, (N,), which become (N, 1), or (N, ...); or any numbers, (N, ...), which only a loss of your own reads.
    outputs : int, optional
        Number of classes, labels or values that there are.

    Returns
    -------
    ndarray of int64, bool, float32, or of the given dtype

    Raises
    ------
    TypeError, ValueError
        The targets are not like this.
    """
    if task == "classification":
        return as_class_numbers(function, name, targets, count, outputs)
    found = as_array(function, name, targets)
    if found.ndim == 0 or len(found) != count:
        raise ValueError(f"{function}: argument '{name}': expected targets of {count} samples, got shape {found.shape}")
    if task == "multilabel":
        wanted = f"expected {count} rows of true and false (or 1 and 0), a column for each label"
        if found.ndim != 2 or not ((found == 0) | (found == 1)).all():
            raise ValueError(f"{function}: argument '{name}': {wanted}, got {found.dtype} of shape {found.shape}")
        found = found.astype(bool)
    elif task == "regression":
        require_finite(function, name, found)
        with np.errstate(over="ignore"):
            found = (found[:, np.newaxis] if found.ndim == 1 else found).astype(np.float32)
        require_finite(function, name, found)
    if outputs is not None and task != "other" and found.shape[1] != outputs:
        raise ValueError(
            f"{function}: argument '{name}': expected {outputs} columns, one for each output, got shape {found.shape}"
        )
    return found
