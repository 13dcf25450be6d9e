"""What a classifier is given, checked; in the words of scikit-learn where users and its own checks look for them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.ops.arguments import as_array, shown


def as_samples(function: str, X: ArrayLike) -> NDArray[np.float64]:
    """X as a matrix of finite numbers; in the words of scikit-learn where its checks look for them."""
    place = f"SpikingClassifier.{function}: argument 'X'"
    if hasattr(X, "tocsr"):
        raise TypeError(f"{place}: expected a dense array, got a sparse matrix; use X.toarray()")
    only_dlpack = hasattr(X, "__dlpack__") and not hasattr(X, "__array__")
    given = as_array(place, "X", X) if only_dlpack else _made_array(place, X)
    if given.dtype.kind == "c":
        raise ValueError(f"{place}: Complex data not supported, got {given.dtype}")
    try:
        array = given.astype(np.float64)
    except Exception as error:  # of an object of the user's
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{place}: expected real numbers: {error}") from None
    if array.ndim != 2:
        raise ValueError(
            f"{place}: expected shape (samples, features), got {array.shape}. Reshape your data: X.reshape(-1, 1) if "
            "it has a single feature, X.reshape(1, -1) if it is a single sample"
        )
    least = 2 if function == "fit" else 1
    if len(array) < least:
        raise ValueError(f"{place}: expected at least {least} samples, got {len(array)} sample(s)")
    if array.shape[1] == 0:
        raise ValueError(f"{place}: 0 feature(s) (shape={array.shape}) while a minimum of 1 is required.")
    if not np.isfinite(array).all():
        raise ValueError(f"{place}: expected finite numbers, got NaN or inf")
    return array


def as_labels(y: ArrayLike | None, count: int, function: str = "fit") -> NDArray[Any]:
    """Labels of `count` samples as a vector; numbers that are not whole are no labels."""
    place = f"SpikingClassifier.{function}: argument 'y'"
    if y is None:
        raise ValueError(f"{place}: SpikingClassifier requires y to be passed, but the target y is None")
    labels = _made_array(place, y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        message = "A column-vector y was passed when a 1d array was expected; it is taken as y.ravel()"
        warnings.warn(message, of_sklearn("DataConversionWarning", UserWarning), stacklevel=3)
        labels = labels.reshape(-1)
    if labels.shape != (count,):
        raise ValueError(f"{place}: expected a label a sample, shape ({count},), got {labels.shape}")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError(f"{place}: Input contains NaN or infinity")
        if (labels != np.floor(labels)).any():
            raise ValueError(f"{place}: Unknown label type: expected classes, got numbers that are not whole")
    return labels


def _made_array(place: str, values: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except Exception as error:  # lists of different lengths; and an object of the user's may raise anything
        raise ValueError(f"{place}: expected an array, got {type(values).__name__} ({error})") from None


def column_names(X: Any) -> NDArray[Any] | None:
    """Names of the columns of a table, if all are strings."""
    columns = getattr(X, "columns", None)
    names = None if columns is None else list(columns)
    return np.array(names, object) if names and all(isinstance(name, str) for name in names) else None


def as_generator(random_state: Any) -> np.random.Generator:
    """The generator of a `random_state`; a new one of an integer."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if random_state is not None:
        require("random_state", random_state, lambda s: is_whole(s) and s >= 0, "an integer >= 0, a generator or None")
    return np.random.default_rng(random_state)


def is_whole(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require(name: str, value: Any, good: Callable[[Any], bool], expected: str) -> None:
    """Raise ValueError unless a parameter is good."""
    if not good(value):
        raise ValueError(f"SpikingClassifier: argument '{name}': expected {expected}, got {shown(value)}")


def of_sklearn(name: str, otherwise: type[Any]) -> type[Any]:
    """A class of ``sklearn.exceptions`` where scikit-learn has been imported, as by everyone who expects it."""
    kind = getattr(sys.modules.get("sklearn.exceptions"), name, otherwise)
    return kind if isinstance(kind, type) else otherwise
