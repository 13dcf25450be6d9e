"""Average pooling; pooled spikes stay bits for the convolution above."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsr import ops
from dsr.nn.currents import Computed, Current, PooledSpikes, Signal, Term, needs_gradient, signal_values
from dsr.nn.describe import Counts, GraphWriter, OperationCounter
from dsr.nn.gradients import SignalGradient, map_gradient
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Values
from dsr.ops.arguments import as_count, as_counts


class AvgPool2d(Layer):
    """Mean over square windows; padding counts as zeros.

    Parameters
    ----------
    kernel_size : int
        Size of a window.
    stride : int, optional
        By default `kernel_size`.
    padding : int
        At most half the kernel size.
    """

    input_axes = "NCHW"

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0) -> None:
        stride = kernel_size if stride is None else stride
        self.kernel_size, self.stride = as_counts("AvgPool2d", kernel_size=kernel_size, stride=stride)
        self.padding = as_count("AvgPool2d", "padding", padding, 0)
        if self.padding > self.kernel_size // 2:
            raise ValueError(f"AvgPool2d: argument 'padding': expected 0 to kernel_size / 2, got {self.padding}")
        self._input: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Pool every step."""
        if len(signal.features) != 3 or min(signal.features[1:]) + 2 * self.padding < self.kernel_size:
            size = self.kernel_size
            raise ValueError(f"AvgPool2d {self.path}: expected images of at least {size}x{size}, got {signal.features}")
        if run.training:
            self._input = signal
        channels, height, width = signal.features
        sizes = [ops.output_size(size, self.kernel_size, self.stride, self.padding) for size in (height, width)]
        features = (channels, *sizes)
        term: Term
        if isinstance(signal, SpikeTrain):
            term = PooledSpikes(signal, self.kernel_size, self.stride, self.padding)
        else:
            term = Computed(lambda: self._pooled(signal_values(signal)), (*features, *signal.shape[3:]))
        return Current(
            (term,),
            features,
            signal.timesteps,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )

    def _pooled(self, values: Values) -> Values:
        flat = values.reshape(*values.shape[:3], -1)
        pooled = ops.avg_pool(flat, self.kernel_size, self.stride, self.padding)
        return pooled.reshape(*pooled.shape[:3], *values.shape[3:])

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Spread over the windows."""
        signal, self._input = saved_state(self, self._input), None
        if not needs_gradient(signal):
            return None
        _, height, width = signal.features
        return map_gradient(
            gradient,
            lambda grad: ops.avg_pool_backward(grad, height, width, self.kernel_size, self.stride, self.padding),
        )

    def kind(self) -> str:
        """Class, window, and the stride where it is not that of the window."""
        stride = f", stride {self.stride}" if self.stride != self.kernel_size else ""
        return f"AvgPool2d {self.kernel_size}x{self.kernel_size}{stride}"

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: a pooled spike counts where it is used."""
        counter.pass_on(signal, output, lambda n: window_sums(n, self.kernel_size, self.stride, self.padding))

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Average pooling."""
        return writer.average_pool(self.path, wire, self.kernel_size, self.stride, self.padding)


def window_sums(counts: Counts, kernel_size: int, stride: int, padding: int) -> Counts:
    """Sums over square windows, (C, H, W) to (C, H', W')."""
    padded = np.pad(counts, ((0, 0), (padding, padding), (padding, padding)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (kernel_size, kernel_size), axis=(1, 2))
    return views[:, ::stride, ::stride].sum(axis=(3, 4))
