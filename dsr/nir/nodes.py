"""Parameters of NIR nodes as dsr has them: one number for both axes, one for all neurons; or an error."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsr import ops

LARGEST = 1 << 24
"""Values of a sample; ImageNet's have 150,528."""


def uniform(name: str, node: Any, key: str, features: tuple[int, ...]) -> np.float32:
    """The one value of an array of neuron parameters."""
    values = reals(name, node, key, np.float32)
    if values.shape not in ((), (1,), features):
        raise refusal(name, node, f"{key} of shape {values.shape} does not fit an input of shape {features}")
    if not np.isfinite(values).all() or (values != values.flat[0]).any():
        raise refusal(
            name, node, f"dsr has one {key} for all neurons of a layer, got {values.min():g} to {values.max():g}"
        )
    return np.float32(values.flat[0])


def by_channel(name: str, node: Any, key: str, features: tuple[int, ...]) -> NDArray[np.float32]:
    """The values of an array of neuron parameters by channel, (C,), or the one value of shape ()."""
    values = reals(name, node, key, np.float32)
    if values.shape != features or (values == values.flat[0]).all():
        return np.asarray(uniform(name, node, key, features))
    channels = values.reshape(len(values), -1)
    if not np.isfinite(channels).all() or (channels != channels[:, :1]).any():
        raise refusal(
            name, node, f"dsr has one {key} for all neurons of a channel, got {values.min():g} to {values.max():g}"
        )
    return channels[:, 0]


def reals(name: str, node: Any, key: str, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """An array of real numbers; those that the dtype cannot hold are infinite."""
    given = np.asarray(getattr(node, key))
    if given.dtype.kind not in "biuf":
        raise refusal(name, node, f"{key}: expected real numbers, got {given.dtype}")
    return given.astype(dtype)


def bias_of(name: str, node: Any, channels: int) -> NDArray[Any]:
    """The bias of a layer with weights; zeros where there is none."""
    bias = reals(name, node, "bias") if hasattr(node, "bias") else np.zeros(channels)
    if bias.shape != (channels,):
        raise refusal(name, node, f"a bias of shape {bias.shape} for {channels} channels")
    return bias


def integers(values: Any) -> tuple[int, ...]:
    """Numbers of any integer type and any container, or a single one."""
    return tuple(int(value) for value in np.ravel(values))


def one_integer(name: str, node: Any, key: str) -> int:
    """The one integer for both axes of an image."""
    values = integers(getattr(node, key))
    if len(set(values)) != 1:
        raise refusal(name, node, f"dsr has the same {key} for both axes, got {values}")
    return values[0]


def pair(name: str, node: Any, key: str) -> tuple[int, int]:
    """The integers for both axes of an image."""
    values = integers(getattr(node, key))
    if len(values) not in (1, 2):
        raise refusal(name, node, f"expected one or two numbers as {key}, got {values}")
    return values[0], values[-1]


def windows_left(
    name: str, node: Any, features: tuple[int, ...], size: ops.Pair, stride: ops.Pair, padding: ops.Pair
) -> tuple[int, int]:
    """Height and width of what windows of this size leave of an image."""
    sizes, strides, paddings = (n if isinstance(n, tuple) else (n, n) for n in (size, stride, padding))
    shape = "x".join(map(str, sizes))
    if min(sizes) < 1 or min(strides) < 1 or min(paddings) < 0:
        raise refusal(name, node, f"windows of {shape} with stride {stride} and padding {padding}")
    height, width = map(ops.output_size, features[1:], sizes, strides, paddings)
    if min(height, width) < 1:
        raise refusal(name, node, f"windows of {shape} are larger than the image {features}")
    check_size(name, (features[0], height, width))
    return height, width


def check_size(name: str, features: tuple[int, ...]) -> None:
    """Raise ValueError for shapes that no sample has, but a damaged file may."""
    if min(features) < 1 or prod(features) > LARGEST:
        raise ValueError(f"from_nir: node '{name}': expected samples of 1 to {LARGEST:,} values, got shape {features}")


def refusal(name: str, node: Any, reason: str) -> ValueError:
    """The error that names a node and says what dsr cannot do with it."""
    return ValueError(f"from_nir: node '{name}' ({type(node).__name__}): {reason}")


def padding_of(name: str, node: Any, kernel_size: int) -> int:
    """Padding of a convolution, which may be a word."""
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if not isinstance(padding, str):
        return one_integer(name, node, "padding")
    if padding == "same" and integers(node.stride) not in ((1,), (1, 1)):
        raise refusal(name, node, f"padding 'same' is for stride 1, got {integers(node.stride)}")
    if padding == "same" and kernel_size % 2 == 0:
        raise refusal(name, node, f"dsr pads all sides alike, which 'same' is not for a kernel of {kernel_size}")
    return kernel_size // 2 if padding == "same" else 0
