"""Convolution and linear layers: weights between neurons."""

from __future__ import annotations

from collections.abc import Mapping
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


class Conv2d(Layer):
    """Convolution of spikes or currents.

    Parameters
    ----------
    in_channels, out_channels : int
        C of input and output.
    kernel_size : int
        Height and width of the kernel.
    stride, padding : int
        As usual; padding is with zeros.
    bias : bool
        Whether there is a trained bias.
    dirac : bool
        The first `in_channels` output channels start as copies of the input.

    Notes
    -----
    Weights are drawn from the Kaiming normal distribution of fan-out, ``std = sqrt(2 / (O KH KW))``; the bias is 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        dirac: bool = False,
    ) -> None:
        in_channels, out_channels, kernel_size, self.stride = as_counts(
            "Conv2d", in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride
        )
        self.padding = as_count("Conv2d", "padding", padding, 0)
        bias = as_flag(type(self).__name__, "bias", bias)
        self.dirac = as_flag("Conv2d", "dirac", dirac)
        self.weight = Parameter(np.zeros((out_channels, in_channels, kernel_size, kernel_size)))
        self.bias = Parameter(np.zeros(out_channels)) if bias else None
        self._state: Convolution | None = None

    def parameters(self) -> Mapping[str, Parameter]:
        """``weight`` (O, C, KH, KW) and ``bias`` (O,)."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    def initialise(self, rng: np.random.Generator) -> None:
        """Kaiming normal of fan-out."""
        shape = self.weight.value.shape
        self.weight.value = rng.normal(0, sqrt(2 / (shape[0] * shape[2] * shape[3])), shape).astype(np.float32)
        if self.dirac:
            copies = min(shape[:2])
            self.weight.value[:copies] = 0
            self.weight.value[range(copies), range(copies), shape[2] // 2, shape[3] // 2] = 1

    def kernel(self) -> Values:
        """What is convolved with: the weight."""
        return self.weight.value

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`."""
        return self.weight.value.shape

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """Gradient of the weight, given that of `kernel`."""
        return grad_kernel

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of shape `features`; ValueError if that does not fit."""
        out, channels, kernel_h, kernel_w = self.kernel_shape
        if len(features) != 3 or features[0] != channels:
            raise ValueError(f"{type(self).__name__} {self.path}: expected features ({channels}, H, W), got {features}")
        _, height, width = features
        return (
            out,
            ops.output_size(height, kernel_h, self.stride, self.padding),
            ops.output_size(width, kernel_w, self.stride, self.padding),
        )

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Convolve; a current that is the same at every step is convolved once."""
        features = self.output_features(signal.features)
        convolution = Convolution.of(signal, self.kernel(), self.stride, self.padding, self.path, run)
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
        if not needs_gradient(convolution.signal):
            return None
        _, height, width = image_shape(convolution.signal.features)
        return convolution.input_gradient(
            gradient,
            lambda grad: ops.conv2d_input_gradient(grad, convolution.kernel, height, width, self.stride, self.padding),
        )

    def kind(self) -> str:
        """Class, kernel, and the stride where it is not 1."""
        stride = f", stride {self.stride}" if self.stride != 1 else ""
        return f"{type(self).__name__} {self.kernel_shape[2]}x{self.kernel_shape[3]}{stride}"

    def multiply_adds(self, output_features: tuple[int, ...]) -> int:
        """One for each weight and output pixel."""
        return prod(self.kernel_shape) * prod(output_features[1:])

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Connections."""
        counter.connections(self.path, signal, self.kernel_shape, self.stride, self.padding)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A convolution with `kernel`."""
        bias = None if self.bias is None else self.bias.value
        return writer.convolution(self.path, wire, self.kernel(), bias, self.stride, self.padding)


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
        """(N,)."""
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
