"""Geometry: where the taps of a convolution's kernel fall on an image, the one thing that all convolutions are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dsr.ops.arguments import as_count, shown
from dsr.ops.layout import Values

Pair = tuple[int, int]
Sizes = int | Sequence[int]
"""One number for both directions, or height and width."""


@dataclass(frozen=True)
class Geometry:
    """Kernel, steps and edges of a convolution; of two numbers the first is that of the height.

    Pixel i of the image lies at place ``before + i * spread`` of a line of zeros, and tap k of output j reads place
    ``j * stride + k * dilation`` of it.

    Attributes
    ----------
    kernel, stride, dilation : (int, int)
        Taps, places between outputs, and places between taps.
    padding : (int, int, int, int)
        Zeros at the top, bottom, left and right.
    groups : int
        Parts of the input and output channels; each output part sees one input part alone.
    spread : (int, int)
        Places between pixels, 1 but for a transposed convolution, whose stride it is.

    Raises
    ------
    TypeError, ValueError
        A number is no integer or out of range; there is a stride together with a spread, or with a spread a padding
        of more than ``dilation * (kernel - 1)`` before the image.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    spread: Pair = (1, 1)

    def __post_init__(self) -> None:
        for name, count, least in (("kernel", 2, 1), ("stride", 2, 1), ("padding", 4, 0), ("dilation", 2, 1)):
            _require("Geometry", name, getattr(self, name), count, least)
        _require("Geometry", "spread", self.spread, 2, 1)
        as_count("Geometry", "groups", self.groups)
        if self.spread != (1, 1):
            if self.stride != (1, 1):
                raise ValueError(f"Geometry: argument 'spread': expected (1, 1) with stride {self.stride}")
            if self.padding[0] > self.reach[0] or self.padding[2] > self.reach[1]:
                raise ValueError(
                    f"Geometry: argument 'padding': expected at most {self.reach} before the image with a spread, got "
                    f"{self.padding}"
                )

    @classmethod
    def of(
        cls,
        function: str,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Geometry:
        """What the arguments of a layer mean, as in PyTorch; errors are those of `function`.

        Padding "valid" is none; "same" keeps the size of the image at stride 1, and has the odd zero of an even
        kernel at the bottom and at the right.
        """
        kernel = as_pair(function, "kernel_size", kernel_size)
        steps, wide = as_pair(function, "stride", stride), as_pair(function, "dilation", dilation)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                expected = "'same', 'valid', an integer >= 0 or two of them"
                raise ValueError(f"{function}: argument 'padding': expected {expected}, got {shown(padding)}")
            if padding == "same" and steps != (1, 1):
                raise ValueError(f"{function}: argument 'padding': expected numbers with stride {steps}, got 'same'")
            high, across = (d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, wide, strict=True))
            around = high // 2, high - high // 2, across // 2, across - across // 2
        else:
            y, x = as_pair(function, "padding", padding, 0)
            around = y, y, x, x
        return cls(kernel, steps, around, wide, as_count(function, "groups", groups))

    @property
    def taps(self) -> int:
        """Of the whole kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def reach(self) -> Pair:
        """Places from the first to the last tap."""
        return self.dilation[0] * (self.kernel[0] - 1), self.dilation[1] * (self.kernel[1] - 1)

    def output_size(self, height: int, width: int) -> Pair:
        """Height and width of the output; below 1 where the kernel does not fit in the image."""
        return self._windows(height, 0), self._windows(width, 1)

    def _windows(self, size: int, axis: int) -> int:
        line = ((size - 1) * self.spread[axis] + 1 if size > 0 else 0) + sum(self.padding[2 * axis : 2 * axis + 2])
        return (line - self.reach[axis] - 1) // self.stride[axis] + 1

    def mirrored(self) -> Geometry:
        """That of the transposed convolution: stride and spread change places.

        For a convolution whose windows end where the image does, both are each other's.
        """
        (top, bottom, left, right), (down, across) = self.padding, self.reach
        padding = max(down - top, 0), max(down - bottom, 0), max(across - left, 0), max(across - right, 0)
        return replace(self, stride=self.spread, spread=self.stride, padding=padding)

    def __str__(self) -> str:
        """Kernel, and what is not as usual: ``3x3, stride 2, groups 4``."""
        steps = self.stride if self.spread == (1, 1) else self.spread
        parts = [f"{self.kernel[0]}x{self.kernel[1]}"]
        for name, pair in (("stride", steps), ("dilation", self.dilation)):
            if pair != (1, 1):
                parts.append(f"{name} {pair[0] if pair[0] == pair[1] else f'{pair[0]}x{pair[1]}'}")
        return ", ".join(parts + ([f"groups {self.groups}"] if self.groups > 1 else []))


def as_pair(function: str, name: str, value: Any, least: int = 1) -> Pair:
    """`value` as two integers, height before width; one integer stands for both."""
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        if len(value) != 2:
            expected = f"an integer >= {least} or two of them"
            raise ValueError(f"{function}: argument '{name}': expected {expected}, got {shown(value)}")
        first, second = value
        return as_count(function, name, first, least), as_count(function, name, second, least)
    both = as_count(function, name, value, least)
    return both, both


def _require(function: str, name: str, value: Any, count: int, least: int) -> None:
    if not isinstance(value, tuple) or len(value) != count or not all(type(item) is int for item in value):
        raise TypeError(f"{function}: argument '{name}': expected {count} integers, got {shown(value)}")
    for item in value:
        as_count(function, name, item, least)


def mirrored_weight(weight: Values, groups: int) -> Values:
    """Weights (O, C / groups, KH, KW) of a convolution as (C, O / groups, KH, KW) of its transposed, turned around."""
    outputs, channels, *kernel = weight.shape
    parts = weight.reshape(groups, outputs // groups, channels, *kernel).swapaxes(1, 2)[..., ::-1, ::-1]
    return np.ascontiguousarray(parts).reshape(groups * channels, outputs // groups, *kernel)


POINTWISE = Geometry((1, 1))
"""One tap at every pixel."""
