"""SpikeTrain: spikes as bits, the one thing that travels from neurons to the layers above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr import ops
from dsr.ops import PerChannel, Values, Words
from dsr.ops.arguments import LARGEST, SMALLEST, as_array, as_number
from dsr.ops.exponential import exp


def uniform_weights(timesteps: int) -> Values:
    """Time weights of an IF train: all one."""
    return np.ones(timesteps, np.float32)


def decaying_weights(timesteps: int, tau: float, delta_t: float) -> Values:
    """Time weights of a LIF train, ``exp(-(delta_t / tau) (T - 1 - t))``, scaled to the sum T."""
    weights = np.array([exp(-(delta_t / tau) * (timesteps - 1 - t)) for t in range(timesteps)])
    return (timesteps * weights / weights.sum()).astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class SpikeTrain:
    """Spikes of a layer over time, 32 channels a word, time and batch innermost.

    Attributes
    ----------
    words : ndarray of uint32, shape (planes ceil(C / 32), H, W, T, B)
        Channel c is bit ``c % 32`` of word ``c // 32``; bits of channels that do not exist are zero.
    features : tuple of int
        ``(C, H, W)``; ``(C, L)`` for a signal, whose words have ``H, W = 1, L``; or ``(N,)`` for a vector, whose words
        have ``C, H, W = N, 1, 1``.
    amplitude : float or ndarray of float32, shape (C,)
        What a spike is worth, on all channels or on each: `v_threshold` (IF), ``v_threshold / delta_t`` (LIF).
    time_weights : ndarray of float32, shape (T,), or None
        Weights of the representation, of mean 1 (but for `counted`): how the neuron below reads time in `rate`, and how
        it wants the gradient summed over time. None: a layer such as dropout that wants the gradient of every step.
    planes : int
        Binary digits of the number of spikes of a step: 1, or more of graded spikes. Then the words are those of the
        lowest digit, followed by those of the next one, and so on.
    """

    words: Words
    features: tuple[int, ...]
    amplitude: PerChannel
    time_weights: Values | None
    planes: int = 1

    @classmethod
    def from_dense(cls, train: ArrayLike, amplitude: float = 1.0, time_weights: Values | None = None) -> SpikeTrain:
        """Pack a time-first array.

        Parameters
        ----------
        train : array_like, shape (T, B, C, H, W), (T, B, C, L) or (T, B, N)
            A spike is any value other than zero.
        amplitude : float
            What a spike is worth.
        time_weights : ndarray of float32, shape (T,), optional
            Weights of the representation; by default all one.

        Raises
        ------
        TypeError, ValueError
            `train` is not an array of real numbers of one of these shapes.
        """
        dense = as_array("SpikeTrain.from_dense", "train", train)
        if dense.ndim not in (3, 4, 5) or dense.shape[0] == 0:
            raise ValueError(
                "SpikeTrain.from_dense: argument 'train': expected shape (T, B, C, H, W), (T, B, C, L) or (T, B, N) "
                f"with T >= 1, got {dense.shape}"
            )
        amplitude = as_number(
            "SpikeTrain.from_dense", "amplitude", amplitude, lambda a: SMALLEST <= abs(a) <= LARGEST, "a number but 0"
        )
        weights = uniform_weights(len(dense))
        if time_weights is not None:
            weights = np.asarray(as_array("SpikeTrain.from_dense", "time_weights", time_weights), np.float32)
        if weights.shape != dense.shape[:1]:
            raise ValueError(
                f"SpikeTrain.from_dense: argument 'time_weights': expected {len(dense)} numbers, got shape "
                f"{weights.shape}"
            )
        return cls(ops.pack_words(to_lanes(dense != 0)), dense.shape[2:], amplitude, weights)

    def dense(self) -> Values:
        """Unpack to a time-first float32 array of `amplitude` for each spike, ``(T, B, *features)``."""
        return from_lanes(self.values(), self.features)

    def values(self) -> Values:
        """Unpack to float32 lanes, (C, H, W, T, B)."""
        if self.planes == 1:
            return ops.unpack_words(self.words, self.channels, self.amplitude)
        numbers = self.numbers()
        return np.multiply(numbers, by_channel(self.amplitude), out=numbers)

    def numbers(self) -> Values:
        """How many spikes there are, (C, H, W, T, B)."""
        lowest, *others = self.split()
        numbers = ops.unpack_words(lowest.words, self.channels)
        for plane, other in enumerate(others, 1):
            ops.add_words(other.words, numbers, float(2**plane))
        return numbers

    def split(self) -> tuple[SpikeTrain, ...]:
        """The planes, trains of amplitudes a, 2 a, 4 a, ... whose sum this one is; the train itself if it has one."""
        if self.planes == 1:
            return (self,)
        words = self.words.reshape(self.planes, len(self.words) // self.planes, *self.words.shape[1:])
        return tuple(replace(self, words=w, amplitude=self.amplitude * 2**k, planes=1) for k, w in enumerate(words))

    @property
    def common_amplitude(self) -> float:
        """What a spike of any channel is worth beside what `weigh` tells of the channels."""
        return 1.0 if isinstance(self.amplitude, np.ndarray) else self.amplitude

    def weigh(self, kernel: Values) -> Values:
        """A kernel (O, C / groups, KH, KW) as the words want it: itself if channels have one amplitude, and one plane.

        The amplitudes of channels go into its weights. Planes are channels of their own, ``32 ceil(C / 32)`` each,
        whose weights are 1, 2, 4, ... times these; there is no kernel of several groups for them.
        """
        weighed = kernel
        if isinstance(self.amplitude, np.ndarray):
            inner = kernel.shape[1]
            groups = self.channels // inner
            by_group = kernel.reshape(groups, len(kernel) // groups, *kernel.shape[1:])
            weighed = (by_group * self.amplitude.reshape(groups, 1, inner, 1, 1)).reshape(kernel.shape)
        if self.planes == 1:
            return weighed
        wide = np.zeros(self.weighed_shape(kernel.shape), np.float32)
        for plane, part in enumerate(np.split(wide, self.planes, axis=1)):
            np.multiply(weighed, np.float32(2**plane), out=part[:, : kernel.shape[1]])
        return wide

    def weighed_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what `weigh` makes of a kernel of this shape."""
        return shape if self.planes == 1 else (shape[0], 32 * len(self.words), *shape[2:])

    def kernel_gradient(self, weighed: Values, shape: tuple[int, ...]) -> Values:
        """The gradient of a kernel of this shape, given that of what `weigh` makes of it."""
        if self.planes == 1:
            return self.weigh(weighed)
        parts = [
            part[:, : shape[1]] * np.float32(2**k) for k, part in enumerate(np.split(weighed, self.planes, axis=1))
        ]
        return replace(self, planes=1).weigh(sum(parts[1:], parts[0]))

    @property
    def channels(self) -> int:
        """C, or N of a vector."""
        return self.features[0]

    @property
    def timesteps(self) -> int:
        """T."""
        return int(self.words.shape[3])

    @property
    def batch(self) -> int:
        """B."""
        return int(self.words.shape[4])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `dense`, time first."""
        return (self.timesteps, self.batch, *self.features)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed spikes."""
        return self.words.nbytes

    def counts(self) -> NDArray[np.int64]:
        """Spikes of each channel over all pixels, steps and samples, shape (C,)."""
        planes = (2**k * ops.count_words(part.words, self.channels) for k, part in enumerate(self.split()))
        return np.sum(list(planes), axis=0)

    def firing_rate(self) -> float:
        """Spikes per neuron and time step, in [0, 1]; of graded ones up to the most of a step."""
        return sum(2**k * part for k, part in enumerate(self._set_bits())) / max(prod(self.shape), 1)

    def density(self) -> float:
        """Share of the bits that are set, in all planes: the firing rate where there is one."""
        return sum(self._set_bits()) / max(prod(self.shape) * self.planes, 1)

    def _set_bits(self) -> list[int]:
        """Bits that are set in each plane; counted once."""
        # no cached_property: Python 3.11 has one lock for all trains, which a forked child may find taken for ever
        kept: dict[str, list[int]] = vars(self)
        if "_bits" not in kept:
            kept["_bits"] = [ops.count_bits(part.words) for part in self.split()]
        return kept["_bits"]

    def counted(self) -> SpikeTrain:
        """The spikes of each neuron counted over time: a train whose steps are the binary digits of the counts.

        The sum over its steps with its time weights 1, 2, 4, ... is the plain sum over time of this train. Counted
        once, and kept: ``log2(T + 1)`` bits of each neuron beside the T of the train.
        """
        kept = vars(self)
        if "_counted" not in kept:
            digits = self.words.reshape(self.planes, -1, *self.words.shape[1:])
            kept["_counted"] = binary(ops.count_steps(digits, 2**self.planes - 1), self.features, self.amplitude)
        counted: SpikeTrain = kept["_counted"]
        return counted

    def sums_over_time(self) -> Iterator[Values]:
        """The weighted sums over the steps, (C, H, W, B) each, of the planes: the train's own is theirs."""
        weights = uniform_weights(self.timesteps) if self.time_weights is None else self.time_weights
        for plane in self.split():
            yield ops.sum_words(plane.words, self.channels, weights, plane.amplitude)

    def of_samples(self, samples: NDArray[np.intp]) -> SpikeTrain:
        """The train of some of the samples."""
        return replace(self, words=np.take(self.words, samples, axis=4))

    def rate(self) -> Values:
        """The representation of the train, ``(B, *features)``: its (weighted) mean over time, step by step. EXACT."""
        weights = uniform_weights(self.timesteps) if self.time_weights is None else self.time_weights
        mean = ops.weighted_sum(self.values(), weights) / np.float32(self.timesteps)
        return np.ascontiguousarray(mean.transpose(3, 0, 1, 2)).reshape(self.batch, *self.features)

    def __getitem__(self, steps: slice) -> SpikeTrain:
        """Slice along time, ``train[2:5]``; the weights of the steps are kept, scaled to mean 1."""
        if not isinstance(steps, slice):
            raise TypeError(f"SpikeTrain: expected a slice of time steps, got {type(steps).__name__}")
        words = np.ascontiguousarray(self.words[:, :, :, steps])
        if words.shape[3] == 0:
            raise ValueError(f"SpikeTrain: expected at least one time step, got none of {self.timesteps}")
        weights = None if self.time_weights is None else self.time_weights[steps]
        if weights is not None:
            weights = (weights / weights.mean()).astype(np.float32)
        return replace(self, words=words, time_weights=weights)

    def __repr__(self) -> str:
        amplitude = f"{self.amplitude:g}" if isinstance(self.amplitude, float) else "by channel"
        return (
            f"SpikeTrain(shape={self.shape}, firing_rate={self.firing_rate():.4f}, amplitude={amplitude}, "
            f"{self.nbytes} bytes)"
        )


