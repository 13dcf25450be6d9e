"""Current: the float signal between layers, a sum of terms that is written out only where its numbers are needed.

A current is immutable. It says what it is the sum of (a convolution of spikes, spikes as they are, pooled spikes, dense
values), and which affine map of its channels is still to be applied; batch normalisation leaves that to the neuron. So
a residual connection is one list of terms after the other, and the reader of a current decides how to evaluate it:
neurons may turn a convolution into spikes without storing its values (`dsr.nn.evaluate`), a convolution may work on
the bits of pooled spikes. Every term gives the same bits each time, so that a training pass can drop the values of a
current and compute them again (`dsr.nn.run.Budget`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.spikes import SpikeTrain, binary, from_lanes, share_of, sum_planes, to_lanes, uniform_weights
from dsr.ops import PerChannel, Values, Words

_UNPACKED = 16 << 20
"""Bytes of values that pooling of spikes unpacks at a time, if a step is not larger."""


class Term:
    """A summand of a current."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(C, H, W, T, B)``; T is 1 for what is the same at every step."""
        raise NotImplementedError

    def add_to(self, out: Values | None) -> Values:
        """Add the term to `out` in place and return it; without it, write the term to a new array."""
        raise NotImplementedError

    @property
    def unit(self) -> PerChannel | None:
        """What a spike of each channel is worth, where the term is spikes or counts of them; else None."""
        return None

    def values(self) -> Values:
        """The term written out, for reading only."""
        return self.add_to(None)

    def of_samples(self, samples: NDArray[np.intp]) -> Term:
        """The term of some of the samples."""
        return Dense(np.take(self.values(), samples, axis=4))


@dataclass(frozen=True, eq=False)
class Dense(Term):
    """Values that are stored; `unit` as in `Term`."""

    array: Values
    unit: PerChannel | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.array.shape

    def add_to(self, out: Values | None) -> Values:
        """Copy, or add."""
        return self.array.copy() if out is None else np.add(out, self.array, out=out)

    def values(self) -> Values:
        """The array itself."""
        return self.array


@dataclass(frozen=True, eq=False)
class Computed(Term):
    """Values that are computed from another signal, such as the convolution of a current.

    Attributes
    ----------
    function : callable
        Gives them, as a new array.
    size : tuple of int
        Their shape.
    unit : float, ndarray of float32 or None
        As in `Term`.
    """

    function: Callable[[], Values]
    size: tuple[int, ...]
    unit: PerChannel | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of what the function gives."""
        return self.size

    def add_to(self, out: Values | None) -> Values:
        """Compute, and add."""
        return self.function() if out is None else np.add(out, self.function(), out=out)


@dataclass(frozen=True, eq=False)
class Spikes(Term):
    """The spikes of a train, each of its amplitude."""

    train: SpikeTrain

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the train's values."""
        return (self.train.channels, *self.train.words.shape[1:])

    @property
    def unit(self) -> PerChannel:
        """The amplitude."""
        return self.train.amplitude

    def trains(self) -> tuple[SpikeTrain, ...]:
        """The trains whose sum the term is."""
        return (self.train,)

    def counted(self) -> SpikeTrain:
        """Its sum over time in binary, see `SpikeTrain.counted`."""
        return self.train.counted()

    def of_samples(self, samples: NDArray[np.intp]) -> Term:
        """Of some of the bits."""
        return replace(self, train=self.train.of_samples(samples))

    def add_to(self, out: Values | None) -> Values:
        """Unpack, or add where a bit is set."""
        if out is None:
            return self.train.values()
        if self.train.planes > 1:
            return np.add(out, self.train.values(), out=out)
        return ops.add_words(self.train.words, out, self.train.amplitude)


