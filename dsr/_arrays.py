"""What functional does before and after the compiled call: any array in, the array asked for out."""

from __future__ import annotations

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


def common_real(function: str, **arrays: NDArray[Any]) -> np.dtype[np.floating[Any]]:
    """The float dtype that holds all `arrays`: float32 where nothing is lost by it, else float64."""
    # of dtypes, not of arrays: NumPy 1 would take a 0-d float64 for a Python number
    dtype = np.result_type(np.float32, *(array.dtype for array in arrays.values()))
    if dtype not in (np.float32, np.float64):
        given = ", ".join(f"'{name}' of {array.dtype}" for name, array in arrays.items())
        raise TypeError(f"{function}: expected values that fit float32 or float64, got {given}")
    return np.dtype(dtype)


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
