"""Network to NIR graph; see `dsr.nir` for what is written and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import expm1, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.potentials import potentials
from dsr.nn.currents import Current, Signal
from dsr.nn.fast_layers import PooledConv2d, WhitenedConv2d
from dsr.nn.layer import Layer, Residual, Sequential
from dsr.nn.layers import AvgPool2d, Conv2d, Dropout, Flatten, Linear
from dsr.nn.network import Network
from dsr.nn.neurons import IF, LIF, Neuron
from dsr.nn.norm import BatchNorm
from dsr.ops.arguments import LARGEST, SMALLEST

Doubles = NDArray[np.float64]

FORMAT_VERSION = 1


def export_graph(
    nir: Any, network: Network, features: tuple[int, ...], delta_t: float | None, euler: bool, diagonal: bool
) -> Any:
    """What `dsr.nir.to_nir` does, given the package nir."""
    leaky = [layer for _, layer in network.neurons() if isinstance(layer, LIF)]
    if delta_t is None:
        delta_t = leaky[0].delta_t if leaky else 1.0
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
        self.neurons: dict[str, Neuron] = {}

    def graph(self, network: Network, features: tuple[int, ...]) -> Any:
        """The whole graph."""
        for _, layer in network.body.walk():
            self._writer(layer)
        output = self._probe(network, features)
        source = self._add("input", self.nir.Input(input_type=np.array(features)), ())
        wire = self._layer(network.body, _wire(source, features))
        amplitude = self._output_amplitude(wire)
        if amplitude is None:
            wire, amplitude = self._settle(wire, "output"), 1.0
        self._add("output", self.nir.Output(output_type=np.array(wire.features)), wire.sources)
        nodes = {name: node.node(name) if isinstance(node, _Weights) else node for name, node in self.nodes.items()}
        amplitudes = {name: neuron.amplitude(neuron.effective_threshold()) for name, neuron in self.neurons.items()}
        metadata = {
            "producer": "dsr",
            "format_version": FORMAT_VERSION,
            "dt": self.delta_t,
            "timesteps": network.timesteps,
            "reset": "subtract",
            "integration": "euler" if self.euler else "exponential",
            "readout": _readout(output),
            "output_amplitude": amplitude,
            "v_threshold": {name: neuron.effective_threshold() for name, neuron in self.neurons.items()},
            "alpha": {name: neuron.alpha for name, neuron in self.neurons.items()},
            "amplitude": amplitudes,
        }
        return self.nir.NIRGraph(nodes=nodes, edges=self.edges, metadata=metadata)

    def _probe(self, network: Network, features: tuple[int, ...]) -> Signal:
        """Shapes of all outputs, from a pass of one sample, which also finds layers that do not fit."""
        outputs: list[Signal] = []

        def observe(path: str, _: Layer, output: Signal) -> None:
            self.features[path] = output.features
            outputs.append(output)

        try:
            network.forward(np.zeros((1, *features), np.float32), observer=observe)
        except ValueError as error:
            raise ValueError(f"to_nir: samples of shape {features} do not fit the network: {error}") from None
        return outputs[-1]

    def _layer(self, layer: Layer, wire: _Wire) -> _Wire:
        return self._writer(layer)(layer, wire)

    def _writer(self, layer: Layer) -> Callable[[Any, _Wire], _Wire]:
        """What writes a layer. A subclass may do anything, so the class has to be exactly one of these."""
        writers: dict[type, Callable[[Any, _Wire], _Wire]] = {
            Sequential: self._sequential,
            Residual: self._residual,
            Conv2d: self._conv2d,
            Linear: self._linear,
            PooledConv2d: self._conv2d,
            WhitenedConv2d: self._conv2d,
            BatchNorm: self._batch_norm,
            AvgPool2d: self._avg_pool,
            Flatten: self._flatten,
            Dropout: lambda layer, wire: wire,
            IF: self._neuron,
            LIF: self._neuron,
        }
        if type(layer) not in writers:
            raise ValueError(
                f"to_nir: layer '{_name(layer)}': NIR has nothing that does what {type(layer).__name__} does"
            )
        return writers[type(layer)]

    def _sequential(self, layer: Any, wire: _Wire) -> _Wire:
        for child in layer.layers.values():
            wire = self._layer(child, wire)
        return wire

    def _residual(self, layer: Any, wire: _Wire) -> _Wire:
        # two readers: nothing that only one of them wants may go into the weights below
        if any(self._open(name) for name in wire.sources):
            wire = self._settle(wire, _name(layer))
            for name in wire.sources:
                if (weights := self._open(name)) is not None:
                    weights.open = False
        body = self._layer(layer.body, wire)
        other = wire if layer.shortcut is None else self._layer(layer.shortcut, wire)
        sources = dict(body.sources)
        for name, scale in other.sources.items():
            sources[name] = sources[name] + scale if name in sources else scale
        return _Wire(sources, body.shift + other.shift, body.features)

    def _conv2d(self, layer: Any, wire: _Wire) -> _Wire:
        stride, padding = (layer.stride,) * 2, (layer.padding,) * 2
        return self._weighted(
            layer, wire, lambda w, b: self.nir.Conv2d(wire.features[1:], w, stride, padding, (1, 1), 1, b)
        )

    def _linear(self, layer: Any, wire: _Wire) -> _Wire:
        return self._weighted(layer, wire, lambda w, b: self.nir.Affine(w.reshape(w.shape[:2]), b))

    def _weighted(self, layer: Conv2d, wire: _Wire, make: Callable[[Any, Any], Any]) -> _Wire:
        wire, scale = self._plain_sum(wire, _name(layer))
        weight = layer.kernel() * scale.reshape(-1, 1, 1)
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.value.astype(np.float64)
        return _wire(self._add(_name(layer), _Weights(weight, bias, make), wire.sources), self.features[layer.path])

    def _batch_norm(self, layer: Any, wire: _Wire) -> _Wire:
        scale = layer.weight.value / np.sqrt(layer.running_var.astype(np.float64) + layer.eps)
        shift = layer.bias.value - layer.running_mean * scale
        # the float32 numbers of the forward pass
        scale, shift = scale.astype(np.float32).astype(np.float64), shift.astype(np.float32).astype(np.float64)
        sources = {name: old * scale for name, old in wire.sources.items()}
        return _Wire(sources, wire.shift * scale + shift, wire.features)

    def _avg_pool(self, layer: Any, wire: _Wire) -> _Wire:
        wire, scale = self._plain_sum(wire, _name(layer))
        sizes = (np.array([size, size]) for size in (layer.kernel_size, layer.stride, layer.padding))
        name = self._add(_name(layer), self.nir.AvgPool2d(*sizes), wire.sources)
        return _wire(name, self.features[layer.path], scale)

    def _flatten(self, layer: Any, wire: _Wire) -> _Wire:
        wire, scale = self._plain_sum(wire, _name(layer))
        node = self.nir.Flatten({"input": np.array(wire.features)}, start_dim=0, end_dim=-1)
        pixels = prod(wire.features[1:])
        return _wire(self._add(_name(layer), node, wire.sources), self.features[layer.path], np.repeat(scale, pixels))

    def _neuron(self, layer: Any, wire: _Wire) -> _Wire:
        wire = self._settle(wire, _name(layer))
        threshold, reset = potentials(layer.effective_threshold(), layer.alpha)

        def every(value: float | np.float32) -> NDArray[np.float32]:
            return np.full(wire.features, value, np.float32)

        at_spikes = {"v_threshold": every(threshold), "v_reset": every(reset)}
        if isinstance(layer, LIF):
            steps = layer.delta_t / layer.tau
            tau = self.delta_t / (-expm1(-steps) if self.euler else steps)
            if not SMALLEST <= tau <= LARGEST:
                raise ValueError(
                    f"to_nir: layer '{_name(layer)}': with delta_t = {self.delta_t} its tau is {tau:g}, beyond float32"
                )
            node = self.nir.LIF(tau=every(tau), r=every(1), v_leak=every(0), **at_spikes)
        else:
            node = self.nir.IF(r=every(1 / self.delta_t), **at_spikes)
        name = self._add(_name(layer), node, wire.sources)
        self.neurons[name] = layer
        return _wire(name, wire.features, np.full(wire.features[0], layer.amplitude(layer.effective_threshold())))

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
        one, none = (1, 1), (0, 0)

        def conv2d(weight: Any, bias: Any) -> Any:
            return self.nir.Conv2d(features[1:], weight, one, none, one, 1, bias)

        return self._add(name, _Weights(matrix[:, :, None, None], bias, conv2d), (source,))

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


def _name(layer: Layer) -> str:
    """The path, or the class of a network's only layer; without slashes, which HDF5 takes for folders."""
    return layer.path.replace("/", "_") or type(layer).__name__.lower()


def _readout(output: Signal) -> str:
    """How dsr reads the last layer out over time."""
    if isinstance(output, Current):
        return "mean"
    uniform = output.time_weights is None or bool((output.time_weights == 1).all())
    return "rate" if uniform else "weighted rate"
