"""Dropout, whose masks are drawn by counter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import Current, Dense, Signal, needs_gradient, unit_of
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted, map_gradient
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape
from dsr.ops import Values, Words
from dsr.ops.arguments import as_number, shown

Mask = Literal["step", "sample"]


class Dropout(Layer):
    """Zeros each element with probability `p` in training, and scales the others.

    Parameters
    ----------
    p : float
        Probability in [0, 1).
    mask : {"step", "sample"}
        "step": drawn for every step of a sample. "sample": once for all steps of a sample.

    Notes
    -----
    Masks are bits drawn by counter from the layer's seed and the number of the forward pass, so they are the same for
    any number of threads and after a resume. Where batch normalisation above has the exact gradient, that varies in
    time; if the mask does too, the layer above has to compute its input gradient for every step. With one mask for all
    steps, or with a gradient that is the same at every step (`BatchNorm` with ``gradient="rate"``), it does not.
    """

    input_axes = "any"

    def __init__(self, p: float = 0.5, *, mask: Mask = "step") -> None:
        self.p = as_number("Dropout", "p", p, lambda value: 0 <= value < 1, "a number in [0, 1)")
        if mask not in get_args(Mask):
            raise ValueError(
                f"Dropout: argument 'mask': expected one of {', '.join(get_args(Mask))}, got {shown(mask)}"
            )
        self.mask = mask
        self.stream = np.zeros(2, np.uint32)  # seed, forward passes in training
        self._state: tuple[Signal, Words | None] | None = None  # the mask, with one step if it is the same at all

    def take(self, mask: Mask) -> None:
        """Change the mask, as a recipe does, unless the layer was made with one."""
        positional, named = self.made_with
        if "mask" not in named and mask != self.mask:
            self.mask, self.made_with = mask, (positional, {**named, "mask": mask})

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
            self._state = signal, None
            return signal
        keep = 1 - self.p
        channels, *pixels = image_shape(signal.features)
        steps = 1 if self.mask == "sample" else signal.timesteps
        shape = (ops.word_count(channels), *pixels, steps, signal.batch)
        seed = (int(self.stream[0]) << 32) | int(self.stream[1])
        self.stream[1] += np.uint32(1)
        mask = ops.dropout_words(np.full(shape, 0xFFFFFFFF, np.uint32), keep, seed)
        self._state = signal, mask
        weights = signal.time_weights if self.mask == "sample" else None
        if isinstance(signal, SpikeTrain):
            mask = np.concatenate([mask] * signal.planes)  # all spikes of a step or none
            return replace(signal, words=signal.words & mask, amplitude=signal.amplitude / keep, time_weights=weights)
        values = signal.final_values() * self._factors(mask, channels)
        return Current(
            (Dense(values, unit_of(signal)),),
            signal.features,
            signal.timesteps,
            time_weights=weights,
            needs_gradient=signal.needs_gradient,
        )

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Mask the gradient: of every step, or where it or the mask is the same at every step, without time."""
        signal, mask = saved_state(self, self._state)
        self._state = None
        if not needs_gradient(signal):
            return None
        if mask is None:
            return gradient
        factors = self._factors(mask, image_shape(signal.features)[0])
        if self.mask == "sample":
            once = factors[:, :, :, 0]
            return map_gradient(gradient, lambda grad: grad * np.tile(once, grad.shape[3] // max(once.shape[3], 1)))
        assert isinstance(gradient, Gradient)
        if gradient.terms or signal.time_weights is None:
            return as_wanted(signal, Gradient.from_dense(gradient.dense() * factors))
        return gradient.constant * ops.weighted_sum(factors, signal.time_weights)

    def _factors(self, mask: Words, channels: int) -> Values:
        return ops.unpack_words(mask, channels, 1 / (1 - self.p))

    def kind(self) -> str:
        """Class, and the mask where it is not drawn for every step."""
        return "Dropout" if self.mask == "step" else f"Dropout, one mask for a {self.mask}"

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None in evaluation."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Nothing: it acts in training only."""
        return wire

    def join_ranks(self, rank: int, total: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None) -> None:
        """Each rank draws masks of its own."""
        self.stream[0] ^= np.uint32(rank * 0x9E3779B1 % 2**32)  # odd: no two ranks get the same seed
