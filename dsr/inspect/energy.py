"""Synaptic operations of a network, those of its ordinary twin, and an estimate of the energy of both.

What is counted, per sample:

- A spike that reaches a convolution or linear layer is one accumulate for each connection that it really has: taps that
  fall outside the image, or between the strides, are none. All time steps are added up.
- Average pooling is linear, so its factor belongs to the weights above: a spike that is pooled is one accumulate
  for each connection of each pooled pixel it is part of, as if nothing had been pooled.
- A spike that is repeated, concatenated with others, or left by maximum pooling or by a residual connection of spikes
  counts where it is used.
- A spike that neurons take as it is, through an identity shortcut or from a pooling, is one accumulate.
- Other values (the image under direct coding, frames of events) are multiplied: one multiply-accumulate for each
  connection. A value that is the same at every step is counted once, zero or not; of values given step by step
  those that are zero cost nothing.
- Graded spikes count as many times as there are: k at a step are k accumulates for each connection.
- A neuron is updated at every step: one accumulate (IF), or one multiply-accumulate (LIF, for its leak). Comparison
  and reset are part of it, and so are biases; batch normalisation is folded into weights and biases.
- The ordinary twin is the same network with ReLU, one pass: one multiply-accumulate for each connection, zeros
  included; one accumulate for each value that a shortcut or a pooling adds. Activation functions are free.

The energy is that of this arithmetic alone. Memory accesses usually need more, in both kinds of network, and depend on
the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from dsr import ops
from dsr.nn.currents import Current, Signal, signal_values
from dsr.nn.describe import Counts, description
from dsr.nn.layer import Layer
from dsr.nn.spikes import SpikeTrain, image_shape
from dsr.ops import Geometry, NeuronModel

Kind = Literal["connections", "direct", "update"]


@dataclass(frozen=True)
class Cost:
    """Energy of one operation, in pJ.

    Attributes
    ----------
    accumulate, mac : float
        Of an addition, and of a multiplication with an addition. By default 32-bit floating point in 45 nm, 0.9 and
        3.7 + 0.9: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014.
    """

    accumulate: float = 0.9
    mac: float = 4.6

    def __post_init__(self) -> None:
        for name, value in (("accumulate", self.accumulate), ("mac", self.mac)):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"Cost: argument '{name}': expected a number >= 0, got {value!r}")


@dataclass(frozen=True)
class Operations:
    """What one layer does for one sample, on average.

    Attributes
    ----------
    path : str
        The layer.
    kind : {"connections", "direct", "update"}
        A convolution or linear layer; spikes added to currents as they are; the update of neurons.
    source : {"spikes", "values", ""}
        What comes in.
    events : float
        How many of them, over all time steps.
    accumulates, macs : float
        Operations of the spiking network.
    ann_accumulates, ann_macs : float
        Operations of its ordinary twin.
    """

    path: str
    kind: Kind
    source: str
    events: float
    accumulates: float
    macs: float
    ann_accumulates: float
    ann_macs: float

    def energy(self, cost: Cost) -> float:
        """Of the spiking network, in nJ a sample."""
        return (self.accumulates * cost.accumulate + self.macs * cost.mac) / 1000

    def ann_energy(self, cost: Cost) -> float:
        """Of its ordinary twin, in nJ a sample."""
        return (self.ann_accumulates * cost.accumulate + self.ann_macs * cost.mac) / 1000


@dataclass(frozen=True)
class Traffic:
    """Spikes behind a signal.

    Attributes
    ----------
    spikes : ndarray of int64, shape (C, H, W)
        That each element is the (scaled) sum of, over all steps and samples.
    taps : ndarray of int64, shape (C, H, W)
        Neurons that each element sums over.
    """

    spikes: Counts
    taps: Counts

    def mapped(self, function: Callable[[Counts], Counts]) -> Traffic:
        """The same function applied to both."""
        return Traffic(function(self.spikes), function(self.taps))


class OperationCounter:
    """Counts operations while batches run through a network; layers tell it what they do (`dsr.nn.describe`)."""

    def __init__(self) -> None:
        self._traffic: WeakKeyDictionary[Signal, Traffic] = WeakKeyDictionary()
        self._outputs: dict[str, Signal] = {}
        self._totals: dict[tuple[str, Kind, str], Counter[str]] = {}

    def see(self, layer: Layer, signal: Signal, output: Signal) -> None:
        """Count a layer's forward pass; ValueError if it does not say what it computes."""
        count = description(
            "inspect", layer, "count_operations", "{} does not say what it computes; give it count_operations()"
        )
        count(self, signal, output)
        self._outputs[layer.path] = output

    def operations(self, samples: int) -> tuple[Operations, ...]:
        """The counts per sample, in the order of the network."""
        return tuple(
            Operations(
                *key,
                *(total[name] / samples for name in ("events", "accumulates", "macs", "ann_accumulates", "ann_macs")),
            )
            for key, total in self._totals.items()
        )

    def _count(self, path: str, kind: Kind, source: str, **numbers: int) -> None:
        self._totals.setdefault((path, kind, source), Counter()).update(numbers)

    def connections(self, path: str, signal: Signal, kernel_shape: tuple[int, ...], geometry: Geometry) -> None:
        """A weight for each connection between `signal` and an output, as a convolution has them."""
        out, channels = kernel_shape[:2]
        _, height, width = image_shape(signal.features)
        rows, columns = windows(height, geometry, 0), windows(width, geometry, 1)
        ann = out * channels * int(rows.sum()) * int(columns.sum()) * signal.batch
        traffic = self._traffic_of(signal)
        events = traffic.spikes if traffic is not None else _values(signal)
        operations = out // geometry.groups * int(rows @ events.sum(axis=0) @ columns)
        source, name = ("values", "macs") if traffic is None else ("spikes", "accumulates")
        numbers = {"events": int(events.sum()), name: operations, "ann_macs": ann}
        self._count(path, "connections", source, **numbers)

    def additions(self, path: str, signal: Signal) -> None:
        """Spikes that are added to a current as they are."""
        traffic = self._traffic_of(signal)
        if traffic is not None:
            spikes, taps = int(traffic.spikes.sum()), int(traffic.taps.sum()) * signal.batch
            self._count(path, "direct", "spikes", events=spikes, accumulates=spikes, ann_accumulates=taps)

    def output_of(self, path: str) -> Signal:
        """What the layer at `path` gave."""
        return self._outputs[path]

    def updates(self, path: str, output: Signal, neuron: NeuronModel) -> None:
        """A step of every neuron of a layer."""
        updates = prod(output.features) * output.timesteps * output.batch
        self._count(path, "update", "", **{"accumulates" if neuron.decay == 1 else "macs": updates})

    def pass_on(self, signal: Signal, output: Signal, function: Callable[[Counts], Counts] | None = None) -> None:
        """The output consists of the input's spikes: `function` maps numbers by pixel, (C, H, W), to those of it."""
        traffic = self._traffic_of(signal)
        if traffic is not None:
            self._traffic[output] = traffic if function is None else traffic.mapped(function)

    def merge(self, signals: Sequence[Signal], output: Signal, function: Callable[[Sequence[Counts]], Counts]) -> bool:
        """As `pass_on`, of several inputs; False where one of them does not consist of spikes."""
        traffic = [known for signal in signals if (known := self._traffic_of(signal)) is not None]
        if len(traffic) == len(signals):
            spikes, taps = (function([getattr(known, name) for known in traffic]) for name in ("spikes", "taps"))
            self._traffic[output] = Traffic(spikes, taps)
        return len(traffic) == len(signals)

    def _traffic_of(self, signal: Signal) -> Traffic | None:
        """The spikes that a signal consists of; None if it does not."""
        if isinstance(signal, SpikeTrain) and signal not in self._traffic:
            spikes = spikes_of_each(signal)
            self._traffic[signal] = Traffic(spikes, np.ones_like(spikes))
        return self._traffic.get(signal)


