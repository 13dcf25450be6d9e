"""NIR graph to network; see `dsr.nir.from_nir` for what is read and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import log1p, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.interpret import Rules
from dsr.nir.nodes import (
    bias_of,
    by_channel,
    by_group,
    check_size,
    integers,
    pair,
    reals,
    refusal,
    sizes,
    uniform,
    windows_left,
)
from dsr.nir.potentials import potentials, threshold_and_alpha
from dsr.nir.readers import READERS
from dsr.nir.topology import Sum, Topology, flat, with_sums
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv1d, Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer
from dsr.nn.max_pooling import MaxPool1d, MaxPool2d
from dsr.nn.network import Network
from dsr.nn.neurons import IF, LIF, Neuron
from dsr.nn.pooling import AvgPool2d
from dsr.ops import PerChannel
from dsr.ops.arguments import LARGEST, SMALLEST, as_positive, shown

Doubles = NDArray[np.float64]

_MOST_CHANNELS = 8192
"""Of a layer that has a diagonal for weights: 256 MiB."""

_SPIKING = (Neuron, MaxPool2d)
"""Layers whose output is spikes, of spikes at least."""

_INPUTS = {1: "NC", 2: "NCL", 3: "NCHW"}


def import_graph(
    nir: Any, graph: Any, timesteps: int | None, delta_t: float | None, euler: bool | None, reset: str | None
) -> Network:
    """What `dsr.nir.from_nir` does, given the package nir."""
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"from_nir: argument 'graph': expected a nir.NIRGraph, got {type(graph).__name__}")
    reader = _metadata(graph, "reader", str)
    if reader in READERS and READERS[reader].rules != Rules():
        raise ValueError(
            f"from_nir: argument 'graph': it was written for {reader}, whose neurons are not those of dsr; read one "
            "that was written without a reader"
        )
    if timesteps is None:
        timesteps = _metadata(graph, "timesteps", int)
    if timesteps is None:
        raise ValueError("from_nir: argument 'timesteps': the graph does not say how many steps it runs; give a number")
    if delta_t is None:
        told = _metadata(graph, "dt", float)
        delta_t = None if told is None else as_positive("from_nir", "delta_t", told)
    if euler is None:
        euler = _metadata(graph, "integration", str) == "euler"
    if reset is None:
        reset = _metadata(graph, "reset", str)
    nodes, edges = with_sums(*flat(nir, graph))
    with np.errstate(all="ignore"):  # what is not finite at the end is refused, by its name
        return _Importer(nir, Topology(nodes, edges), graph.metadata, delta_t, euler, reset).network(timesteps)


def _metadata(graph: Any, key: str, kind: Callable[[Any], Any]) -> Any:
    """An entry of the metadata, None where there is none."""
    if key not in graph.metadata:
        return None
    try:
        return kind(graph.metadata[key])
    except (TypeError, ValueError):
        given = shown(graph.metadata[key])
        raise ValueError(f"from_nir: metadata '{key}': expected {kind.__name__}, got {given}") from None


@dataclass(frozen=True)
class _Road:
    """Layers one after the other, and what is still to be done to their output.

    The graph's signal is ``scale * output / amplitude``, by channel: a spike is `amplitude` in dsr, 1 in NIR.
    """

    features: tuple[int, ...]
    scale: Doubles
    amplitude: PerChannel = 1.0
    layers: dict[str, Layer] = field(default_factory=dict)

    @property
    def factor(self) -> Doubles:
        """Scale of the output as it is in dsr."""
        return self.scale / self.amplitude

    @property
    def last(self) -> Layer | None:
        """The last layer."""
        return next(reversed(self.layers.values())) if self.layers else None

    def then(
        self,
        name: str,
        layer: Layer,
        features: tuple[int, ...],
        scale: Doubles | None = None,
        amplitude: PerChannel = 1.0,
    ) -> _Road:
        """One layer more, and what is to be done to its output; by default nothing."""
        unique, number = name, 1
        while unique in self.layers:  # a node may have the name that another's sum or scale was given
            number += 1
            unique = f"{name}_{number}"
        scale = np.ones(features[0]) if scale is None else scale
        return _Road(features, scale, amplitude, self.layers | {unique: layer})


@dataclass(frozen=True)
class _SummedSpikes:
    """Spikes whose sums over windows a layer gives, which may turn out to be maximum pooling."""

    name: str
    before: _Road
    pooling: Layer


class _Importer:
    """Walks through a graph from Input to Output and makes layers."""

    def __init__(
        self,
        nir: Any,
        topology: Topology,
        metadata: Mapping[str, Any],
        delta_t: float | None,
        euler: bool,
        reset: str | None,
    ) -> None:
        self.nir = nir
        self.topology, self.metadata, self.delta_t, self.euler = topology, metadata, delta_t, euler
        self.reset = reset
        self.weights: dict[Conv2d, tuple[Doubles, Doubles]] = {}
        self.summed: dict[Layer, _SummedSpikes] = {}
        self.visited: set[str] = set()
        self.makers: dict[type, Callable[[str, Any, _Road], _Road]] = {
            nir.Input: lambda name, node, road: road,
            nir.Output: lambda name, node, road: road,
            Sum: lambda name, node, road: road,
            nir.Affine: self._affine,
            nir.Linear: self._affine,
            nir.Conv1d: self._convolution,
            nir.Conv2d: self._convolution,
            nir.AvgPool2d: self._pool,
            nir.SumPool2d: lambda name, node, road: self._pool(name, node, road, summing=True),
            nir.Flatten: self._flatten,
            nir.Scale: self._scale,
            nir.Threshold: self._step,
            nir.IF: self._neuron,
            nir.LIF: self._neuron,
        }

    def network(self, timesteps: int) -> Network:
        """The whole network."""
        first = self.topology.input
        given = self.topology.nodes[first].input_type["input"]
        shape = () if given is None else integers(given)
        if len(shape) not in _INPUTS:
            raise ValueError(
                f"from_nir: node '{first}': expected samples of shape (C, H, W), (C, L) or (N,), got {shape}"
            )
        check_size(first, shape)
        road = self._walk(first, None, _Road(shape, np.ones(shape[0])))
        road = self._output(road)
        if not road.layers:
            raise ValueError("from_nir: the graph has no layers between its Input and its Output")
        network = Network(Sequential(**road.layers), timesteps, inputs=_INPUTS[len(shape)])
        for layer, (weight, bias) in self.weights.items():
            assert layer.bias is not None
            shape = layer.weight.value.shape
            layer.weight.value, layer.bias.value = weight.reshape(shape).astype(np.float32), bias.astype(np.float32)
            if not (np.isfinite(layer.weight.value).all() and np.isfinite(layer.bias.value).all()):
                raise FloatingPointError(f"from_nir: weights of layer '{layer.path}' are not finite in float32")
        return network

    def _output(self, road: _Road) -> _Road:
        """The road, with outputs as dsr has them where the metadata say what those of the graph are worth.

        Otherwise the last spikes are of their own height, and everything else is as in the graph.
        """
        told = _number(self.metadata.get("output_amplitude"))
        if told is None:
            own = (road.scale == 1).all() and not isinstance(road.last, Residual)
            return road if own else self._settle(self.topology.output, road)
        # a height that was computed anew, from numbers of the file, may differ by rounding
        if np.allclose(road.scale * told, road.amplitude, rtol=1e-6, atol=0):
            return road
        return self._settle(self.topology.output, replace(road, scale=road.scale * told))

    def _walk(self, name: str, end: str | None, road: _Road) -> _Road:
        """Nodes from `name` up to `end`, which is left out."""
        current: str | None = name
        while current is not None and current != end:
            if current in self.visited:
                raise ValueError(
                    f"from_nir: node '{current}' sums paths that do not part at one node; dsr has chains and residuals"
                )
            self.visited.add(current)
            node = self.topology.nodes[current]
            if type(node) not in self.makers:
                raise refusal(current, node, f"dsr has no layer for {type(node).__name__}")
            road = self.makers[type(node)](current, node, road)
            following = self.topology.after[current]
            meeting = self.topology.meeting[current]
            if len(following) > 1:
                assert meeting is not None
                road = self._fork(current, following, meeting, road)
            current = meeting
        return road

    def _fork(self, name: str, following: list[str], meeting: str, road: _Road) -> _Road:
        """Several paths from one node to another, where they are summed."""
        start = replace(road, layers={})
        branches = [self._walk(first, meeting, start) for first in following]
        first, *rest = branches
        alike = all(np.array_equal(first.factor, branch.factor) for branch in rest)
        if not alike:
            branches = [self._settle(f"{name}.branch", branch) for branch in branches]
        branches.sort(key=lambda branch: not branch.layers)  # a path without layers is a shortcut
        body, *others = branches
        for other in others:
            if other.features != body.features:
                raise ValueError(
                    f"from_nir: node '{meeting}': the paths from '{name}' give shapes {body.features} and "
                    f"{other.features}, which have no sum"
                )
        total: Layer = Sequential(**body.layers)
        for other in others:
            shortcut = Sequential(**other.layers) if len(other.layers) > 1 else other.last
            total = Residual(total, shortcut)
        return road.then(f"{name}.sum", total, body.features, body.scale, body.amplitude)

    def _settle(self, name: str, road: _Road, shift: float = 0.0) -> _Road:
        """Nothing left to be done: the scale goes into the last layer's weights, or into a layer of its own."""
        if (road.factor == 1).all() and shift == 0:
            return replace(road, scale=np.ones_like(road.scale), amplitude=1.0)
        if road.last not in self.weights:
            return self._diagonal(name, road, shift)
        weight, bias = self.weights[road.last]
        self.weights[road.last] = weight * road.factor.reshape(-1, 1, 1, 1), bias * road.factor + shift
        return replace(road, scale=np.ones_like(road.scale), amplitude=1.0)

    def _diagonal(self, name: str, road: _Road, shift: float = 0.0) -> _Road:
        """A layer that does what is left to be done."""
        channels = road.features[0]
        if channels > _MOST_CHANNELS:
            raise ValueError(
                f"from_nir: node '{name}': a scale of {channels:,} channels without weights to fold it into"
            )
        axes = len(road.features)
        kind = Conv2d if axes == 3 else Conv1d
        layer = Linear(channels, channels) if axes == 1 else kind(channels, channels, 1)
        self.weights[layer] = np.diag(road.factor)[:, :, None, None], np.full(channels, shift)
        return road.then(f"{name}.scale", layer, road.features)

    def _affine(self, name: str, node: Any, road: _Road) -> _Road:
        weight = reals(name, node, "weight")
        if weight.ndim != 2 or road.features != (weight.shape[1],):
            raise refusal(name, node, f"weights of shape {weight.shape} do not fit an input of shape {road.features}")
        bias = bias_of(name, node, len(weight))
        layer = Linear(weight.shape[1], len(weight))
        self.weights[layer] = (weight * road.factor)[:, :, None, None], bias
        return road.then(name, layer, (len(weight),))

    def _convolution(self, name: str, node: Any, road: _Road) -> _Road:
        weight, groups = reals(name, node, "weight"), int(node.groups)
        kind, axes = (Conv1d, 1) if isinstance(node, self.nir.Conv1d) else (Conv2d, 2)
        if weight.ndim != axes + 2 or groups < 1 or 0 in weight.shape:
            raise refusal(name, node, f"weights of shape {weight.shape} in {groups} groups")
        out, inner, *kernel = weight.shape
        if len(road.features) != axes + 1 or road.features[0] != inner * groups or out % groups:
            raise refusal(name, node, f"{groups} groups of weights {weight.shape} do not fit an input {road.features}")
        padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
        try:
            layer = kind(
                inner * groups,
                out,
                sizes(kernel),
                sizes(node.stride),
                padding if isinstance(padding, str) else sizes(padding),
                dilation=sizes(node.dilation),
                groups=groups,
            )
            features = layer.output_features(road.features)
        except (TypeError, ValueError) as error:
            raise refusal(name, node, str(error)) from None
        check_size(name, features)
        scaled = weight.reshape(layer.kernel_shape) * by_group(road.factor, groups, out)
        bias = bias_of(name, node, out)
        if axes == 1 and groups == out == road.features[0] and (weight == 1).all() and not bias.any():
            self._note_sums(name, layer, road)
        self.weights[layer] = scaled, bias
        return road.then(name, layer, features)

    def _pool(self, name: str, node: Any, road: _Road, summing: bool = False) -> _Road:
        if len(road.features) != 3:
            raise refusal(name, node, f"expected an image, got an input of shape {road.features}")
        size, stride, padding = (pair(name, node, key) for key in ("kernel_size", "stride", "padding"))
        if any(p > s // 2 for p, s in zip(padding, size, strict=True)):
            raise refusal(name, node, f"expected a padding of at most half the window, got {padding} for {size}")
        features = (road.features[0], *windows_left(name, node, road.features, size, stride, padding))
        layer = AvgPool2d(size, stride, padding)
        if summing and isinstance(road.last, _SPIKING):
            self.summed[layer] = _SummedSpikes(name, road, MaxPool2d(size, stride, padding))
        scale = road.scale * prod(size) if summing else road.scale
        return road.then(name, layer, features, scale, road.amplitude)

    def _step(self, name: str, node: Any, road: _Road) -> _Road:
        summed = None if road.last is None else self.summed.get(road.last)
        if summed is None:
            raise refusal(name, node, "dsr has thresholds without memory only of sums of spikes: maximum pooling")
        threshold = by_channel(name, node, "threshold", road.features)
        if not ((threshold >= 0) & (threshold < summed.before.scale)).all():
            raise refusal(
                name,
                node,
                "dsr has no threshold of a sum of spikes but one that a single spike crosses, got "
                f"{threshold.min():g} to {threshold.max():g} for spikes of height {summed.before.scale.min():g}",
            )
        assert road.last is not None
        if isinstance(road.last, Conv2d):
            del self.weights[road.last]
        before = summed.before
        return before.then(summed.name, summed.pooling, road.features, amplitude=before.amplitude)

    def _note_sums(self, name: str, layer: Conv2d, road: _Road) -> None:
        """Remember a convolution that sums windows of spikes, as signals (C, L) have no pooling in NIR."""
        geometry = layer.geometry
        windows = geometry.kernel[1], geometry.stride[1], geometry.padding[2]
        even = geometry.padding[2] == geometry.padding[3] and geometry.padding[2] <= geometry.kernel[1] // 2
        if even and geometry.dilation == (1, 1) and isinstance(road.last, _SPIKING):
            self.summed[layer] = _SummedSpikes(name, road, MaxPool1d(*windows))

    def _flatten(self, name: str, node: Any, road: _Road) -> _Road:
        last = len(road.features) - 1
        given = node.input_type["input"]
        batched = int(given is not None and len(integers(given)) == last + 2)  # some programs count the batch's axis
        if int(node.start_dim) != batched or int(node.end_dim) not in (-1, last + batched):
            dims = f"{int(node.start_dim)} to {int(node.end_dim)}"
            raise refusal(name, node, f"dsr flattens all axes of {road.features}, 0 to {last}, got {dims}")
        pixels = prod(road.features[1:])
        scale, amplitude = np.repeat(road.scale, pixels), road.amplitude
        if isinstance(amplitude, np.ndarray):
            amplitude = np.repeat(amplitude, pixels)
        return road.then(name, Flatten(), (len(scale),), scale, amplitude)

    def _scale(self, name: str, node: Any, road: _Road) -> _Road:
        given = reals(name, node, "scale")
        try:
            values = np.broadcast_to(given, road.features).reshape(road.features[0], -1)
        except ValueError:
            raise refusal(name, node, f"shape {given.shape} does not fit an input of shape {road.features}") from None
        if (values != values[:, :1]).any():
            raise refusal(name, node, "dsr scales whole channels, got different numbers for the pixels of one")
        return replace(road, scale=road.scale * values[:, 0])

    def _neuron(self, name: str, node: Any, road: _Road) -> _Road:
        delta_t = self.delta_t
        if delta_t is None:
            raise ValueError(
                f"from_nir: argument 'delta_t': the graph does not say how long a step is, and neuron '{name}' "
                "depends on it; give a number (1/r makes an IF neuron add its input as it is)"
            )
        if self.reset != "subtract":
            raise ValueError(
                f"from_nir: argument 'reset': the graph does not say that its neurons, such as '{name}', subtract "
                "v_threshold - v_reset at a spike. Those of dsr do; neurons whose potential is set to v_reset, as in "
                "Norse and by default in snnTorch, lose what lies above the threshold, and fire at other times. "
                'reset="subtract" reads the graph all the same'
            )
        r = uniform(name, node, "r", road.features)
        v_threshold, alpha, amplitude = self._threshold_and_alpha(name, node, road.features)
        leaky = hasattr(node, "tau")
        if leaky:
            leak, gain = float(uniform(name, node, "v_leak", road.features)), float(r)
        else:
            leak, gain = 0.0, 1.0 if r == np.float32(1 / delta_t) else float(r) * delta_t
        road = self._settle(name, replace(road, scale=road.scale * gain), leak)
        tau = self._tau(name, node, road.features, delta_t) if leaky else None
        try:
            neuron: Neuron = IF(v_threshold, alpha)
            if tau:
                own = _own_step(v_threshold, amplitude, delta_t)
                neuron = LIF(v_threshold, tau if own == delta_t else tau * (own / delta_t), own, alpha)
        except ValueError as error:  # numbers that float32 has no room for
            raise refusal(name, node, str(error)) from error
        if np.any(neuron.effective_threshold() != v_threshold):  # the bound is above one, or rounds one
            neuron.v_threshold.lower_bound = float(np.min(v_threshold)) * 2.0**-26
        return road.then(name, neuron, road.features, amplitude=neuron.amplitude(v_threshold))

    def _tau(self, name: str, node: Any, features: tuple[int, ...], delta_t: float) -> float:
        tau = float(uniform(name, node, "tau", features))
        if not tau > (delta_t if self.euler else 0):
            raise refusal(name, node, f"expected tau > {delta_t if self.euler else 0}, got {tau}")
        return -delta_t / log1p(-delta_t / tau) if self.euler else tau

    def _threshold_and_alpha(self, name: str, node: Any, features: tuple[int, ...]) -> tuple[Any, float, Any]:
        """Those of the neurons, and the height of their spikes as the metadata tell it, or None."""
        given = (by_channel(name, node, key, features) for key in ("v_threshold", "v_reset"))
        threshold, reset = np.broadcast_arrays(*given)
        for above, below in zip(threshold.flat, reset.flat, strict=True):
            if not below <= 0 < above:
                raise refusal(name, node, f"expected v_reset <= 0 < v_threshold, got {below:g} and {above:g}")
            if above < 2.0**-20 * (above - below):
                raise refusal(
                    name, node, f"dsr has alpha >= 2**-20, got v_threshold = {above:g} and v_reset = {below:g}"
                )
        try:
            height: Any = np.array(self.metadata["v_threshold"][name], np.float64)
            alpha = float(self.metadata["alpha"][name])
        except (KeyError, TypeError, ValueError, IndexError):
            height = np.zeros(0)
        # several pairs may give the same two potentials, and metadata may be of another graph
        if height.shape == threshold.shape and np.array_equal(potentials(height, alpha), (threshold, reset)):
            told = self.metadata.get("amplitude", {})
            amplitude = told.get(name) if isinstance(told, Mapping) else None
            return (float(height) if height.ndim == 0 else height), alpha, amplitude
        height, found = threshold_and_alpha(threshold, reset)
        if found is None:
            raise refusal(name, node, "dsr has one alpha = v_threshold / (v_threshold - v_reset) for all channels")
        return height, found, None


def _number(value: Any) -> float | None:
    """A number > 0 of the metadata; None where there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if SMALLEST <= number <= LARGEST else None


def _own_step(v_threshold: Any, amplitude: Any, delta_t: float) -> float:
    """The step of LIF neurons whose spikes are ``v_threshold / step`` high; `delta_t` if it is nearly that, or unknown.

    Only the height of spikes depends on it: a graph may be written for another time step.
    """
    try:
        steps = np.asarray(v_threshold, np.float64) / np.asarray(amplitude, np.float64)
    except (TypeError, ValueError):
        return delta_t
    own = float(steps.flat[0]) if steps.size else 0.0
    if not SMALLEST <= own <= LARGEST or not np.allclose(steps, own, rtol=1e-5, atol=0):
        return delta_t
    return delta_t if abs(own - delta_t) <= 1e-6 * delta_t else own
