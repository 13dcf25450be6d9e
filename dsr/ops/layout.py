"""The layout of layers' arrays, and the checks that stand before every compiled call.

A value is float32 of shape ``(C, H, W, T, B)``: channels and pixels outside, time and batch innermost. One entry of the
two inner axes, a time step of a sample, is called a lane. What is the same at every step has T = 1; a gradient without
a time axis has shape ``(C, H, W, B)``. Spikes are uint32 words of shape ``(ceil(C / 32), H, W, T, B)``, channel c being
bit ``c % 32`` of word ``c // 32``; bits of channels that do not exist are zero. Arrays must be C-contiguous and of
exactly these dtypes; results are new arrays.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops.arguments import LARGEST, as_array, shown

Values = NDArray[np.float32]
Words = NDArray[np.uint32]
Sums = NDArray[np.float64]
PerChannel = float | Values
"""One number for all channels, or one for each, (C,)."""


def word_count(channels: int) -> int:
    """Words that hold the bits of so many channels."""
    return (channels + 31) // 32


def output_size(size: int, kernel_size: int, stride: int, padding: int) -> int:
    """Windows along one direction."""
    return (size + 2 * padding - kernel_size) // stride + 1


def require_array(function: str, axes: int = 0, **arrays: Any) -> None:
    """Raise unless each is an array with this number of axes; 0: at least one. The compiled part checks the rest."""
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{function}: argument '{name}': expected an array, got {type(array).__name__}")
        if array.ndim != axes if axes else array.ndim == 0:
            wanted = f"{axes} axes" if axes else "at least one axis"
            raise ValueError(f"{function}: argument '{name}': expected {wanted}, got shape {array.shape}")


def for_channels(function: str, name: str, numbers: PerChannel, channels: int) -> Values:
    """A number of each channel; ValueError unless there are as many, and float32 holds them."""
    given = as_array(function, name, numbers)
    if given.shape not in ((), (channels,)):
        raise ValueError(
            f"{function}: argument '{name}': expected a number or one for each of {channels} channels, got shape "
            f"{given.shape}"
        )
    if not (np.abs(given) <= LARGEST).all():
        raise ValueError(f"{function}: argument '{name}': expected finite numbers up to 2**126, got {shown(numbers)}")
    return np.full(channels, given, np.float32)


def require_writable(function: str, name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise unless results can be written to the array itself; they would be lost in a copy."""
    require_array(function, **{name: array})
    if array.dtype != np.float32:
        raise TypeError(f"{function}: argument '{name}': expected dtype float32, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{function}: argument '{name}': expected shape {shape}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{function}: argument '{name}': expected a C-contiguous array, got strides {array.strides}")
    if not array.flags.writeable:
        raise ValueError(f"{function}: argument '{name}': expected a writable array, got a read-only one")


def new_array(function: str, name: str, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """A new array; an error names the argument that makes it so large."""
    try:
        return np.empty(shape, dtype)
    except ValueError:
        raise ValueError(f"{function}: argument '{name}': no array can be as large as {shape}") from None


def aligned_array(shape: tuple[int, ...]) -> Values:
    """A new array of float32 that begins at a multiple of 64 bytes, as kernels on rows of channels want it."""
    size = prod(shape)
    room = np.empty(size + 16, np.float32)
    first = -room.ctypes.data % 64 // 4
    return room[first : first + size].reshape(shape)


def by_channel(array: NDArray[Any]) -> NDArray[Any]:
    """All axes but the first merged."""
    return array.reshape(len(array), prod(array.shape[1:]))


def merge_pixels(array: NDArray[Any], inner: int) -> NDArray[Any]:
    """Axes H, W merged: (C, P) and the `inner` last axes."""
    last = array.ndim - inner
    return array.reshape(len(array), prod(array.shape[1:last]), *array.shape[last:])


def new_sum(values: Values) -> Values:
    """Room for one value of each channel, pixel and sample, (C, H, W, B)."""
    channels, height, width, _, batch = values.shape
    return np.empty((channels, height, width, batch), np.float32)
