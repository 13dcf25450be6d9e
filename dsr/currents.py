"""Current, what travels between layers and neurons, and Gradient, what travels back.

Gradients have no time axis between a neuron and the layer under it: a DSR neuron sends back the same gradient at every
step. Batch normalisation alone makes it vary, and always in one form: ``constant + slope * x[t]`` with its own input
current x. So a `Gradient` is a constant and a few such terms, whatever T is; it is summed over time, or written out,
only where a layer needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dsr import lanes
from dsr.lanes import Values
from dsr.spikes import SpikeTrain, from_lanes, to_lanes, uniform_weights


@dataclass(frozen=True, eq=False, repr=False)
class Current:
    """Float values of a layer over time.

    Attributes
    ----------
    values : ndarray of float32, shape (C, H, W, T, B) or (C, H, W, 1, B)
        One step stands for a current that is held for all T steps (direct coding).
    timesteps : int
        T.
    features : tuple of int
        ``(C, H, W)``, or ``(N,)`` for a vector.
    scale, shift : ndarray of float32, shape (C,), or None
        Per channel, still to be applied: ``scale * values + shift`` (batch normalisation leaves this to the neuron).
    time_weights : ndarray of float32, shape (T,), or None
        As in `SpikeTrain`: the producer wants the gradient summed with these weights. None: it wants every step.
    needs_gradient : bool
        False for data.
    owned : bool
        Nobody else holds `values`: who receives the current may change them in place.
    """

    values: Values
    timesteps: int
    features: tuple[int, ...]
    scale: Values | None = None
    shift: Values | None = None
    time_weights: Values | None = None
    needs_gradient: bool = True
    owned: bool = False
    _sums: dict[bytes, Values] = field(default_factory=dict, init=False)

    @classmethod
    def from_dense(cls, train: Values) -> Current:
        """Data of every time step, (T, B, C, H, W) or (T, B, N)."""
        return cls(to_lanes(train), len(train), train.shape[2:], needs_gradient=False)

    @classmethod
    def from_static(cls, sample: Values, timesteps: int) -> Current:
        """Data that is the same at every step, (B, C, H, W) or (B, N)."""
        return cls(to_lanes(sample[np.newaxis]), timesteps, sample.shape[1:], needs_gradient=False)

    @property
    def held(self) -> bool:
        """One step stands for all."""
        return self.values.shape[3] == 1 and self.timesteps > 1

    @property
    def batch(self) -> int:
        """B."""
        return int(self.values.shape[4])

    @property
    def channels(self) -> int:
        """C, or N of a vector."""
        return self.features[0]

    def weighted_sum(self, weights: Values) -> Values:
        """``sum_t weights[t] values[t]``, (C, H, W, B); computed once for each weights."""
        key = weights.tobytes()
        if key not in self._sums:
            if self.held:
                self._sums[key] = self.values[:, :, :, 0] * weights.sum(dtype=np.float32)
            else:
                self._sums[key] = lanes.weighted_sum(self.values, weights)
        return self._sums[key]

    def keep_sum(self, weights: Values, total: Values) -> None:
        """Note a weighted sum that a neuron computed on its way."""
        self._sums[weights.tobytes()] = total

    def final_values(self) -> Values:
        """`values` with scale and shift applied."""
        if self.scale is None or self.shift is None:
            return self.values
        return self.scale.reshape(-1, 1, 1, 1, 1) * self.values + self.shift.reshape(-1, 1, 1, 1, 1)

    def rate(self) -> Values:
        """Mean over time, (B, *features)."""
        return from_lanes(self.final_values().mean(axis=3, keepdims=True), self.features)[0]


Signal = SpikeTrain | Current


def signal_values(signal: Signal) -> Values:
    """Float lanes of either kind of signal, (C, H, W, T or 1, B)."""
    return signal.values() if isinstance(signal, SpikeTrain) else signal.final_values()


def needs_gradient(signal: Signal) -> bool:
    """Whether a backward pass has to go on below `signal`."""
    return isinstance(signal, SpikeTrain) or signal.needs_gradient


@dataclass(eq=False, repr=False)
class Gradient:
    """``g[t] = constant + sum over terms of slope * current.values[t]``.

    Attributes
    ----------
    constant : ndarray of float32, shape (C, H, W, B)
        The part that is the same at every step.
    timesteps : int
        T.
    terms : sequence of (slope (C,), Current)
        The parts that vary; none of these currents is held.
    """

    constant: Values
    timesteps: int
    terms: Sequence[tuple[Values, Current]] = ()
    _dense: Values | None = field(default=None, init=False)

    @classmethod
    def from_dense(cls, dense: Values) -> Gradient:
        """A gradient given at every step, (C, H, W, T, B)."""
        channels, height, width, timesteps, batch = dense.shape
        current = Current(dense, timesteps, (channels, height, width))
        constant = np.zeros((channels, height, width, batch), np.float32)
        gradient = cls(constant, timesteps, [(np.ones(channels, np.float32), current)])
        gradient._dense = dense
        return gradient

    def summed(self, weights: Values) -> Values:
        """``sum_t weights[t] g[t]``, (C, H, W, B)."""
        total = self.constant * weights.sum(dtype=np.float32)
        for slope, current in self.terms:
            total += slope.reshape(-1, 1, 1, 1) * current.weighted_sum(weights)
        return total

    def as_one_term(self) -> tuple[Values, Values | None, Values | None]:
        """The gradient as ``constant + slope * values[t]``; slope and values are None where nothing varies."""
        if not self.terms:
            return self.constant, None, None
        if len(self.terms) > 1:
            return Gradient.from_dense(self.dense()).as_one_term()
        slope, current = self.terms[0]
        return self.constant, slope, current.values

    def dense(self) -> Values:
        """Every step written out, (C, H, W, T, B); kept, since a shortcut asks for it again."""
        if self._dense is None:
            if not self.terms:
                steps = (*self.constant.shape[:3], self.timesteps, self.constant.shape[3])
                self._dense = np.ascontiguousarray(np.broadcast_to(self.constant[:, :, :, np.newaxis], steps))
            else:
                (slope, current), *rest = self.terms
                dense = lanes.expand_gradient(self.constant, current.values, slope)
                for slope, current in rest:
                    dense += slope.reshape(-1, 1, 1, 1, 1) * current.values
                self._dense = dense
        return self._dense

    def total(self) -> Values:
        """Sum over the steps, (C, H, W, B)."""
        return self.summed(uniform_weights(self.timesteps))


Backward = Gradient | Values


def add_gradients(a: Backward, b: Backward) -> Backward:
    """Sum of two gradients of one signal."""
    if isinstance(a, Gradient) and isinstance(b, Gradient):
        return Gradient(a.constant + b.constant, a.timesteps, [*a.terms, *b.terms])
    assert isinstance(a, np.ndarray) and isinstance(b, np.ndarray), "both follow the time weights of one signal"
    return a + b


def as_wanted(signal: Signal, gradient: Gradient) -> Backward:
    """The gradient in the form that the producer of `signal` asks for: summed over time, or every step."""
    return gradient if signal.time_weights is None else gradient.summed(signal.time_weights)
