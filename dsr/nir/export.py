"""Network to NIR graph; see `dsr.nir` for what is written and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import expm1, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.nodes import by_group
from dsr.nir.potentials import potentials
from dsr.nn.currents import Current, Signal
from dsr.nn.describe import description
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.ops import Geometry, NeuronModel, PerChannel, Values
from dsr.ops.arguments import LARGEST, SMALLEST

Doubles = NDArray[np.float64]

FORMAT_VERSION = 1


def export_graph(
    nir: Any, network: Network, features: tuple[int, ...], delta_t: float | None, euler: bool, diagonal: bool
) -> Any:
    """What `dsr.nir.to_nir` does, given the package nir."""
    if delta_t is None:
        delta_t = next((neuron.delta_t for _, neuron in network.neurons() if neuron.delta_t is not None), 1.0)
    return _Exporter(nir, float(delta_t), euler, diagonal).graph(network, features)


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
class _Weights:
    """A node whose output can still be scaled and shifted by changing its weights, as long as it is open."""

    weight: Doubles
    bias: Doubles
    make: Callable[[NDArray[np.float32], NDArray[np.float32]], Any]
    open: bool = True

    def apply(self, scale: Doubles, shift: Doubles | None) -> None:
        """``scale * output + shift`` as the new output."""
        self.weight = self.weight * scale.reshape(-1, *[1] * (self.weight.ndim - 1))
        self.bias = self.bias * scale + (0 if shift is None else shift)

    def node(self, name: str) -> Any:
        """The node, rounded to float32."""
        with np.errstate(over="ignore"):
            weight, bias = self.weight.astype(np.float32), self.bias.astype(np.float32)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FloatingPointError(f"to_nir: weights of '{name}' are not finite in float32")
        return self.make(weight, bias)


class _Exporter:
    """Walks through a network in forward order and adds nodes and edges."""

    def __init__(self, nir: Any, delta_t: float, euler: bool, diagonal: bool) -> None:
        self.nir, self.delta_t, self.euler, self.diagonal = nir, delta_t, euler, diagonal
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.features: dict[str, tuple[int, ...]] = {}
        self.only = ""
        self.neurons: dict[str, tuple[NeuronModel, PerChannel, float]] = {}

    def graph(self, network: Network, features: tuple[int, ...]) -> Any:
        """The whole graph."""
        for _, layer in network.body.walk():
            _export_of(layer)
        self.only = type(network.body).__name__.lower()
        output = self._probe(network, features)
        source = self._add("input", self.nir.Input(input_type=np.array(features)), ())
        wire = self.layer(network.body, _wire(source, features))
        amplitude = self._output_amplitude(wire)
        if amplitude is None:
            wire, amplitude = self._settle(wire, "output"), 1.0
        self._add("output", self.nir.Output(output_type=np.array(wire.features)), wire.sources)
        nodes = {name: node.node(name) if isinstance(node, _Weights) else node for name, node in self.nodes.items()}
        metadata = {
            "producer": "dsr",
            "format_version": FORMAT_VERSION,
            "dt": self.delta_t,
            "timesteps": network.timesteps,
            "reset": "subtract",
            "integration": "euler" if self.euler else "exponential",
            "readout": _readout(output),
            "output_amplitude": amplitude,
            "v_threshold": {name: _told(v_threshold) for name, (_, v_threshold, _) in self.neurons.items()},
            "alpha": {name: alpha for name, (_, _, alpha) in self.neurons.items()},
            "amplitude": {name: _told(neuron.amplitude) for name, (neuron, _, _) in self.neurons.items()},
        }
        return self.nir.NIRGraph(nodes=nodes, edges=self.edges, metadata=metadata)

    def _probe(self, network: Network, features: tuple[int, ...]) -> Signal:
        """Shapes of all outputs, from a pass of one sample, which also finds layers that do not fit."""
        outputs: list[Signal] = []

        def observe(path: str, _: Layer, output: Signal) -> None:
            self.features[path] = output.features
            outputs.append(output)

        sample = np.zeros((1, *features), np.float32)
        try:
            if network.batch_axis(sample) != 0:
                raise ValueError("it takes (T, B, N) or (T, B, C, L) where an array has so many axes")
            network.forward(sample, observer=observe)
        except ValueError as error:
            raise ValueError(f"to_nir: samples of shape {features} do not fit the network: {error}") from None
        return outputs[-1]

    def layer(self, layer: Layer, wire: _Wire) -> _Wire:
        """The wire behind a layer."""
        written: _Wire = _export_of(layer)(self, wire)
        return written

    def fork(self, path: str, wire: _Wire) -> _Wire:
        """Two readers: nothing that only one of them wants may go into the weights below."""
        if any(self._open(name) for name in wire.sources):
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
            weight = np.zeros((self.features[path][0], channels, 1, 1), np.float32)
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
            raise ValueError(f"to_nir: layer '{self._name(path)}': NIR has no transposed convolution")
        top, bottom, left, right = geometry.padding
        padding: Any = (top, left)
        if (top, left) != (bottom, right):
            same = Geometry.of("to_nir", geometry.kernel, 1, "same", geometry.dilation, geometry.groups)
            if geometry != same:
                raise ValueError(
                    f"to_nir: layer '{self._name(path)}': NIR pads opposite sides alike, or to the same size, got "
                    f"{geometry.padding}"
                )
            padding = "same"
        features, after = wire.features, self.features[path]

        def make(w: Any, b: Any) -> Any:
            strides, dilation, groups = geometry.stride, geometry.dilation, geometry.groups
            if len(features) == 2:
                zeros = padding if padding == "same" else left
                node = self.nir.Conv1d(features[1], w[:, :, 0], strides[1], zeros, dilation[1], groups, b)
            else:
                node = self.nir.Conv2d(features[1:], w, strides, padding, dilation, groups, b)
            # nir computes them as if there were one group and a square kernel
            node.input_type, node.output_type = {"input": np.array(features)}, {"output": np.array(after)}
            return node

        return self._weighted(path, wire, weight, bias, make, geometry.groups)

    def linear(self, path: str, wire: _Wire, weight: Values, bias: Values | None) -> _Wire:
        """An affine map with weights (O, N, 1, 1)."""
        return self._weighted(path, wire, weight, bias, lambda w, b: self.nir.Affine(w.reshape(w.shape[:2]), b))

    def _weighted(
        self,
        path: str,
        wire: _Wire,
        kernel: Values,
        bias: Values | None,
        make: Callable[[Any, Any], Any],
        groups: int = 1,
    ) -> _Wire:
        wire, scale = self._plain_sum(wire, self._name(path))
        weight = kernel * by_group(scale, groups, len(kernel))
        biases = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        return _wire(self._add(self._name(path), _Weights(weight, biases, make), wire.sources), self.features[path])

    def affine(self, wire: _Wire, scale: Values, shift: Values) -> _Wire:
        """A scale and a shift of each channel."""
        factor = scale.astype(np.float64)
        sources = {name: old * factor for name, old in wire.sources.items()}
        return _Wire(sources, wire.shift * factor + shift.astype(np.float64), wire.features)

    def average_pool(
        self, path: str, wire: _Wire, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> _Wire:
        """The mean over windows."""
        return self._average(path, wire, (kernel_size, stride, padding), self.features[path])

    def global_average_pool(self, path: str, wire: _Wire) -> _Wire:
        """The mean over all pixels, as a vector."""
        image = wire.features[1:]
        return self.flatten(path, self._average(path, wire, (image, image, (0, 0)), (wire.features[0], 1, 1)))

    def _average(self, path: str, wire: _Wire, windows: Iterable[Any], features: tuple[int, ...]) -> _Wire:
        wire, scale = self._plain_sum(wire, self._name(path))
        node = self.nir.AvgPool2d(*(np.array(numbers) for numbers in windows))
        return _wire(self._add(self._name(path), node, wire.sources), features, scale)

    def flatten(self, path: str, wire: _Wire) -> _Wire:
        """An image as a vector."""
        wire, scale = self._plain_sum(wire, self._name(path))
        node = self.nir.Flatten({"input": np.array(wire.features)}, start_dim=0, end_dim=-1)
        pixels = prod(wire.features[1:])
        return _wire(self._add(self._name(path), node, wire.sources), self.features[path], np.repeat(scale, pixels))

    def neuron(
        self, path: str, wire: _Wire, neuron: NeuronModel, v_threshold: PerChannel, alpha: float, leak: float
    ) -> _Wire:
        """Neurons that reset by subtraction; `leak` is the length of a time step in time constants, 0: no leak."""
        if neuron.levels > 1:
            raise ValueError(
                f"to_nir: layer '{self._name(path)}': NIR has no neurons that emit several spikes at a step, got "
                f"{neuron.levels} levels"
            )
        wire = self._settle(wire, self._name(path))
        threshold, reset = potentials(v_threshold, alpha)

        def every(value: float | NDArray[np.float32]) -> NDArray[np.float32]:
            image = (-1,) + (1,) * (len(wire.features) - 1)
            return np.full(wire.features, value if np.ndim(value) == 0 else np.reshape(value, image), np.float32)

        at_spikes = {"v_threshold": every(threshold), "v_reset": every(reset)}
        if leak:
            tau = self.delta_t / (-expm1(-leak) if self.euler else leak)
            if not SMALLEST <= tau <= LARGEST:
                raise ValueError(
                    f"to_nir: layer '{self._name(path)}': with delta_t = {self.delta_t} its tau is {tau:g}, beyond "
                    "float32"
                )
            node = self.nir.LIF(tau=every(tau), r=every(1), v_leak=every(0), **at_spikes)
        else:
            node = self.nir.IF(r=every(1 / self.delta_t), **at_spikes)
        name = self._add(self._name(path), node, wire.sources)
        self.neurons[name] = neuron, v_threshold, alpha
        return _wire(name, wire.features, np.full(wire.features[0], neuron.amplitude))

    def _name(self, path: str) -> str:
        """The path, or the class of a network's only layer; without slashes, which HDF5 takes for folders."""
        return path.replace("/", "_") or self.only

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
        image = (-1,) + (1,) * (len(features) - 1)
        if shift is None and not self.diagonal:
            values = np.broadcast_to(scale.reshape(image), features)
            return self._add(name, self.nir.Scale(np.ascontiguousarray(values, np.float32)), (source,))
        bias = np.zeros_like(scale) if shift is None else shift
        matrix = np.diag(scale)
        if len(features) == 1:
            return self._add(name, _Weights(matrix, bias, self.nir.Affine), (source,))

        def pointwise(weight: Any, bias: Any) -> Any:
            if len(features) == 2:
                return self.nir.Conv1d(features[1], weight[:, :, 0], 1, 0, 1, 1, bias)
            return self.nir.Conv2d(features[1:], weight, (1, 1), (0, 0), (1, 1), 1, bias)

        return self._add(name, _Weights(matrix[:, :, None, None], bias, pointwise), (source,))

    def _open(self, name: str) -> _Weights | None:
        node = self.nodes[name]
        return node if isinstance(node, _Weights) and node.open else None

    def _output_amplitude(self, wire: _Wire) -> float | None:
        """What an output is worth, if the wire is one node that needs no other change."""
        scale = wire.common_scale
        (first, *others) = wire.sources
        if others or scale is None or self._open(first) is not None or scale[0] <= 0 or (scale != scale[0]).any():
            return None
        return float(scale[0])

    def _add(self, name: str, node: Any, sources: Iterable[str]) -> str:
        """Add a node and its incoming edges; the name, with a number if it was taken."""
        unique, number = name, 1
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        self.nodes[unique] = node
        self.edges.extend((source, unique) for source in sources)
        return unique


def _wire(source: str, features: tuple[int, ...], scale: Doubles | None = None) -> _Wire:
    ones = np.ones(features[0])
    return _Wire({source: ones if scale is None else scale}, np.zeros(features[0]), features)


def _told(number: PerChannel) -> float | list[float]:
    """A number, or those of the channels, as metadata hold them."""
    return number if isinstance(number, float) else np.asarray(number, np.float64).tolist()


def _export_of(layer: Layer) -> Any:
    missing = "NIR has nothing that does what {} does, or it has no export()"
    return description("to_nir", layer, "export", missing, ("forward", "model"))  # a neuron's model says how it resets


def _readout(output: Signal) -> str:
    """How dsr reads the last layer out over time."""
    if isinstance(output, Current):
        return "mean"
    uniform = output.time_weights is None or bool((output.time_weights == 1).all())
    return "rate" if uniform else "weighted rate"
