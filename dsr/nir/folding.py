"""A network as a graph of weights, neurons and pooling, with all else folded into the weights.

NIR files are written from it (`dsr.nir.export`), and chips' limits are checked on it (`dsr.nir.targets`). It needs no
package nir. A spike of the graph is 1; heights of spikes and batch normalisation, of running statistics, are in the
weights around them. Several edges into a node are a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.nodes import by_group
from dsr.nn.currents import Current, Signal
from dsr.nn.describe import description
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Geometry, NeuronModel, PerChannel, Values
from dsr.ops.arguments import as_count, shown

Doubles = NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Node:
    """A node; `features` is the shape of its output."""

    features: tuple[int, ...]


@dataclass(frozen=True)
class Input(Node):
    """Where samples come in."""


@dataclass(frozen=True)
class Output(Node):
    """What the last layer gives."""


@dataclass
class Weights:
    """A convolution, or a linear layer where there is no geometry.

    As long as it is open its output can still be scaled and shifted by changing the weights, (O, C / groups, KH, KW).
    """

    before: tuple[int, ...]
    features: tuple[int, ...]
    weight: Doubles
    bias: Doubles
    geometry: Geometry | None
    open: bool = True

    def apply(self, scale: Doubles, shift: Doubles | None) -> None:
        """``scale * output + shift`` as the new output."""
        self.weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        self.bias = self.bias * scale + (0 if shift is None else shift)


@dataclass(frozen=True)
class Pool(Node):
    """Means over windows, or sums."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    sums: bool


@dataclass(frozen=True)
class Flatten(Node):
    """An image of shape `before` as a vector."""

    before: tuple[int, ...]


@dataclass(frozen=True)
class Scale(Node):
    """A factor of each channel."""

    scale: Doubles


@dataclass(frozen=True)
class Step(Node):
    """1 where the input is above a threshold of its channel, else 0: neurons without memory."""

    threshold: Doubles


@dataclass(frozen=True)
class Neurons(Node):
    """Neurons of the layer at `path`; `leak` is the length of a time step in time constants, 0: no leak."""

    path: str
    model: NeuronModel
    v_threshold: PerChannel
    alpha: float
    leak: float


AnyNode = Node | Weights


@dataclass(frozen=True)
class Style:
    """What a graph may consist of.

    Attributes
    ----------
    sums : bool
        Pooling sums its windows; the mean's factor goes into the weights.
    diagonal : bool
        Weights with a diagonal instead of Scale nodes.
    shift : callable, optional
        What is added to the input of neurons, of their `Neurons` node; a number, or one a channel.
    gain : callable, optional
        What the input of neurons is multiplied by, after that.
    """

    sums: bool = False
    diagonal: bool = False
    shift: Callable[[Neurons], float | Doubles] | None = None
    gain: Callable[[Neurons], float] | None = None


@dataclass(frozen=True)
class Folded:
    """A network as a graph.

    Attributes
    ----------
    nodes, edges
        In forward order.
    output_amplitude : float
        The outputs of the network are those of the graph times this.
    readout : str
        How dsr reads the last layer out over time: "rate", "weighted rate" or "mean".
    """

    nodes: Mapping[str, AnyNode]
    edges: Sequence[tuple[str, str]]
    output_amplitude: float
    readout: str

    def neurons(self) -> dict[str, Neurons]:
        """The nodes that are layers of neurons, by name."""
        return {name: node for name, node in self.nodes.items() if isinstance(node, Neurons)}

    def sources(self, name: str) -> list[str]:
        """The nodes with an edge into a node."""
        return [a for a, b in self.edges if b == name]

    def readers(self, name: str) -> list[str]:
        """The nodes that a node's edges lead to."""
        return [b for a, b in self.edges if a == name]


def as_features(function: str, features: Any) -> tuple[int, ...]:
    """The shape of a sample; ValueError if it is none."""
    several = isinstance(features, Sequence) or (isinstance(features, np.ndarray) and features.ndim == 1)
    if not several or isinstance(features, str) or len(features) not in (1, 2, 3):
        raise ValueError(f"{function}: argument 'features': expected (N,), (C, L) or (C, H, W), got {shown(features)}")
    return tuple(as_count(function, "features", size) for size in features)


def fold(function: str, network: Network, features: tuple[int, ...], style: Style | None = None) -> Folded:
    """The graph of a network for samples of shape `features`.

    Raises
    ------
    ValueError
        A layer has no counterpart, or samples of this shape do not fit; the message is that of `function`.
    """
    return _Folder(function, style or Style()).graph(network, features)


