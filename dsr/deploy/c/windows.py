"""Where the taps of windows fall, in C and in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops import Geometry


def of_pool(kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Geometry:
    """The windows of a pooling."""
    (y, x) = padding
    return Geometry(kernel_size, stride, (y, y, x, x))


def axis(size: int, geometry: Geometry, number: int) -> tuple[int, ...]:
    """One direction, as a ``dsr_axis`` in C: size, taps, stride, dilation, spread, before."""
    g = geometry
    return size, g.kernel[number], g.stride[number], g.dilation[number], g.spread[number], g.padding[2 * number]


def text(shape: tuple[int, int, int], geometry: Geometry) -> str:
    """The windows over an image of this shape, as a ``dsr_windows`` in C."""
    channels, *image = shape
    axes = [", ".join(map(str, axis(size, geometry, number))) for number, size in enumerate(image)]
    return f"{{{{{axes[0]}}}, {{{axes[1]}}}, {channels}}}"


def seen(
    image: NDArray[Any], geometry: Geometry, output: tuple[int, ...], tap: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What a tap of all windows reads of (C, H, W), (C, H', W'), and whether there is a pixel, (H', W')."""
    taps = divmod(tap, geometry.kernel[1])
    pixels, valid = [], []
    for number, (size, k, count) in enumerate(zip(image.shape[1:], taps, output, strict=True)):
        _, _, stride, dilation, spread, before = axis(size, geometry, number)
        place = np.arange(count) * stride + k * dilation - before
        good = (place >= 0) & (place % spread == 0) & (place // spread < size)
        pixels.append(np.where(good, place // spread, 0))
        valid.append(good)
    return image[:, pixels[0][:, np.newaxis], pixels[1]], valid[0][:, np.newaxis] & valid[1]
