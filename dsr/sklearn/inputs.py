"""Checks of what estimators are given: those of scikit-learn, with function and argument in front of their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_array,
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from dsr.ops.arguments import LARGEST, shown


@contextmanager
def _argument(estimator: Any, function: str, name: str) -> Iterator[None]:
    """Give errors of the checks inside the names of function and argument."""
    try:
        yield
    except Exception as error:  # an object of the user's may raise anything
        kind = TypeError if isinstance(error, TypeError) else ValueError
        in_a_line = " ".join(str(error).split())  # scikit-learn's messages have several lines
        raise kind(f"{type(estimator).__name__}.{function}: argument '{name}': {in_a_line}") from None


def as_samples(function: str, estimator: Any, X: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """X as a matrix of finite numbers, and the relative spacing of the floats that it was given in.

    `fit` sets the number and the names of the columns, other functions compare them.
    """
    fitting = function == "fit"
    with _argument(estimator, function, "X"):
        given = validate_data(estimator, X, dtype="numeric", reset=fitting, ensure_min_samples=2 if fitting else 1)
        spacing = np.finfo(given.dtype).eps if given.dtype.kind == "f" else 0
        return given.astype(np.float64), float(spacing)


def as_classes(estimator: Any, y: ArrayLike | None, samples: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The labels, sorted, and for each sample the number of its label."""
    with _argument(estimator, "fit", "y"):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        # as objects first: NumPy makes strings of a list of numbers and strings
        labels = column_or_1d(y if hasattr(y, "dtype") else np.array(y, object), warn=True)
        if labels.dtype == object:
            kinds = {_kind(label) for label in labels}
            if kinds not in ({"number"}, {"str"}):
                raise ValueError(f"expected labels that are all numbers or all strings, got {', '.join(sorted(kinds))}")
            labels = np.array(labels.tolist())
        assert_all_finite(labels, input_name="y")
        check_consistent_length(samples, labels)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"expected at least 2 classes, got 1 class: {classes}")
    return classes, codes


def as_reals(estimator: Any, y: ArrayLike | None, samples: NDArray[Any]) -> NDArray[np.float64]:
    """The targets as finite numbers whose squares are finite, (samples,) or (samples, outputs)."""
    with _argument(estimator, "fit", "y"):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        targets = check_array(
            y, dtype="numeric", ensure_2d=False, ensure_min_samples=0, ensure_min_features=0, input_name="y"
        ).astype(np.float64)
        if targets.ndim == 0 or targets.shape[1:] == (0,):
            raise ValueError(f"expected shape (samples,) or (samples, outputs), got {targets.shape}")
        check_consistent_length(samples, targets)
        if not np.abs(targets).max() <= LARGEST:
            raise ValueError(f"expected numbers up to 2**126, got {np.abs(targets).max():g}")
    return targets


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "str"
    if isinstance(label, Real) and label != label:
        return "NaN"
    return "number" if isinstance(label, Real | np.bool_) else type(label).__name__


def as_generator(estimator: Any) -> np.random.Generator:
    """The generator of the estimator's `random_state`; a new one of an integer."""
    random_state = estimator.random_state
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if random_state is not None:
        expected = "an integer >= 0, a generator or None"
        require(estimator, "random_state", random_state, lambda s: is_integer(s) and s >= 0, expected)
    return np.random.default_rng(random_state)


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require(estimator: Any, name: str, value: Any, good: Callable[[Any], bool], expected: str) -> None:
    """Raise ValueError unless `good` holds for the value of a parameter."""
    if not good(value):
        raise ValueError(f"{type(estimator).__name__}: argument '{name}': expected {expected}, got {shown(value)}")