def binary(digits: Words, features: tuple[int, ...], amplitude: PerChannel) -> SpikeTrain:
    """Numbers as a train whose steps are their binary digits, and whose time weights are 1, 2, 4, ..."""
    return SpikeTrain(digits, features, amplitude, np.float32(2) ** np.arange(digits.shape[3], dtype=np.float32))


def image_shape(features: tuple[int, ...]) -> tuple[int, int, int]:
    """``(C, H, W)`` of features; a vector is an image of one pixel, a signal (C, L) one of height 1."""
    channels, *pixels = features
    height, width = (1, *pixels) if len(pixels) == 1 else pixels or (1, 1)
    return channels, height, width


def by_channel(numbers: PerChannel) -> Any:
    """One number, or those of channels in the shape that goes with lanes."""
    return numbers.reshape(-1, 1, 1, 1, 1) if isinstance(numbers, np.ndarray) else np.float32(numbers)


def share_of(unit: PerChannel, count: int) -> PerChannel:
    """What a spike is worth in a mean over `count` pixels, given what it is worth there."""
    return np.divide(unit, np.float32(count)) if isinstance(unit, np.ndarray) else unit / count


def flattened_unit(unit: PerChannel, features: int) -> PerChannel:
    """What a spike of each feature is worth where images are flattened, channel by channel."""
    return unit.repeat(features // len(unit)) if isinstance(unit, np.ndarray) else unit


def concatenated_units(channels: Sequence[int], units: Sequence[PerChannel]) -> Values:
    """What a spike of each channel is worth where trains of so many channels are concatenated, (C,)."""
    return np.concatenate([np.full(count, unit, np.float32) for count, unit in zip(channels, units, strict=True)])


def sum_planes(numbers: Sequence[Words], count: int) -> Words:
    """Binary digits of ``sum_j 2**j numbers[j]``, so many planes, the lowest first.

    Each of the numbers is given by its own digits, (planes, ...).
    """
    total = np.zeros((count, *numbers[0].shape[1:]), np.uint32)
    for first, digits in enumerate(numbers):
        carry = np.zeros_like(total[0])
        for k in range(first, count):
            digit = digits[k - first] if k - first < len(digits) else np.uint32(0)
            half = total[k] ^ digit
            total[k], carry = half ^ carry, (total[k] & digit) | (half & carry)
    return total


def to_lanes(array: NDArray[np.generic]) -> Values:
    """Time-first ``(T, B, *features)`` as float32 lanes (C, H, W, T, B)."""
    images = array.reshape(*array.shape[:2], *image_shape(array.shape[2:]))
    return np.ascontiguousarray(images.transpose(2, 3, 4, 0, 1), np.float32)


def from_lanes(values: Values, features: tuple[int, ...]) -> Values:
    """Lanes (C, H, W, T, B) as a time-first array ``(T, B, *features)``."""
    return np.ascontiguousarray(values.transpose(3, 4, 0, 1, 2)).reshape(*values.shape[3:], *features)
