"""Upsampling by repetition; spikes stay spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from dsr.nn.currents import Computed, Current, Signal, Spikes, needs_gradient, signal_values, trains_of, unit_of
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import SignalGradient, map_gradient
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Pair
from dsr.ops.arguments import as_pair


class Upsample(Layer):
    """Images whose pixels are repeated (the nearest neighbour of each new one).

    Parameters
    ----------
    factor : int or (int, int)
        How often, vertically and horizontally.
    """

    input_axes = "NCHW"

    def __init__(self, factor: Pair) -> None:
        self.factor = as_pair("Upsample", "factor", factor)
        self._state: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Repeat the pixels of every step."""
        if len(signal.features) != 3:
            raise ValueError(f"Upsample {self.path}: expected images (C, H, W), got {signal.features}")
        if run.training:
            self._state = signal
        channels, height, width = signal.features
        features = (channels, height * self.factor[0], width * self.factor[1])
        trains = tuple(replace(t, words=self._repeated(t.words), features=features) for t in trains_of(signal))
        if isinstance(signal, SpikeTrain):
            return trains[0]
        terms = tuple(Spikes(train) for train in trains) or (
            Computed(lambda: self._repeated(signal_values(signal)), (*features, *signal.shape[3:]), unit_of(signal)),
        )
        return Current(
            terms,
            features,
            signal.timesteps,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )

    def _repeated(self, array: NDArray[Any]) -> NDArray[Any]:
        return array.repeat(self.factor[0], axis=1).repeat(self.factor[1], axis=2)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Sum over the repetitions."""
        signal, self._state = saved_state(self, self._state), None
        if not needs_gradient(signal):
            return None
        channels, height, width = signal.features
        blocks = (channels, height, self.factor[0], width, self.factor[1], -1)
        return map_gradient(gradient, lambda grad: grad.reshape(blocks).sum(axis=(2, 4)))

    def kind(self) -> str:
        """Class and factor."""
        return f"Upsample {self.factor[0]}x{self.factor[1]}"

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: a repeated spike counts where it is used."""
        counter.pass_on(signal, output, self._repeated)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Repeated pixels."""
        return writer.upsample(self.path, wire, self.factor)
