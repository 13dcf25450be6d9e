"""Convolution and linear layers: weights between neurons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod, sqrt
from typing import Any

import numpy as np

from dsr import ops
from dsr.nn.currents import Current, Signal, needs_gradient
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.evaluate import Convolution
from dsr.nn.gradients import Gradient, SignalGradient
from dsr.nn.layer import Layer, Parameter, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import image_shape
from dsr.ops import Values
from dsr.ops.arguments import as_count, as_counts, as_flag, as_number
from dsr.ops.geometry import Sizes, as_pair


class Conv2d(Layer):
    """Convolution of spikes or currents.

    Parameters
    ----------
    in_channels, out_channels : int
        C and O, of input and output.
    kernel_size : int or (int, int)
        Height and width of the kernel.
    stride, dilation : int or (int, int)
        Pixels between outputs, and between taps.
    padding : int, (int, int), "same" or "valid"
        Zeros on both sides of each direction; "valid": none; "same", for stride 1: as many as keep the size of the
        image, the odd one of an even kernel at the bottom and at the right.
    bias : bool
        Whether there is a trained bias.
    dirac : bool
        The first output channels (of each group) start as copies of the input.
    groups : int
        Parts of the channels; each output part sees one input part alone. ``groups=in_channels`` is depthwise.

    Notes
    -----
    Weights are drawn from the Kaiming normal distribution of fan-out, ``std = sqrt(2 / (O / groups KH KW))``; the bias
    is 0.
    """

    input_axes = "NCHW"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        bias: bool = True,
        dirac: bool = False,
        *,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> None:
        name = type(self).__name__
        in_channels, out_channels = as_counts(name, in_channels=in_channels, out_channels=out_channels)
        self.geometry = self._geometry(name, kernel_size, stride, padding, dilation, groups)
        bias = as_flag(name, "bias", bias)
        self.dirac = as_flag(name, "dirac", dirac)
        groups = self.geometry.groups
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name}: argument 'groups': expected a divisor of in_channels and out_channels, {in_channels} and "
                f"{out_channels}, got {groups}"
            )
        self.weight = Parameter(np.zeros(self._weight_shape(in_channels, out_channels)))
        self.bias = Parameter(np.zeros(out_channels)) if bias else None
        self._state: Convolution | None = None

    def _geometry(
        self, name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
    ) -> ops.Geometry:
        return ops.Geometry.of(name, kernel_size, stride, padding, dilation, groups)

    def _weight_shape(self, in_channels: int, out_channels: int) -> tuple[int, ...]:
        return out_channels, in_channels // self.geometry.groups, *self.geometry.kernel

    def parameters(self) -> Mapping[str, Parameter]:
        """``weight`` (O, C / groups, KH, KW) and ``bias`` (O,)."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    def initialise(self, rng: np.random.Generator) -> None:
        """Kaiming normal of fan-out."""
        shape, groups = self.weight.value.shape, self.geometry.groups
        fan_out = self.kernel_shape[0] // groups * prod(shape[2:])
        self.weight.value = rng.normal(0, sqrt(2 / fan_out), shape).astype(np.float32)
        if self.dirac:
            parts = self.weight.value.reshape(groups, shape[0] // groups, *shape[1:])
            copies = range(min(parts.shape[1:3]))
            parts[:, : len(copies)] = 0
            parts[:, copies, copies, *(size // 2 for size in shape[2:])] = 1

    def kernel(self) -> Values:
        """What is convolved with, (O, C / groups, KH, KW): the weight."""
        return self.weight.value

    def evaluation_kernel(self) -> Values:
        """`kernel`, for a pass that is not for training."""
        return self.kernel()

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`."""
        return self.weight.value.shape

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """Gradient of the weight, given that of `kernel`."""
        return grad_kernel

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of shape `features`; ValueError if that does not fit."""
        channels, where = self.kernel_shape[1] * self.geometry.groups, f"{type(self).__name__} {self.path}".rstrip()
        if len(features) != len(self.input_axes) - 1 or features[0] != channels:
            raise ValueError(
                f"{where}: expected features ({channels}, {', '.join(self.input_axes[2:])}), got {features}"
            )
        height, width = self.geometry.output_size(*image_shape(features)[1:])
        if height < 1 or width < 1:
            raise ValueError(f"{where}: expected features that a kernel of {self.geometry} fits in, got {features}")
        return (self.kernel_shape[0], height, width)

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Convolve; a current that is the same at every step is convolved once."""
        features = self.output_features(signal.features)
        kernel = self.kernel() if run.training else self.evaluation_kernel()
        convolution = Convolution.of(signal, kernel, self.geometry, self.path, run)
        if run.training:
            self._state = convolution
        return Current(convolution.terms(None if self.bias is None else self.bias.value), features, signal.timesteps)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Gradients of weight and bias; the input's is one convolution without a time axis."""
        convolution, self._state = saved_state(self, self._state), None
        assert isinstance(gradient, Gradient)
        if self.bias is not None:
            self.bias.grad = gradient.total().sum(axis=(1, 2, 3))
        self.weight.grad = self.weight_gradient(convolution.kernel_gradient(gradient))
        return convolution.input_gradient(gradient) if needs_gradient(convolution.signal) else None

    def kind(self) -> str:
        """Class and kernel, and stride, dilation and groups where they are not 1."""
        return f"{type(self).__name__} {self.geometry}"

    def multiply_adds(self, output_features: tuple[int, ...]) -> int:
        """One for each weight and output pixel."""
        return prod(self.kernel_shape) * prod(output_features[1:])

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Connections."""
        counter.connections(self.path, signal, self.kernel_shape, self.geometry)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A convolution with `kernel`."""
        bias = None if self.bias is None else self.bias.value
        return writer.convolution(self.path, wire, self.kernel(), bias, self.geometry)


class Conv1d(Conv2d):
    """Convolution of signals (C, L): a 2-D convolution of images of height 1.

    Parameters
    ----------
    in_channels, out_channels, bias, dirac, groups
        As of `Conv2d`.
    kernel_size, stride, dilation : int
        Taps, and places between outputs and between taps.
    padding : int, "same" or "valid"
        Zeros on both sides, as of `Conv2d`.

    Notes
    -----
    The weight is (O, C / groups, K), drawn as that of `Conv2d`. A network whose first layer this is takes samples
    (B, C, L), or (T, B, C, L) with time.
    """

    input_axes = "NCL"

    def _geometry(
        self, name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
    ) -> ops.Geometry:
        sizes = as_counts(name, kernel_size=kernel_size, stride=stride, dilation=dilation)
        (taps, step, wide), zeros = (
            sizes,
            padding if isinstance(padding, str) else as_count(name, "padding", padding, 0),
        )
        around = zeros if isinstance(zeros, str) else (0, zeros)
        return ops.Geometry.of(name, (1, taps), (1, step), around, (1, wide), groups)

    def _weight_shape(self, in_channels: int, out_channels: int) -> tuple[int, ...]:
        return out_channels, in_channels // self.geometry.groups, self.geometry.kernel[1]

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`, (O, C / groups, 1, K)."""
        out, channels, taps = self.weight.value.shape
        return out, channels, 1, taps

    def kernel(self) -> Values:
        """The weight as that of images of height 1."""
        return self.weight.value.reshape(self.kernel_shape)

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """Without the height."""
        return grad_kernel.reshape(self.weight.value.shape)

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output, (O, L'), for an input of shape `features`; ValueError if that does not fit."""
        out, _, length = super().output_features(features)
        return out, length

    def kind(self) -> str:
        """As of `Conv2d`, without the height."""
        return super().kind().replace(" 1x", " ")


class ConvTranspose2d(Conv2d):
    """Transposed convolution: each pixel or spike adds the kernel, times its value, to an output that is larger.

    It is the input gradient of a `Conv2d` of the same numbers, and over spikes as fast as one.

    Parameters
    ----------
    in_channels, out_channels, bias, groups
        As of `Conv2d`.
    kernel_size, stride, dilation : int or (int, int)
        Of that convolution: an input pixel is `stride` output pixels from the next.
    padding : int or (int, int)
        Rows and columns that are cut off at each side, at most ``dilation * (kernel_size - 1)``.
    output_padding : int or (int, int)
        Rows and columns that are added at the bottom and at the right, less than the stride.

    Notes
    -----
    The output has ``(H - 1) stride - 2 padding + dilation (KH - 1) + output_padding + 1`` rows. The weight is
    (C, O / groups, KH, KW), as in PyTorch, drawn as that of `Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        bias: bool = True,
        *,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> None:
        self.output_padding = as_pair("ConvTranspose2d", "output_padding", output_padding, 0)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, bias, dilation=dilation, groups=groups
        )

    def _geometry(
        self, name: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any, groups: Any
    ) -> ops.Geometry:
        zeros = as_pair(name, "padding", padding, 0)
        other = ops.Geometry.of(name, kernel_size, stride, zeros, dilation, groups)
        if any(p > reach for p, reach in zip(zeros, other.reach, strict=True)):
            raise ValueError(
                f"{name}: argument 'padding': expected at most dilation * (kernel_size - 1), {other.reach}, got {zeros}"
            )
        if any(more >= step for more, step in zip(self.output_padding, other.stride, strict=True)):
            raise ValueError(
                f"{name}: argument 'output_padding': expected less than the stride, {other.stride}, got "
                f"{self.output_padding}"
            )
        (y, x), (top, bottom, left, right) = self.output_padding, other.mirrored().padding
        return replace(other.mirrored(), padding=(top, bottom + y, left, right + x))

    def _weight_shape(self, in_channels: int, out_channels: int) -> tuple[int, ...]:
        return in_channels, out_channels // self.geometry.groups, *self.geometry.kernel

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`, (O, C / groups, KH, KW)."""
        channels, out, *taps = self.weight.value.shape
        return out * self.geometry.groups, channels // self.geometry.groups, *taps

    def kernel(self) -> Values:
        """The weight of the convolution that goes over the image with zeros between its pixels."""
        return ops.mirrored_weight(self.weight.value, self.geometry.groups)

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """Turned as the weight."""
        return ops.mirrored_weight(grad_kernel, self.geometry.groups)


class Linear(Conv2d):
    """Fully connected layer on vectors; a 1x1 convolution of an image of one pixel.

    Parameters
    ----------
    in_features, out_features : int
        N of input and output.
    bias : bool
        Whether there is a trained bias.
    std : float, optional
        Draw weights from the normal distribution of this standard deviation.

    Notes
    -----
    Without `std`, weights are drawn uniformly from ``[-1, 1] / sqrt(in_features)``; the bias is 0.
    """

    input_axes = "NC"

    def __init__(self, in_features: int, out_features: int, bias: bool = True, std: float | None = None) -> None:
        in_features, out_features = as_counts("Linear", in_features=in_features, out_features=out_features)
        if std is not None:
            std = as_number("Linear", "std", std, lambda value: 0 < value < inf, "a number > 0")
        super().__init__(in_features, out_features, 1, bias=bias)
        self.std = std

    def initialise(self, rng: np.random.Generator) -> None:
        """Uniform in the inverse root of fan-in, or normal."""
        shape = self.weight.value.shape
        bound = 1 / sqrt(shape[1])
        drawn = rng.uniform(-bound, bound, shape) if self.std is None else rng.normal(0, self.std, shape)
        self.weight.value = drawn.astype(np.float32)

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output, (N,), for an input of shape `features`; ValueError if that does not fit."""
        expected = self.weight.value.shape[1]
        if features != (expected,):
            raise ValueError(
                f"Linear {self.path}: expected features ({expected},), got {features}; is a Flatten missing before it?"
            )
        return (len(self.weight.value),)

    def kind(self) -> str:
        """The class."""
        return type(self).__name__

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """An affine map."""
        return writer.linear(self.path, wire, self.weight.value, None if self.bias is None else self.bias.value)
