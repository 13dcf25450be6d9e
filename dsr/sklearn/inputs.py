"""Checks of what the classifier is given: those of scikit-learn, with function and argument in front of their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d, validate_data

from dsr.ops.arguments import shown


@contextmanager
def _argument(function: str, name: str) -> Iterator[None]:
    """Give errors of the checks inside the names of function and argument."""
    try:
        yield
    except Exception as error:  # an object of the user's may raise anything
        kind = TypeError if isinstance(error, TypeError) else ValueError
        in_a_line = " ".join(str(error).split())  # scikit-learn's messages have several lines
        raise kind(f"SpikingClassifier.{function}: argument '{name}': {in_a_line}") from None


def as_samples(function: str, estimator: Any, X: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """X as a matrix of finite numbers, and the relative spacing of the floats that it was given in.

    `fit` sets the number and the names of the columns, other functions compare them.
    """
    fitting = function == "fit"
    with _argument(function, "X"):
        given = validate_data(estimator, X, dtype="numeric", reset=fitting, ensure_min_samples=2 if fitting else 1)
        spacing = np.finfo(given.dtype).eps if given.dtype.kind == "f" else 0
        return given.astype(np.float64), float(spacing)


def as_classes(y: ArrayLike | None, samples: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The labels, sorted, and for each sample the number of its label."""
    with _argument("fit", "y"):
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


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "str"
    if isinstance(label, Real) and label != label:
        return "NaN"
    return "number" if isinstance(label, Real | np.bool_) else type(label).__name__


def as_generator(random_state: Any) -> np.random.Generator:
    """The generator of a `random_state`; a new one of an integer."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    if random_state is not None:
        require(
            "random_state", random_state, lambda s: is_integer(s) and s >= 0, "an integer >= 0, a generator or None"
        )
    return np.random.default_rng(random_state)


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require(name: str, value: Any, good: Callable[[Any], bool], expected: str) -> None:
    """Raise ValueError unless `good` holds for the value of a parameter."""
    if not good(value):
        raise ValueError(f"SpikingClassifier: argument '{name}': expected {expected}, got {shown(value)}")
