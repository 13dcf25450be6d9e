"""Pooling, and average pooling; pooled spikes stay bits for the convolution above.

Layers of images take windows of one size for both axes or of a pair, (vertical, horizontal); those of signals (C, L),
which are images of height 1, take integers.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from dsr import ops
from dsr.nn.currents import Computed, Current, PooledSpikes, Signal, Term, needs_gradient, unit_of
from dsr.nn.describe import Counts, GraphWriter, OperationCounter
from dsr.nn.gradients import SignalGradient, map_gradient
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape, share_of
from dsr.ops import Pair, Values
from dsr.ops.arguments import as_count, as_pair

Windows = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Kernel size, stride and padding, (vertical, horizontal) each."""


class Pooling(Layer):
    """Base of layers that make one number of each window."""

    input_axes = "NCHW"
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        name = type(self).__name__
        self.kernel_size = as_pair(name, "kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else as_pair(name, "stride", stride)
        self.padding = as_pair(name, "padding", padding, 0)
        if any(p > size // 2 for p, size in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f"{name}: argument 'padding': expected 0 to kernel_size / 2, got {padding}")
        self._state: Signal | None = None

    def windows(self, features: tuple[int, ...]) -> Windows:
        """Those over a signal of this shape."""
        return self.kernel_size, self.stride, self.padding

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the output for an input of shape `features`; ValueError if that does not fit."""
        sizes = self._pooled(features) if len(features) == 3 else (0,)
        if min(sizes) < 1:
            size = _by(self.kernel_size)
            raise ValueError(f"{type(self).__name__} {self.path}: expected images of at least {size}, got {features}")
        return (features[0], *sizes)

    def _pooled(self, features: tuple[int, ...]) -> tuple[int, ...]:
        axes = zip(image_shape(features)[1:], *self.windows(features), strict=True)
        return tuple(ops.output_size(*axis) for axis in axes)

    def kind(self) -> str:
        """Class, window, and the stride where it is not that of the window."""
        stride = f", stride {_by(self.stride)}" if self.stride != self.kernel_size else ""
        return f"{type(self).__name__} {_by(self.kernel_size)}{stride}"


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"


class SignalPooling(Pooling):
    """Base of pooling layers of signals (C, L)."""

    input_axes = "NCL"

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0) -> None:
        name = type(self).__name__
        size, around = as_count(name, "kernel_size", kernel_size), as_count(name, "padding", padding, 0)
        step = size if stride is None else as_count(name, "stride", stride)
        super().__init__((1, size), (1, step), (0, around))

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """Shape (C, L') of the output for an input of shape `features`; ValueError if that does not fit."""
        length = self._pooled(features)[1] if len(features) == 2 else 0
        if length < 1:
            raise ValueError(
                f"{type(self).__name__} {self.path}: expected signals (C, L) of length {self.kernel_size[1]} or more, "
                f"got {features}"
            )
        return features[0], length

    def kind(self) -> str:
        """Class, window, and the stride where it is not that of the window."""
        stride = f", stride {self.stride[1]}" if self.stride != self.kernel_size else ""
        return f"{type(self).__name__} {self.kernel_size[1]}{stride}"


class AvgPool2d(Pooling):
    """Mean over windows of images; padding counts as zeros.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Size of a window.
    stride : int or (int, int), optional
        By default `kernel_size`.
    padding : int or (int, int)
        At most half the kernel size.
    """

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Pool every step."""
        features, windows = self.output_features(signal.features), self.windows(signal.features)
        if run.training:
            self._state = signal
        term: Term
        if isinstance(signal, SpikeTrain):
            term = PooledSpikes(signal, *windows)
        else:
            shape = (*image_shape(features), *signal.shape[3:])
            unit = unit_of(signal)
            term = Computed(
                lambda: ops.avg_pool(merge_lanes(signal.final_values()), *windows).reshape(shape),
                shape,
                None if unit is None else share_of(unit, prod(windows[0])),
            )
        return Current(
            (term,),
            features,
            signal.timesteps,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Spread over the windows."""
        signal, self._state = saved_state(self, self._state), None
        if not needs_gradient(signal):
            return None
        windows, (_, height, width) = self.windows(signal.features), image_shape(signal.features)
        return map_gradient(gradient, lambda grad: ops.avg_pool_backward(grad, height, width, *windows))

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: a pooled spike counts where it is used."""
        windows = self.windows(signal.features)
        counter.pass_on(signal, output, lambda n: window_sums(n, *windows))

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Average pooling."""
        return writer.average_pool(self.path, wire, self.kernel_size, self.stride, self.padding)


class GlobalAvgPool2d(AvgPool2d):
    """Mean over all pixels: images (C, H, W) to vectors (C,)."""

    def __init__(self) -> None:
        super().__init__(1)

    def windows(self, features: tuple[int, ...]) -> Windows:
        """One, the image."""
        size = features[1], features[2]
        return size, size, (0, 0)

    def output_features(self, features: tuple[int, ...]) -> tuple[int, ...]:
        """(C,); ValueError if the input is no image."""
        if len(features) != 3:
            raise ValueError(f"GlobalAvgPool2d {self.path}: expected images (C, H, W), got {features}")
        return features[:1]

    def kind(self) -> str:
        """The class."""
        return "GlobalAvgPool2d"

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Average pooling and flattening."""
        return writer.global_average_pool(self.path, wire)


class AvgPool1d(SignalPooling, AvgPool2d):
    """Mean over windows of signals (C, L); padding counts as zeros.

    Parameters
    ----------
    kernel_size : int
        Size of a window.
    stride : int, optional
        By default `kernel_size`.
    padding : int
        At most half the kernel size.
    """


def merge_lanes(values: Values) -> Values:
    """(C, H, W, T, B) as (C, H, W, L)."""
    return values.reshape(*values.shape[:3], values.shape[3] * values.shape[4])


def window_sums(
    counts: Counts, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> Counts:
    """Sums over windows, (C, H, W) to (C, H', W')."""
    padded = np.pad(counts, ((0, 0), *((p, p) for p in padding)))
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel_size, axis=(1, 2))
    return views[:, :: stride[0], :: stride[1]].sum(axis=(3, 4))
