"""ReLU, the ordinary twin of spiking neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsr.nn.currents import Current, Dense, Signal, needs_gradient, signal_values
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import uniform_weights
from dsr.ops import Values


class ReLU(Layer):
    """``max(z, 0)``, in the place of neurons: the ordinary twin of a spiking network, without time (T = 1).

    It is what IF and LIF approach with many steps and a high threshold, so weights and thresholds of a spiking network
    may start from a trained ReLU network, see `dsr.train.hybrid`. The gradient at 0 is 0.
    """

    input_axes = "any"

    def __init__(self) -> None:
        self._state: tuple[Signal, Values] | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """The positive part of the current."""
        if signal.timesteps != 1:
            raise ValueError(f"ReLU {self.path}: expected timesteps = 1, got {signal.timesteps}")
        values = np.maximum(signal_values(signal), np.float32(0))
        if run.training:
            self._state = signal, values
            if isinstance(signal, Current):
                run.budget.add(self.path, signal)
        return Current(
            (Dense(values),),
            signal.features,
            signal.timesteps,
            time_weights=uniform_weights(1),
            needs_gradient=needs_gradient(signal),
        )

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """The gradient where the output is above 0."""
        signal, values = saved_state(self, self._state)
        self._state = None
        if not needs_gradient(signal):
            return None
        grad = gradient.total() if isinstance(gradient, Gradient) else gradient
        return as_wanted(signal, Gradient(np.where(values[:, :, :, 0] > 0, grad, np.float32(0)), 1))

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None: activation functions are free."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """The positive part."""
        return writer.rectify(self.path, wire)