@dataclass(frozen=True)
class _Wire:
    """A signal between layers: ``sum over sources of scale * source + shift``, each number one a channel."""

    sources: Mapping[str, Doubles]
    shift: Doubles
    features: tuple[int, ...]

    @property
    def common_scale(self) -> Doubles | None:
        """The scale, if all sources have the same and there is no shift: then it can go into the next weights."""
        first, *rest = self.sources.values()
        same = not self.shift.any() and all(np.array_equal(first, scale) for scale in rest)
        return first if same else None


@dataclass
class _Folder:
    """Walks through a network in forward order and adds nodes and edges."""

    function: str
    style: Style
    nodes: dict[str, AnyNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    outputs: dict[str, Signal] = field(default_factory=dict)
    only: str = ""

    def graph(self, network: Network, features: tuple[int, ...]) -> Folded:
        """The whole graph."""
        for _, layer in network.body.walk():
            self._export_of(layer)
        self.only = type(network.body).__name__.lower()
        output = self._probe(network, features)
        wire = self.layer(network.body, _wire(self._add("input", Input(features), ()), features))
        amplitude = self._output_amplitude(wire)
        if amplitude is None:
            wire, amplitude = self._settle(wire, "output"), 1.0
        self._add("output", Output(wire.features), wire.sources)
        return Folded(self.nodes, self.edges, amplitude, _readout(output))

    def _probe(self, network: Network, features: tuple[int, ...]) -> Signal:
        """All outputs of a pass of one sample, which also finds layers that do not fit."""
        last: list[Signal] = []

        def observe(path: str, _: Layer, output: Signal) -> None:
            self.outputs[path] = output
            last[:] = [output]

        sample = np.zeros((1, *features), np.float32)
        try:
            if network.batch_axis(sample) != 0:
                raise ValueError("it takes (T, B, N) or (T, B, C, L) where an array has so many axes")
            network.forward(sample, observer=observe)
        except ValueError as error:
            raise ValueError(f"{self.function}: samples of shape {features} do not fit the network: {error}") from None
        return last[0]

    def _features(self, path: str) -> tuple[int, ...]:
        return self.outputs[path].features

    def layer(self, layer: Layer, wire: _Wire) -> _Wire:
        """The wire behind a layer."""
        written: _Wire = self._export_of(layer)(self, wire)
        return written

    def fork(self, path: str, wire: _Wire) -> _Wire:
        """Several readers: nothing that only one of them wants may go into the weights below, and one sum for all."""
        if wire.common_scale is None or any(self._open(name) for name in wire.sources):
            wire = self._settle(wire, self._name(path))
            for name in wire.sources:
                if (weights := self._open(name)) is not None:
                    weights.open = False
        return wire

    def add(self, a: _Wire, b: _Wire) -> _Wire:
        """The sum of two wires."""
        sources = dict(a.sources)
        for name, scale in b.sources.items():
            sources[name] = sources[name] + scale if name in sources else scale
        return _Wire(sources, a.shift + b.shift, a.features)

    def concatenate(self, path: str, wires: Sequence[_Wire]) -> _Wire:
        """The channels of all wires, one behind the other: a sum of convolutions that put them in their places."""
        total, first = None, 0
        for wire in wires:
            channels, *image = wire.features
            weight = np.zeros((self._features(path)[0], channels, 1, 1), np.float32)
            weight[first : first + channels, :, 0, 0] = np.eye(channels)
            part = (
                self.convolution(path, wire, weight, None, Geometry((1, 1)))
                if image
                else self.linear(path, wire, weight, None)
            )
            total, first = part if total is None else self.add(total, part), first + channels
        assert total is not None, "there is a branch"
        return total

    def convolution(self, path: str, wire: _Wire, weight: Values, bias: Values | None, geometry: Geometry) -> _Wire:
        """A convolution with weights (O, C / groups, KH, KW), of images or of signals (C, L)."""
        if geometry.spread != (1, 1):
            raise self._refusal(path, "NIR has no transposed convolution")
        top, bottom, left, right = geometry.padding
        if (top, left) != (bottom, right):
            same = Geometry.of(self.function, geometry.kernel, 1, "same", geometry.dilation, geometry.groups)
            if geometry != same:
                raise self._refusal(path, f"NIR pads opposite sides alike, or to the same size, got {geometry.padding}")
        return self._weighted(path, wire, weight, bias, geometry, self._features(path))

    def linear(self, path: str, wire: _Wire, weight: Values, bias: Values | None) -> _Wire:
        """An affine map with weights (O, N, 1, 1)."""
        return self._weighted(path, wire, weight, bias, None, self._features(path))

    def _weighted(
        self,
        path: str,
        wire: _Wire,
        kernel: NDArray[Any],
        bias: Values | None,
        geometry: Geometry | None,
        features: tuple[int, ...],
    ) -> _Wire:
        wire, scale = self._plain_sum(wire, self._name(path))
        weight = kernel * by_group(scale, 1 if geometry is None else geometry.groups, len(kernel))
        biases = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        node = Weights(wire.features, features, weight, biases, geometry)
        return _wire(self._add(self._name(path), node, wire.sources), features)

    def affine(self, wire: _Wire, scale: NDArray[Any], shift: NDArray[Any]) -> _Wire:
        """A scale and a shift of each channel."""
        factor = scale.astype(np.float64)
        sources = {name: old * factor for name, old in wire.sources.items()}
        return _Wire(sources, wire.shift * factor + shift.astype(np.float64), wire.features)

    def average_pool(self, path: str, wire: _Wire, kernel_size: Pair, stride: Pair, padding: Pair) -> _Wire:
        """The mean over windows, of images or of signals (C, L)."""
        return self._pool(path, wire, (kernel_size, stride, padding), self._features(path), self.style.sums)

    def global_average_pool(self, path: str, wire: _Wire) -> _Wire:
        """The mean over all pixels, as a vector."""
        image = wire.features[1:]
        windows = (image[0], image[1]), (image[0], image[1]), (0, 0)
        pooled = self._pool(path, wire, windows, (wire.features[0], 1, 1), self.style.sums)
        return self.flatten(path, pooled)

    def max_pool(self, path: str, wire: _Wire, kernel_size: Pair, stride: Pair, padding: Pair) -> _Wire:
        """The OR of spikes in windows: their sum, and a spike where it is not 0."""
        output = self.outputs[path]
        if not isinstance(output, SpikeTrain):
            raise self._refusal(path, "NIR has no maximum pooling but of spikes, as a threshold of their sum")
        # one that is spikes has one height a channel, in the graph that of its only source
        wire = wire if wire.common_scale is not None else self._settle(wire, self._name(path))
        _, scale = self._plain_sum(wire, self._name(path))
        amplitude = np.full(wire.features[0], output.amplitude, np.float64)
        plain = _Wire({name: np.ones_like(scale) for name in wire.sources}, wire.shift, wire.features)
        sums = self._pool(path, plain, (kernel_size, stride, padding), output.features, sums=True)
        sums = _wire(next(iter(sums.sources)), output.features)
        step = Step(output.features, amplitude / scale / 2)
        return _wire(self._add(f"{self._name(path)}.any", step, sums.sources), output.features, amplitude)

    def _pool(
        self, path: str, wire: _Wire, windows: tuple[Pair, Pair, Pair], features: tuple[int, ...], sums: bool
    ) -> _Wire:
        kernel_size, stride, padding = windows
        taps = prod(kernel_size)
        if len(wire.features) == 2:  # NIR pools images only
            channels = wire.features[0]
            geometry = Geometry.of(self.function, kernel_size, stride, padding, 1, channels)
            weight = np.full((channels, 1, *kernel_size), 1.0 if sums else 1 / taps)
            return self._weighted(path, wire, weight, None, geometry, features)
        wire, scale = self._plain_sum(wire, self._name(path))
        name = self._add(self._name(path), Pool(features, *windows, sums), wire.sources)
        return _wire(name, features, scale / taps if sums else scale)

    def upsample(self, path: str, wire: _Wire, factor: Pair) -> _Wire:
        """Refused."""
        raise self._refusal(path, "NIR has nothing that does what Upsample does")

    def gate(self, path: str, wire: _Wire, by: _Wire, fires: bool) -> _Wire:
        """Refused."""
        raise self._refusal(path, f"NIR has nothing that does what SpikeResidual {'AND' if fires else 'IAND'} does")

    def rectify(self, path: str, wire: _Wire) -> _Wire:
        """Refused."""
        raise self._refusal(path, "NIR has nothing that does what ReLU does")

    def flatten(self, path: str, wire: _Wire) -> _Wire:
        """An image as a vector."""
        wire, scale = self._plain_sum(wire, self._name(path))
        node = Flatten(self._features(path), wire.features)
        pixels = prod(wire.features[1:])
        return _wire(self._add(self._name(path), node, wire.sources), self._features(path), np.repeat(scale, pixels))

    def neuron(
        self, path: str, wire: _Wire, neuron: NeuronModel, v_threshold: PerChannel, alpha: float, leak: float
    ) -> _Wire:
        """Neurons that reset by subtraction; `leak` is the length of a time step in time constants, 0: no leak."""
        if neuron.levels > 1:
            reason = f"NIR has no neurons that emit several spikes at a step, got levels = {neuron.levels}"
            raise self._refusal(path, reason)
        channels, node = wire.features[0], Neurons(wire.features, path, neuron, v_threshold, alpha, leak)
        shift = np.full(channels, self.style.shift(node) if self.style.shift else 0.0)
        gain = self.style.gain(node) if self.style.gain else 1.0
        if gain != 1 or shift.any():
            wire = self.affine(wire, np.full(channels, gain), gain * shift)
        wire = self._settle(wire, self._name(path))
        return _wire(
            self._add(self._name(path), node, wire.sources), wire.features, np.full(channels, neuron.amplitude)
        )

    def _name(self, path: str) -> str:
        """The path, or the class of a network's only layer; without slashes, which HDF5 takes for folders."""
        return path.replace("/", "_") or self.only

    def _refusal(self, path: str, reason: str) -> ValueError:
        return ValueError(f"{self.function}: layer '{self._name(path)}': {reason}")

    def _plain_sum(self, wire: _Wire, reader: str) -> tuple[_Wire, Doubles]:
        """The wire as a plain sum of nodes, times a scale."""
        scale = wire.common_scale
        return (self._settle(wire, reader), np.ones(wire.features[0])) if scale is None else (wire, scale)

    def _settle(self, wire: _Wire, reader: str) -> _Wire:
        """The wire as a plain sum of nodes: scales and shift go into open weights, or into nodes of their own."""
        shift: Doubles | None = wire.shift if wire.shift.any() else None
        sources: dict[str, Doubles] = {}
        # an open node first: it takes the shift
        for name, scale in sorted(wire.sources.items(), key=lambda source: self._open(source[0]) is None):
            weights = self._open(name)
            if weights is not None:
                weights.apply(scale, shift)
            elif shift is not None or (scale != 1).any():
                name = self._pointwise(f"{reader}.scale", name, scale, shift, wire.features)
            sources[name], shift = np.ones_like(scale), None
        return replace(wire, sources=sources, shift=np.zeros_like(wire.shift))

    def _pointwise(
        self, name: str, source: str, scale: Doubles, shift: Doubles | None, features: tuple[int, ...]
    ) -> str:
        """A node for ``scale * source + shift``."""
        if shift is None and not self.style.diagonal:
            return self._add(name, Scale(features, scale), (source,))
        bias = np.zeros_like(scale) if shift is None else shift
        geometry = None if len(features) == 1 else Geometry((1, 1))
        return self._add(name, Weights(features, features, np.diag(scale)[:, :, None, None], bias, geometry), (source,))

    def _open(self, name: str) -> Weights | None:
        node = self.nodes[name]
        return node if isinstance(node, Weights) and node.open else None

    def _output_amplitude(self, wire: _Wire) -> float | None:
        """What an output is worth, if the wire is one node that needs no other change."""
        scale = wire.common_scale
        (first, *others) = wire.sources
        if others or scale is None or self._open(first) is not None or scale[0] <= 0 or (scale != scale[0]).any():
            return None
        return float(scale[0])

    def _add(self, name: str, node: AnyNode, sources: Iterable[str]) -> str:
        """Add a node and its incoming edges; the name, with a number if it was taken."""
        unique, number = name, 1
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        self.nodes[unique] = node
        self.edges.extend((source, unique) for source in sources)
        return unique

    def _export_of(self, layer: Layer) -> Any:
        missing = "NIR has nothing that does what {} does, or it has no export()"
        # a neuron's model says how it resets
        return description(self.function, layer, "export", missing, ("forward", "model"))


def _wire(source: str, features: tuple[int, ...], scale: Doubles | None = None) -> _Wire:
    ones = np.ones(features[0])
    return _Wire({source: ones if scale is None else scale}, np.zeros(features[0]), features)


def _readout(output: Signal) -> str:
    if isinstance(output, Current):
        return "mean"
    uniform = output.time_weights is None or bool((output.time_weights == 1).all())
    return "rate" if uniform else "weighted rate"
