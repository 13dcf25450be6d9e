"""Convolution of dense values, and its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsr import _core
from dsr.ops.arguments import as_count, shown
from dsr.ops.geometry import POINTWISE, Geometry, mirrored_weight
from dsr.ops.layout import Values, new_array, require_array

MOST_PRODUCTS = 1 << 35
"""Products of one call of the compiled part, where lanes can be computed piece by piece: a third of a second on two
cores. Between calls a signal is seen; the input gradients of VGG-11 on events took some seconds in one."""


def require_geometry(function: str, geometry: Any) -> None:
    """Refuse anything else."""
    if not isinstance(geometry, Geometry):
        raise TypeError(f"{function}: argument 'geometry': expected a Geometry, got {shown(geometry)}")


def convolved_size(
    function: str, name: str, height: int, width: int, weight: Values, geometry: Geometry
) -> tuple[int, int]:
    """Size of a convolution's output; ValueError where the kernel does not fit into the image."""
    require_geometry(function, geometry)
    require_array(function, 4, weight=weight)
    if weight.shape[2:] != geometry.kernel:
        raise ValueError(f"{function}: argument 'weight': expected a kernel {geometry.kernel}, got {weight.shape[2:]}")
    if len(weight) % geometry.groups:
        raise ValueError(
            f"{function}: argument 'weight': expected outputs that {geometry.groups} groups divide, got {len(weight)}"
        )
    rows, columns = geometry.output_size(height, width)
    if rows < 1 or columns < 1:
        raise ValueError(
            f"{function}: argument '{name}': expected an image that a kernel of {geometry} with padding "
            f"{geometry.padding} fits in, got {height}x{width}"
        )
    return rows, columns


def conv2d(values: Values, weight: Values, bias: Values | None = None, geometry: Geometry = POINTWISE) -> Values:
    """Convolution (cross-correlation) of dense values (C, H, W, L) with weights (O, C / groups, KH, KW).

    Depthwise (one channel in and out a group): EXACT, and so are its gradients. Otherwise
    ROUNDED: within ``(K + 2) eps sum |w| |x|`` of the exact sum, K = C / groups KH KW; with a spread as
    `conv2d_input_gradient`, which it then is, and one addition more for the bias.
    """
    require_array("conv2d", 4, values=values)
    _, height, width, lanes = values.shape
    rows, columns = convolved_size("conv2d", "values", height, width, weight, geometry)
    out = new_array("conv2d", "geometry", (len(weight), rows, columns, lanes))
    _core.conv2d(values, weight, bias, geometry, out)
    return out


def conv2d_input_gradient(
    grad_output: Values, weight: Values, height: int, width: int, geometry: Geometry = POINTWISE
) -> Values:
    """Gradient of `conv2d` with respect to its values; with a spread it is a `conv2d` without.

    ROUNDED as `conv2d`, K = O / groups KH KW. From 32 channels on, kernels of 3x3 (of 4x4 with stride 2, and the like)
    go by Winograd's method: within ``(K + 20) eps M``, M what the method gives with the absolute values of gradients,
    weights and its coefficients. An infinite gradient then makes NaN in its lane. Weights that are not finite may make
    NaN of any value: beyond the edges they are multiplied by zeros.
    """
    function = "conv2d_input_gradient"
    require_array(function, 4, grad_output=grad_output, weight=weight)
    require_geometry(function, geometry)
    sizes = as_count(function, "height", height, 0), as_count(function, "width", width, 0)
    out = new_array(function, "height", (geometry.groups * weight.shape[1], *sizes, grad_output.shape[3]))
    lane_count = grad_output.shape[3]
    products = weight.size * grad_output.shape[1] * grad_output.shape[2]  # of a lane
    at_once = max(1, MOST_PRODUCTS // max(1, products) // 256) * 256
    if lane_count <= at_once or not grad_output.flags.c_contiguous:
        _core.conv2d_input_gradient(grad_output, weight, geometry, out)
        return out
    for first in range(0, lane_count, at_once):
        piece = np.ascontiguousarray(grad_output[..., first : first + at_once])
        below = np.empty((*out.shape[:3], piece.shape[3]), np.float32)
        _core.conv2d_input_gradient(piece, weight, geometry, below)
        out[..., first : first + at_once] = below
    return out


def conv2d_winograd(values: Values, weight: Values, geometry: Geometry) -> Values:
    """`conv2d` of stride 1, computed as an input gradient, for which there is Winograd's method.

    ROUNDED as `conv2d_input_gradient`, K = C / groups KH KW. It is two to three times as fast where Winograd's
    method pays (`weight_gradient_by_winograd`) and the weights, which are mirrored in every call, are not more than the
    values.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; or the stride is not 1, or there is more padding than a kernel reaches, (K - 1) dilation.
    """
    require_array("conv2d_winograd", 4, values=values)
    _, height, width, _ = values.shape
    rows, columns = convolved_size("conv2d_winograd", "values", height, width, weight, geometry)
    mirrored = geometry.mirrored()
    if geometry.stride != (1, 1) or mirrored.mirrored() != geometry:
        raise ValueError(
            f"conv2d_winograd: argument 'geometry': expected stride 1 and padding of at most {max(geometry.reach)}, "
            f"got {geometry}"
        )
    return conv2d_input_gradient(values, mirrored_weight(weight, geometry.groups), rows, columns, mirrored)


def conv2d_weight_gradient(grad_output: Values, values: Values, geometry: Geometry = POINTWISE) -> Values:
    """Gradient of `conv2d` with respect to its weight.

    ROUNDED as `conv2d`, K = pixels times lanes. Where `weight_gradient_by_winograd` is true, by Winograd's method:
    within ``(K + 20) eps M``, K = tiles times lanes, M what the method gives with the absolute values of gradients,
    values and its coefficients. An infinite gradient or value may then make NaN of any weight of its channel.
    """
    function = "conv2d_weight_gradient"
    require_array(function, 4, grad_output=grad_output, values=values)
    require_geometry(function, geometry)
    out = new_array(function, "geometry", (len(grad_output), len(values) // geometry.groups, *geometry.kernel))
    _core.conv2d_weight_gradient(grad_output, values, geometry, out)
    return out


def weight_gradient_by_winograd(geometry: Geometry, channels: int, outputs: tuple[int, ...]) -> bool:
    """Whether `conv2d_weight_gradient` goes by Winograd's method, as 3x3 kernels of enough channels and lanes do.

    It has a quarter of the products of a GEMM then, and takes as long whatever the values are. Beside sums of rows of
    spikes, on the four shapes of ResNets and one thread: with AVX-512 1.0 to 1.4 times as fast at T = 1, and for counts
    of 20 steps 1.5 to 2.8 times at a rate of 0.03, 2.2 to 4.4 times at 0.1; with AVX2 0.7 to 1.0 times at T = 1.

    Parameters
    ----------
    geometry : Geometry
        Of the convolution.
    channels : int
        C.
    outputs : tuple of int
        Shape of the gradient of the output, (O, H', W', L).
    """
    count, rows, columns, lanes = outputs
    tiles = -(-rows // 4) * -(-columns // 4)
    taps = Geometry((3, 3), padding=geometry.padding)  # stride, dilation, spread and groups are 1
    large = channels >= 32 and count >= 16 and lanes >= 8
    return geometry == taps and large and 36 * tiles < 0.7 * 9 * rows * columns
