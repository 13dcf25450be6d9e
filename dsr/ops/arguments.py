"""What functional does before and after the compiled call: any array in, the array asked for out."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real as RealNumber
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.floating[Any]]


def as_array(function: str, name: str, value: ArrayLike, *, least_axes: int = 0) -> NDArray[Any]:
    """`value` as a NumPy array of numbers, or an error that names function and argument.

    What NumPy takes is taken; so are arrays of other libraries that know only DLPack, without a copy.
    """
    try:
        given: Any = value
        only_dlpack = hasattr(given, "__dlpack__") and not hasattr(given, "__array__")
        array = np.from_dlpack(given) if only_dlpack else np.asarray(given)
    except Exception as error:  # an object of the user's may raise anything
        kind = type(value).__name__
        raise TypeError(f"{function}: argument '{name}': expected an array of real numbers, got {kind}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{function}: argument '{name}': expected real numbers, got dtype {array.dtype}")
    if array.ndim < least_axes:
        axes = "time first, (T, ...)" if least_axes == 1 else f"at least {least_axes} axes"
        raise ValueError(f"{function}: argument '{name}': expected {axes}, got shape {array.shape}")
    return array


def require_finite(function: str, name: str, array: NDArray[Any]) -> None:
    """Raise ValueError, with the first place, if a value of `array` is not finite."""
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), array.shape))
        raise ValueError(
            f"{function}: argument '{name}': expected finite values, got {array[place]} at {place}, one of "
            f"{array.size - int(np.count_nonzero(finite))}"
        )


def common_real(function: str, **arrays: NDArray[Any]) -> np.dtype[np.floating[Any]]:
    """The float dtype that holds all `arrays`: float32 where nothing is lost by it, else float64."""
    # of dtypes, not of arrays: NumPy 1 would take a 0-d float64 for a Python number
    dtype = np.result_type(np.float32, *(array.dtype for array in arrays.values()))
    if dtype not in (np.float32, np.float64):
        given = ", ".join(f"'{name}' of {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{function}: expected values that fit float32 or float64, got {given}")
    return np.dtype(dtype)


def shown(value: Any) -> str:
    """What a message says of an argument: numbers, texts and tuples of them as they are, in a line; else their kind."""
    plain = RealNumber | str | np.generic | None
    parts = value[:80] if isinstance(value, tuple | list) else (value,)
    if not all(isinstance(part, plain) for part in parts):
        return type(value).__name__
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits has no decimal form
        return f"an integer of {int(value).bit_length()} bits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_number(function: str, name: str, value: Any, good: Callable[[float], bool], expected: str) -> float:
    """`value` as a float for which `good` holds, or an error that names function and argument."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if not isinstance(value, RealNumber | np.bool_):
        raise TypeError(f"{function}: argument '{name}': expected {expected}, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = float("nan")
    if not good(number):
        raise ValueError(f"{function}: argument '{name}': expected {expected}, got {shown(value)}")
    return number


SMALLEST, LARGEST = 2.0**-126, 2.0**126
"""Of the positive numbers that the compiled part takes: they have room in float32."""


def as_positive(function: str, name: str, value: float) -> float:
    """`value` as a number from `SMALLEST` to `LARGEST`."""
    number = as_number(function, name, value, lambda x: x > 0, "a number > 0")
    return as_number(function, name, number, lambda x: SMALLEST <= x <= LARGEST, "a number in [2**-126, 2**126]")


def as_positives(function: str, name: str, values: ArrayLike) -> NDArray[Any]:
    """`values`, one for each channel, as numbers from `SMALLEST` to `LARGEST`."""
    array = as_array(function, name, values)
    bad = ~((array >= SMALLEST) & (array <= LARGEST))
    if array.ndim != 1 or bad.any():
        given = f"shape {array.shape}" if array.ndim != 1 else f"{array[bad][0]} of channel {bad.argmax()}"
        wanted = "a number for each channel, all in [2**-126, 2**126]"
        raise ValueError(f"{function}: argument '{name}': expected {wanted}, got {given}")
    return array


def as_flag(function: str, name: str, value: Any) -> bool:
    """`value` as True or False, or an error that names function and argument."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{function}: argument '{name}': expected True or False, got {shown(value)}")


def as_count(function: str, name: str, value: Any, least: int = 1) -> int:
    """`value` as an integer in ``[least, 2**31)``, or an error that names function and argument."""
    try:
        count = operator.index(value)
    except Exception as error:  # an object of the user's may raise anything
        wanted = f"expected an integer >= {least}, got {shown(value)}"
        raise TypeError(f"{function}: argument '{name}': {wanted}") from error
    if not least <= count < 2**31:
        wanted = f"an integer >= {least}" if count < least else f"an integer in [{least}, 2**31)"
        raise ValueError(f"{function}: argument '{name}': expected {wanted}, got {shown(count)}")
    return count


def as_counts(function: str, **arguments: int) -> list[int]:
    """The arguments as integers >= 1, or an error that names function and argument."""
    return [as_count(function, name, value) for name, value in arguments.items()]


def as_pair(function: str, name: str, value: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """An integer for both axes of an image, or one for each, (vertical, horizontal)."""
    if not isinstance(value, tuple | list):
        number = as_count(function, name, value, least)
        return number, number
    if len(value) != 2:
        raise ValueError(f"{function}: argument '{name}': expected an integer or two, got {shown(value)}")
    vertical, horizontal = (as_count(function, name, number, least) for number in value)
    return vertical, horizontal


def as_class_numbers(
    function: str, name: str, labels: ArrayLike, count: int, classes: int | None = None
) -> NDArray[np.int64]:
    """One class number for each of `count` samples, or an error that names function and argument.

    Integers only: a fraction or NaN would become some class, and a second axis would be compared with all samples.
    Without `classes` any number in ``[0, 2**31)`` is taken.
    """
    found = as_array(function, name, labels)
    if found.shape != (count,) or (found.dtype.kind not in "iu" and count > 0):
        hint = ""
        if found.shape == (count, 1):
            hint = "; .reshape(-1) removes the second axis"
        elif found.ndim == 2 and len(found) == count:
            hint = "; .argmax(axis=1) makes class numbers of one-hot rows"
        elif found.shape == (count,) and np.isfinite(found).all() and (found == np.floor(found)).all():
            hint = "; .astype(int) makes integers of whole numbers"
        raise ValueError(
            f"{function}: argument '{name}': expected {count} integers, one per sample, got {found.dtype} of shape "
            f"{found.shape}{hint}"
        )
    largest = 2**31 if classes is None else classes
    if count > 0 and not (found.min() >= 0 and found.max() < largest):
        raise ValueError(
            f"{function}: argument '{name}': expected classes 0 to {largest - 1}, got {found.min()} to {found.max()}"
        )
    return found.astype(np.int64)


def contiguous(array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`array` as the compiled part takes it: contiguous, aligned, native `dtype`, reshaped; copied only if needed."""
    return np.require(array, dtype, ["C", "A"]).reshape(shape)


class Output:
    """The result array of a call: a new one, or the user's `out=` however it lies in memory.

    `buffer` is what the compiled part writes; `finish` gives the array to return.
    """

    def __init__(
        self,
        function: str,
        out: NDArray[Any] | None,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        flat: tuple[int, ...],
        inputs: tuple[NDArray[Any], ...],
        name: str = "out",
    ) -> None:
        if out is not None:
            if not isinstance(out, np.ndarray):
                raise TypeError(f"{function}: argument '{name}': expected an array, got {type(out).__name__}")
            if (out.dtype.kind, out.dtype.itemsize) != (dtype.kind, dtype.itemsize):
                raise TypeError(f"{function}: argument '{name}': expected dtype {dtype}, got {out.dtype}")
            if out.shape != shape:
                raise ValueError(f"{function}: argument '{name}': expected shape {shape}, got {out.shape}")
            if not out.flags.writeable:
                raise ValueError(f"{function}: argument '{name}': expected a writable array, got a read-only one")
            if any(stride == 0 and size > 1 for stride, size in zip(out.strides, out.shape, strict=True)):
                raise ValueError(
                    f"{function}: argument '{name}': expected an element for each result, got strides {out.strides}"
                )
        self.out = out
        usable = (
            out is not None
            and out.flags.c_contiguous
            and out.flags.aligned
            and out.dtype.isnative
            and not any(np.may_share_memory(out, array) for array in inputs)
        )
        self.result: NDArray[Any] = out if usable and out is not None else np.empty(shape, dtype)
        self.buffer = self.result.reshape(flat)

    def finish(self) -> NDArray[Any]:
        """The user's array, filled, or the new one."""
        if self.out is None or self.out is self.result:
            return self.result
        self.out[...] = self.result
        return self.out
