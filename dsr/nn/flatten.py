"""Images to vectors."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from dsr import ops
from dsr.nn.currents import Current, Dense, Signal, needs_gradient, unit_of
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import SignalGradient, map_gradient
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, flattened_unit, image_shape


class Flatten(Layer):
    """Images (C, H, W) to vectors (C H W,), in this order."""

    def __init__(self) -> None:
        self._state: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Nothing moves where the image is one pixel; spikes of larger images are packed anew."""
        if run.training:
            self._state = signal
        features = (prod(signal.features),)
        if isinstance(signal, SpikeTrain):
            words = signal.words
            if words.shape[1:3] != (1, 1):
                planes = [train.values() for train in signal.split()]
                words = np.concatenate([ops.pack_words(v.reshape(*features, 1, 1, *v.shape[3:])) for v in planes])
            return replace(
                signal, words=words, features=features, amplitude=flattened_unit(signal.amplitude, features[0])
            )
        values, unit = signal.final_values(), unit_of(signal)
        unit = None if unit is None else flattened_unit(unit, features[0])
        return Current(
            (Dense(values.reshape(*features, 1, 1, *values.shape[3:]), unit),),
            features,
            signal.timesteps,
            time_weights=signal.time_weights,
            needs_gradient=signal.needs_gradient,
        )

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Back to images."""
        signal, self._state = saved_state(self, self._state), None
        if not needs_gradient(signal):
            return None
        image = image_shape(signal.features)
        return map_gradient(gradient, lambda grad: grad.reshape(*image, -1))

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None: spikes only get other places."""
        counter.pass_on(signal, output, lambda numbers: numbers.reshape(-1, 1, 1))

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Flatten all axes."""
        return writer.flatten(self.path, wire)