def spikes_of_each(train: SpikeTrain) -> Counts:
    """Spikes of each neuron over all steps and samples, (C, H, W)."""
    total = np.zeros(image_shape(train.features), np.int64)
    for plane, part in enumerate(train.split()):
        groups, height, width, _, _ = part.words.shape
        pixels = part.words.reshape(groups * height * width, -1)
        counts = ops.count_words(pixels, 32 * len(pixels)).reshape(groups, height, width, 32)
        total += 2**plane * counts.transpose(0, 3, 1, 2).reshape(-1, height, width)[: train.channels]
    return total


def windows(size: int, geometry: Geometry, axis: int) -> Counts:
    """Along one direction (0: height), the number of windows that each pixel is part of, (size,)."""
    outputs = geometry.output_size(size, size)[axis]
    taps = geometry.dilation[axis] * np.arange(geometry.kernel[axis])[:, np.newaxis]
    places = (geometry.stride[axis] * np.arange(outputs) + taps - geometry.padding[2 * axis]).reshape(-1)
    pixels = places[places % geometry.spread[axis] == 0] // geometry.spread[axis]
    return np.bincount(pixels[(pixels >= 0) & (pixels < size)], minlength=size).astype(np.int64)


def _values(signal: Signal) -> Counts:
    """Values that are not zero, over all steps and samples, (C, H, W); of a current of one step all."""
    if isinstance(signal, Current) and signal.shape[3] == 1:
        return np.full(signal.shape[:3], signal.batch, np.int64)
    return np.count_nonzero(signal_values(signal), axis=(3, 4)).astype(np.int64)
