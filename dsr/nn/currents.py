"""Current, what travels between layers and neurons, and Gradient, what travels back.

Gradients have no time axis between a neuron and the layer under it: a DSR neuron sends back the same gradient at every
step. Batch normalisation alone makes it vary, and always in one form: ``constant + slope * x[t]`` with its own input
current x. So a `Gradient` is a constant and a few such terms, whatever T is; it is summed over time, or written out,
only where a layer needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import prod

import numpy as np

from dsr import ops
from dsr.nn.spikes import SpikeTrain, from_lanes, to_lanes, uniform_weights
from dsr.ops import SpikeConvolution, Values


class Store:
    """Values that can be dropped and computed again, and their sums over time, which stay.

    Parameters
    ----------
    values : ndarray of float32, shape (C, H, W, T, B) or (C, H, W, 1, B)
        The values.
    again : callable, optional
        Computes them once more, bit for bit; None: they cannot be dropped.
    """

    def __init__(self, values: Values, again: Callable[[], Values] | None = None) -> None:
        self._values: Values | None = values
        self.again = again
        self.shape: tuple[int, ...] = values.shape
        self._sums: dict[bytes, Values] = {}
        self._convolution: SpikeConvolution | None = None

    @classmethod
    def later(cls, shape: tuple[int, ...], again: Callable[[], Values]) -> Store:
        """Values that are computed when somebody asks for them."""
        store = cls(np.empty(0, np.float32), again)
        store._values, store.shape = None, shape
        return store

    @classmethod
    def convolution(cls, shape: tuple[int, ...], convolution: SpikeConvolution, again: Callable[[], Values]) -> Store:
        """Values that a neuron may turn into spikes without ever storing them."""
        store = cls.later(shape, again)
        store._convolution = convolution
        return store

    @property
    def pending(self) -> SpikeConvolution | None:
        """The convolution that gives the values, as long as they have not been computed."""
        return self._convolution if self._values is None else None

    @property
    def values(self) -> Values:
        """The values, computed again if they were dropped."""
        if self._values is None:
            assert self.again is not None
            self._values = self.again()
        return self._values

    def drop(self) -> None:
        """Forget the values, if they can be computed again."""
        if self.again is not None:
            self._values = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values, dropped or not."""
        return 4 * prod(self.shape)

    def weighted_sum(self, weights: Values) -> Values:
        """``sum_t weights[t] values[t]``, (C, H, W, B); computed once for each weights."""
        key = weights.tobytes()
        if key not in self._sums:
            if self.shape[3] == 1:
                self._sums[key] = self.values[:, :, :, 0] * weights.sum(dtype=np.float32)
            else:
                self._sums[key] = ops.weighted_sum(self.values, weights)
        return self._sums[key]

    def keep_sum(self, weights: Values, total: Values) -> None:
        """Note a weighted sum that a neuron computed on its way."""
        self._sums[weights.tobytes()] = total


class Keeper:
    """Decides which currents a training pass keeps for its backward pass.

    They are kept as long as they fit the budget together; beyond it the largest is dropped, and computed again when the
    backward pass asks for it. (Convolutions cost about the same at every stage of a network, but the first stages have
    the largest currents.)

    Parameters
    ----------
    budget : int
        Bytes.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.total, self._seen = budget, 0, 0
        self._kept: list[tuple[int, int, Store]] = []  # a heap, largest first; the number breaks ties

    def keep(self, store: Store) -> None:
        """Keep the store's values if there is room, or if there are larger ones to drop."""
        if store.again is None:
            return
        self._seen += 1
        heappush(self._kept, (-store.nbytes, self._seen, store))
        self.total += store.nbytes
        while self.total > self.budget:
            _, _, largest = heappop(self._kept)
            self.total -= largest.nbytes
            largest.drop()


