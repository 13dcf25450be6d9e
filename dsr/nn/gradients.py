"""Gradient: what travels back between layers, without a time axis wherever the method allows it.

A DSR neuron sends back the same gradient at every step. Batch normalisation alone makes it vary, and always in one
form: ``constant + slope * x[t]`` with its own input current x. So a `Gradient` is a constant and a few such terms,
whatever T is; it is summed over time, or written out, only where a layer needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dsr import ops
from dsr.nn.currents import Current, Signal
from dsr.nn.spikes import uniform_weights
from dsr.ops import Values


@dataclass(eq=False, repr=False)
class Gradient:
    """``g[t] = constant + sum over terms of slope * current.values()[t]``.

    Attributes
    ----------
    constant : ndarray of float32, shape (C, H, W, B)
        The part that is the same at every step.
    timesteps : int
        T.
    terms : sequence of (slope (C,), Current)
        The parts that vary; each current has values of T steps.
    """

    constant: Values
    timesteps: int
    terms: Sequence[tuple[Values, Current]] = ()
    _dense: Values | None = field(default=None, init=False)
    _summed: dict[bytes, Values] = field(default_factory=dict, init=False)

    @classmethod
    def from_dense(cls, dense: Values) -> Gradient:
        """A gradient given at every step, (C, H, W, T, B)."""
        channels, height, width, timesteps, batch = dense.shape
        constant = np.zeros((channels, height, width, batch), np.float32)
        gradient = cls(constant, timesteps, [(np.ones(channels, np.float32), Current.of(dense))])
        gradient._dense = dense
        return gradient

    def summed(self, weights: Values) -> Values:
        """``sum_t weights[t] g[t]``, (C, H, W, B); computed once for each weights, so it must not be changed."""
        key = weights.tobytes()
        if key not in self._summed:
            self._summed[key] = self._sum(weights)
        return self._summed[key]

    def _sum(self, weights: Values) -> Values:
        channels = len(self.constant)
        total, factor = self.constant, np.full(channels, weights.sum(dtype=np.float32))
        if not self.terms:
            return total * factor[0]
        for slope, current in self.terms:
            total = ops.affine(total, factor, np.zeros(channels), current.weighted_sum(weights), slope)
            factor = np.ones(channels, np.float32)
        return total

    def as_one_term(self) -> tuple[Values, Values | None, Values | None]:
        """The gradient as ``constant + slope * values[t]``; slope and values are None where nothing varies."""
        if not self.terms:
            return self.constant, None, None
        if len(self.terms) > 1:
            return Gradient.from_dense(self.dense()).as_one_term()
        slope, current = self.terms[0]
        return self.constant, slope, current.values()

    def dense(self) -> Values:
        """Every step written out, (C, H, W, T, B); kept, since a shortcut asks for it again."""
        if self._dense is None:
            if not self.terms:
                steps = (*self.constant.shape[:3], self.timesteps, self.constant.shape[3])
                self._dense = np.ascontiguousarray(np.broadcast_to(self.constant[:, :, :, np.newaxis], steps))
            else:
                (slope, current), *rest = self.terms
                dense = ops.expand_gradient(self.constant, current.values(), slope)
                for slope, current in rest:
                    dense += slope.reshape(-1, 1, 1, 1, 1) * current.values()
                self._dense = dense
        return self._dense

    def total(self) -> Values:
        """Sum over the steps, (C, H, W, B)."""
        return self.summed(uniform_weights(self.timesteps))

    def mean_over_time(self) -> Gradient:
        """The gradient whose every step is the mean over the steps."""
        return Gradient(self.total() / np.float32(self.timesteps), self.timesteps) if self.terms else self

    def map(self, function: Callable[[Values], Values]) -> Gradient:
        """A linear map of (C, H, W, L) arrays applied to every step."""
        if not self.terms:
            return Gradient(function(self.constant), self.timesteps)
        dense = self.dense()
        mapped = function(dense.reshape(*dense.shape[:3], -1))
        return Gradient.from_dense(mapped.reshape(*mapped.shape[:3], *dense.shape[3:]))


SignalGradient = Gradient | Values
"""The gradient of a signal: of every step, or, where the signal has `time_weights`, their weighted sum (C, H, W, B)."""


def add_gradients(a: SignalGradient, b: SignalGradient) -> SignalGradient:
    """Sum of two gradients of one signal."""
    if isinstance(a, Gradient) and isinstance(b, Gradient):
        return Gradient(a.constant + b.constant, a.timesteps, [*a.terms, *b.terms])
    assert isinstance(a, np.ndarray) and isinstance(b, np.ndarray), "both follow the time weights of one signal"
    return a + b


def as_wanted(signal: Signal, gradient: Gradient) -> SignalGradient:
    """The gradient in the form that the producer of `signal` asks for: summed over time, or every step."""
    return gradient if signal.time_weights is None else gradient.summed(signal.time_weights)


def map_gradient(gradient: SignalGradient, function: Callable[[Values], Values]) -> SignalGradient:
    """A linear map of (C, H, W, L) arrays applied to a gradient in either form."""
    return gradient.map(function) if isinstance(gradient, Gradient) else function(gradient)