@dataclass(frozen=True, eq=False)
class PooledSpikes(Spikes):
    """The mean of a train over windows; `kernel_size`, `stride` and `padding` are (vertical, horizontal)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the pooled values."""
        image, inner = self.train.words.shape[1:3], self.train.words.shape[3:]
        axes = zip(image, self.kernel_size, self.stride, self.padding, strict=True)
        return (self.train.channels, *(ops.output_size(*axis) for axis in axes), *inner)

    @property
    def unit(self) -> PerChannel:
        """Of a spike in a window."""
        return share_of(self.train.amplitude, prod(self.kernel_size))

    def trains(self) -> tuple[SpikeTrain, ...]:
        """Trains of amplitudes a, 2 a, 4 a, ...: the digits of the spikes counted in each window."""
        train, features = self.train, self.shape[:3]
        amplitude = self.unit
        return tuple(
            SpikeTrain(words, features, amplitude * 2**k, train.time_weights) for k, words in enumerate(self._planes())
        )

    def counted(self) -> SpikeTrain:
        """Of the spikes in each window."""
        counts = ops.count_steps(self._planes(), self._most())
        return binary(counts, self.shape[:3], self.unit)

    def _most(self) -> int:
        """Spikes of a window at most."""
        return (2**self.train.planes - 1) * prod(self.kernel_size)

    def _planes(self) -> Words:
        """Binary digits of the spikes in each window, (digits, ceil(C / 32), H', W', T, B)."""
        parts = [
            ops.pool_planes(part.words, self.kernel_size, self.stride, self.padding) for part in self.train.split()
        ]
        return parts[0] if self.train.planes == 1 else sum_planes(parts, self._most().bit_length())

    def add_to(self, out: Values | None) -> Values:
        """Unpack and pool, and add: a few steps at a time, since there are more pixels before than after."""
        words, total = self.train.words, np.empty(self.shape, np.float32) if out is None else out
        step = max(_UNPACKED // max(4 * self.train.channels * prod(words.shape[1:3]) * self.train.batch, 1), 1)
        for first in range(0, self.train.timesteps, step):
            steps = (slice(None),) * 3 + (slice(first, first + step),)
            values = replace(self.train, words=np.ascontiguousarray(words[steps]), time_weights=None).values()
            flat = values.reshape(*values.shape[:3], -1)
            pooled = ops.avg_pool(flat, self.kernel_size, self.stride, self.padding)
            part = pooled.reshape(*pooled.shape[:3], *values.shape[3:])
            total[steps] = part if out is None else total[steps] + part
        return total


@dataclass(frozen=True, eq=False)
class ConvolvedSpikes(Term):
    """The sum of convolutions of trains.

    Attributes
    ----------
    convolutions : tuple of SpikeConvolution
        One for each train, in the order of the sum.
    trains : tuple of SpikeTrain
        The trains.
    """

    convolutions: tuple[ops.SpikeConvolution, ...]
    trains: tuple[SpikeTrain, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the output."""
        convolution = self.convolutions[0]
        _, height, width, *inner = convolution.words.shape
        return (len(convolution.weight), *convolution.geometry.output_size(height, width), *inner)

    def add_to(self, out: Values | None) -> Values:
        """Convolve to a new array, or into `out`."""
        total = out
        for c in self.convolutions:
            total = ops.conv2d_spikes(c.words, c.weight, c.bias, c.amplitude, c.geometry, c.table_bits, total)
        assert total is not None
        return total

    def of_samples(self, samples: NDArray[np.intp]) -> Term:
        """Of some of the bits."""
        trains = tuple(train.of_samples(samples) for train in self.trains)
        parts = (replace(c, words=train.words) for c, train in zip(self.convolutions, trains, strict=True))
        return ConvolvedSpikes(tuple(parts), trains)


class Asked:
    """Whether the gradient of a network's data is asked for, which `Network.backward` says after the forward pass."""

    def __init__(self) -> None:
        self.yes = False

    def __bool__(self) -> bool:
        return self.yes


class Written:
    """Values of a sum of terms while they are kept, whether a backward pass will read them, and their sums."""

    def __init__(self) -> None:
        self.values: Values | None = None
        self.needed = False
        self.sums: dict[bytes, Values] = {}

    def drop(self) -> None:
        """Forget the values; they are computed again, with the same bits, when they are needed."""
        self.values = None


@dataclass(frozen=True, eq=False, repr=False)
class Current:
    """Float values of a layer over time.

    Attributes
    ----------
    terms : tuple of Term
        What it is the sum of, in the order of the sum.
    features : tuple of int
        ``(C, H, W)``; ``(C, L)`` for a signal, whose terms have ``H, W = 1, L``; or ``(N,)`` for a vector, whose terms
        have ``C, H, W = N, 1, 1``.
    timesteps : int
        T.
    scale, shift : ndarray of float32, shape (C,), or None
        Per channel, still to be applied: ``scale * sum + shift``.
    time_weights : ndarray of float32, shape (T,), or None
        As in `SpikeTrain`: the producer wants the gradient summed with these weights. None: it wants every step.
    needs_gradient : bool or Asked
        False for data, unless somebody asks.
    """

    terms: tuple[Term, ...]
    features: tuple[int, ...]
    timesteps: int
    scale: Values | None = None
    shift: Values | None = None
    time_weights: Values | None = None
    needs_gradient: bool | Asked = True
    written: Written = field(default_factory=Written)  # shared by copies that differ in scale and shift only
    shape: tuple[int, ...] = field(init=False)
    """Shape of `values`, ``(C, H, W, T, B)``; T is 1 where all terms are the same at every step."""

    def __post_init__(self) -> None:
        # once: convolutions compute theirs anew each time, and a training step asks a hundred times
        shape = max((term.shape for term in self.terms), key=lambda shape: shape[3])
        object.__setattr__(self, "shape", shape)

    @classmethod
    def of(cls, values: Values) -> Current:
        """Values of images, (C, H, W, T, B)."""
        return cls((Dense(values),), values.shape[:3], values.shape[3])

    @classmethod
    def from_dense(cls, train: Values, needs_gradient: bool | Asked = False) -> Current:
        """Data of every time step, ``(T, B, *features)``."""
        return cls((Dense(to_lanes(train)),), train.shape[2:], len(train), needs_gradient=needs_gradient)

    @classmethod
    def from_static(cls, sample: Values, timesteps: int, needs_gradient: bool | Asked = False) -> Current:
        """Data that is the same at every step, ``(B, *features)``."""
        terms = (Dense(to_lanes(sample[np.newaxis])),)
        return cls(terms, sample.shape[1:], timesteps, needs_gradient=needs_gradient)

    @property
    def is_static(self) -> bool:
        """One step stands for all."""
        return self.shape[3] == 1 and self.timesteps > 1

    @property
    def batch(self) -> int:
        """B."""
        return self.shape[4]

    @property
    def channels(self) -> int:
        """C, or N of a vector."""
        return self.features[0]

    @property
    def nbytes(self) -> int:
        """Bytes of `values`, kept or not."""
        return 4 * prod(self.shape)

    @property
    def is_written(self) -> bool:
        """Whether `values` are there without computing anything."""
        return self.written.values is not None or (isinstance(self.terms[0], Dense) and len(self.terms) == 1)

    def values(self) -> Values:
        """The sum of the terms, without scale and shift; kept until ``written.drop``, and for reading only."""
        if self.written.values is None:
            self.written.values = self._sum()
        return self.written.values

    def _sum(self) -> Values:
        first, *others = self.terms
        if not others:
            return first.values()
        total = first.add_to(None)
        for term in others:
            # of different shapes: one of them is the same at every step
            total = term.add_to(total) if term.shape == total.shape else total + term.values()
        return total

    @property
    def is_needed(self) -> bool:
        """Whether the backward pass will read `values`, as the exact gradient of batch normalisation does."""
        return self.written.needed

    def need(self) -> None:
        """Note that it will."""
        self.written.needed = True

    def weighted_sum(self, weights: Values) -> Values:
        """``sum_t weights[t] values[t]``, (C, H, W, B); computed once for each weights, and kept."""
        sums, key = self.written.sums, weights.tobytes()
        if key not in sums:
            values = self.values()
            if values.shape[3] == 1:
                sums[key] = values[:, :, :, 0] * weights.sum(dtype=np.float32)
            else:
                sums[key] = ops.weighted_sum(values, weights)
        return sums[key]

    def of_samples(self, samples: NDArray[np.intp]) -> Current:
        """The current of some of the samples."""
        return Current(tuple(term.of_samples(samples) for term in self.terms), self.features, self.timesteps)

    def has_sum(self, weights: Values) -> bool:
        """Whether `weighted_sum` is known already."""
        return weights.tobytes() in self.written.sums

    def keep_sum(self, weights: Values, total: Values) -> None:
        """Note a weighted sum that a neuron computed on its way."""
        self.written.sums[weights.tobytes()] = total

    def final_values(self) -> Values:
        """`values` with scale and shift applied."""
        if self.scale is None or self.shift is None:
            return self.values()
        return ops.affine(self.values(), self.scale, self.shift)

    def mean(self, weights: Values) -> Values:
        """Mean over time with `weights`, scale and shift applied, (C, H, W, B)."""
        channels, total = self.shape[0], self.weighted_sum(weights)
        scale = np.ones(channels, np.float32) if self.scale is None else self.scale
        shift = np.zeros(channels, np.float32) if self.shift is None else self.shift
        return ops.affine(total, scale / np.float32(self.timesteps), shift)

    def rate(self) -> Values:
        """Mean over time, ``(B, *features)``."""
        mean = self.mean(uniform_weights(self.timesteps))
        return from_lanes(mean[:, :, :, np.newaxis], self.features)[0]

    def __repr__(self) -> str:
        kinds = " + ".join(type(term).__name__ for term in self.terms)
        shape = (self.timesteps, self.batch, *self.features)
        return f"Current(shape={shape}, {kinds}{'' if self.scale is None else ', scaled and shifted'})"


Signal = SpikeTrain | Current


def as_current(signal: Signal) -> Current:
    """The signal as a current."""
    if isinstance(signal, Current):
        return signal
    return Current((Spikes(signal),), signal.features, signal.timesteps, time_weights=signal.time_weights)


def terms_of(signal: Signal) -> tuple[Term, ...]:
    """What the signal is the sum of; a current with a scale and a shift is one term."""
    current = as_current(signal)
    return current.terms if current.scale is None else (Computed(partial(_scaled, current), current.shape),)


def _scaled(current: Current) -> Values:
    """The final values of a current that nothing else reads; those before them are dropped unless they are needed."""
    values = current.final_values()
    if not current.is_needed:
        current.written.drop()
    return values


def trains_of(signal: Signal) -> tuple[SpikeTrain, ...]:
    """The trains whose sum the signal is; none if it is anything else."""
    terms = terms_of(signal)
    spikes = [term for term in terms if isinstance(term, Spikes)]
    return tuple(train for term in spikes for train in term.trains()) if len(spikes) == len(terms) else ()


def unit_of(signal: Signal) -> PerChannel | None:
    """What a spike of each channel is worth in a signal of spikes, of counts of spikes or of their sums; else None.

    Where the terms of a sum differ, it is that of the first term.
    """
    units = [term.unit for term in terms_of(signal)]
    return None if any(unit is None for unit in units) else units[0]


def counts_of(signal: Signal) -> tuple[SpikeTrain, ...]:
    """The sum over time of a signal that is a sum of spikes, as numbers in binary, see `SpikeTrain.counted`."""
    return tuple(term.counted() for term in terms_of(signal) if isinstance(term, Spikes))


def signal_values(signal: Signal) -> Values:
    """Values of either kind of signal, (C, H, W, T or 1, B), for reading only."""
    return signal.values() if isinstance(signal, SpikeTrain) else signal.final_values()


def needs_gradient(signal: Signal) -> bool | Asked:
    """Whether a backward pass has to go on below `signal`."""
    return isinstance(signal, SpikeTrain) or signal.needs_gradient