@dataclass(frozen=True, eq=False, repr=False)
class Current:
    """Float values of a layer over time.

    Attributes
    ----------
    store : Store
        The values, (C, H, W, T, B); or (C, H, W, 1, B), one step for a current that is held for all (direct coding).
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
        Nobody else holds the values: who receives the current may change them in place.
    parts : tuple of SpikeTrain
        Trains whose sum the values are, if it is one: pooled spikes, counted in binary. A convolution works on them.
    """

    store: Store
    timesteps: int
    features: tuple[int, ...]
    scale: Values | None = None
    shift: Values | None = None
    time_weights: Values | None = None
    needs_gradient: bool = True
    owned: bool = False
    parts: tuple[SpikeTrain, ...] = ()

    @classmethod
    def from_dense(cls, train: Values) -> Current:
        """Data of every time step, (T, B, C, H, W) or (T, B, N)."""
        return cls(Store(to_lanes(train)), len(train), train.shape[2:], needs_gradient=False)

    @classmethod
    def from_static(cls, sample: Values, timesteps: int) -> Current:
        """Data that is the same at every step, (B, C, H, W) or (B, N)."""
        return cls(Store(to_lanes(sample[np.newaxis])), timesteps, sample.shape[1:], needs_gradient=False)

    @property
    def values(self) -> Values:
        """What the store holds, without scale and shift."""
        return self.store.values

    @property
    def held(self) -> bool:
        """One step stands for all."""
        return self.store.shape[3] == 1 and self.timesteps > 1

    @property
    def batch(self) -> int:
        """B."""
        return int(self.store.shape[4])

    @property
    def channels(self) -> int:
        """C, or N of a vector."""
        return self.features[0]

    def final_values(self) -> Values:
        """`values` with scale and shift applied."""
        if self.scale is None or self.shift is None:
            return self.values
        return ops.affine(self.values, self.scale, self.shift)

    def mean(self, weights: Values) -> Values:
        """Mean over time with `weights`, scale and shift applied, (C, H, W, B)."""
        channels, total = self.store.shape[0], self.store.weighted_sum(weights)
        scale = np.ones(channels, np.float32) if self.scale is None else self.scale
        shift = np.zeros(channels, np.float32) if self.shift is None else self.shift
        return ops.affine(total, scale / np.float32(self.timesteps), shift)

    def rate(self) -> Values:
        """Mean over time, (B, *features)."""
        mean = self.mean(uniform_weights(self.timesteps))
        return from_lanes(mean[:, :, :, np.newaxis], self.features)[0]


Signal = SpikeTrain | Current


def signal_values(signal: Signal) -> Values:
    """Float lanes of either kind of signal, (C, H, W, T or 1, B)."""
    return signal.values() if isinstance(signal, SpikeTrain) else signal.final_values()


def needs_gradient(signal: Signal) -> bool:
    """Whether a backward pass has to go on below `signal`."""
    return isinstance(signal, SpikeTrain) or signal.needs_gradient


@dataclass(eq=False, repr=False)
class Gradient:
    """``g[t] = constant + sum over terms of slope * store.values[t]``.

    Attributes
    ----------
    constant : ndarray of float32, shape (C, H, W, B)
        The part that is the same at every step.
    timesteps : int
        T.
    terms : sequence of (slope (C,), Store)
        The parts that vary; each store has T steps.
    """

    constant: Values
    timesteps: int
    terms: Sequence[tuple[Values, Store]] = ()
    _dense: Values | None = field(default=None, init=False)
    _summed: dict[bytes, Values] = field(default_factory=dict, init=False)

    @classmethod
    def from_dense(cls, dense: Values) -> Gradient:
        """A gradient given at every step, (C, H, W, T, B)."""
        channels, height, width, timesteps, batch = dense.shape
        constant = np.zeros((channels, height, width, batch), np.float32)
        gradient = cls(constant, timesteps, [(np.ones(channels, np.float32), Store(dense))])
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
        for slope, store in self.terms:
            total = ops.affine(total, factor, np.zeros(channels), store.weighted_sum(weights), slope)
            factor = np.ones(channels, np.float32)
        return total

    def as_one_term(self) -> tuple[Values, Values | None, Values | None]:
        """The gradient as ``constant + slope * values[t]``; slope and values are None where nothing varies."""
        if not self.terms:
            return self.constant, None, None
        if len(self.terms) > 1:
            return Gradient.from_dense(self.dense()).as_one_term()
        slope, store = self.terms[0]
        return self.constant, slope, store.values

    def dense(self) -> Values:
        """Every step written out, (C, H, W, T, B); kept, since a shortcut asks for it again."""
        if self._dense is None:
            if not self.terms:
                steps = (*self.constant.shape[:3], self.timesteps, self.constant.shape[3])
                self._dense = np.ascontiguousarray(np.broadcast_to(self.constant[:, :, :, np.newaxis], steps))
            else:
                (slope, store), *rest = self.terms
                dense = ops.expand_gradient(self.constant, store.values, slope)
                for slope, store in rest:
                    dense += slope.reshape(-1, 1, 1, 1, 1) * store.values
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
