"""Dropout, whose masks are drawn by counter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import Current, Dense, Signal, needs_gradient
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape
from dsr.ops import Values
from dsr.ops.arguments import as_number


class Dropout(Layer):
    """Zeros each element with probability `p` in training, independently at every step, and scales the others.

    Parameters
    ----------
    p : float
        Probability in [0, 1).

    Notes
    -----
    Masks are bits drawn by counter from the layer's seed and the number of the forward pass, so they are the same for
    any number of threads and after a resume. With batch normalisation above, the gradient varies in time and the mask
    too: the layer above then has to compute its input gradient for every step.
    """

    input_axes = "any"

    def __init__(self, p: float = 0.5) -> None:
        self.p = as_number("Dropout", "p", p, lambda value: 0 <= value < 1, "a number in [0, 1)")
        self.stream = np.zeros(2, np.uint32)  # seed, forward passes in training
        self._state: tuple[Signal, Values] | None = None

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``stream``: seed and number of the pass."""
        return {"stream": self.stream}

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the seed."""
        self.stream[:] = rng.integers(2**32, dtype=np.uint32), 0

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Mask in training; nothing otherwise."""
        if not run.training:
            return signal
        if self.p == 0 or run.frozen:
            self._state = signal, np.empty(0, np.float32)
            return signal
        keep = 1 - self.p
        channels, *pixels = image_shape(signal.features)
        shape = (ops.word_count(channels), *pixels, signal.timesteps, signal.batch)
        seed = (int(self.stream[0]) << 32) | int(self.stream[1])
        self.stream[1] += np.uint32(1)
        mask = ops.dropout_words(np.full(shape, 0xFFFFFFFF, np.uint32), keep, seed)
        factors = ops.unpack_words(mask, channels, 1 / keep)
        self._state = signal, factors
        if isinstance(signal, SpikeTrain):
            mask = np.concatenate([mask] * signal.planes)  # all spikes of a step or none
            return replace(signal, words=signal.words & mask, amplitude=signal.amplitude / keep, time_weights=None)
        values = signal.final_values() * factors
        return Current((Dense(values),), signal.features, signal.timesteps, needs_gradient=signal.needs_gradient)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Mask the gradient of every step."""
        signal, factors = saved_state(self, self._state)
        self._state = None
        if not needs_gradient(signal):
            return None
        if factors.size == 0:
            return gradient
        assert isinstance(gradient, Gradient)
        return as_wanted(signal, Gradient.from_dense(gradient.dense() * factors))

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None in evaluation."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Nothing: it acts in training only."""
        return wire

    def join_ranks(self, rank: int, total: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None) -> None:
        """Each rank draws masks of its own."""
        self.stream[0] ^= np.uint32(rank * 0x9E3779B1 % 2**32)  # odd: no two ranks get the same seed
