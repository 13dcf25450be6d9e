"""What a graph gives, run by `dsr.nir.interpret`, beside what the network gives that it was written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.interpret import Result, Rules, run
from dsr.nir.readers import READERS
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.spikes import SpikeTrain, uniform_weights
from dsr.ops.arguments import as_positive, shown
from dsr.ops.batches import batches_of

BATCH = 16
"""Samples at a time: the interpreter unrolls windows of all steps, 400 MB of PreActResNet-18 at T = 5."""


@dataclass(frozen=True)
class LayerComparison:
    """A layer of neurons.

    Attributes
    ----------
    name : str
        Of the node.
    different : int
        Spikes that are in one and not in the other.
    spikes : int
        Those of the network.
    margin : float
        How far from the threshold the potential was, in thresholds, at most, where a neuron first decided otherwise.
        In the first layer that differs it tells rounding (1e-5, say) from another program.
    """

    name: str
    different: int = 0
    spikes: int = 0
    margin: float = 0.0

    def __add__(self, other: LayerComparison) -> LayerComparison:
        different, spikes = self.different + other.different, self.spikes + other.spikes
        return LayerComparison(self.name, different, spikes, max(self.margin, other.margin))


@dataclass(frozen=True)
class Comparison:
    """A graph beside its network, on some samples.

    Attributes
    ----------
    samples : int
        How many.
    layers : tuple of LayerComparison
        In forward order; none where spikes cannot be compared step by step.
    equal : int
        Samples of which all outputs, summed over time, are the same but for rounding.
    agree : int
        Samples whose largest output is the same.
    right, network_right : int or None
        Samples of which it is the label's, in the graph and in the network; None without labels.
    """

    samples: int
    layers: tuple[LayerComparison, ...]
    equal: int
    agree: int
    right: int | None = None
    network_right: int | None = None

    @property
    def first(self) -> LayerComparison | None:
        """The first layer that differs."""
        return next((layer for layer in self.layers if layer.different), None)

    def __str__(self) -> str:
        lines = []
        if self.layers:
            first = self.first
            lines.append(
                f"all spikes of {len(self.layers)} layers are those of dsr"
                if first is None
                else f"the first layer that differs is '{first.name}': {first.different:,} spikes of {first.spikes:,}, "
                f"{first.margin:.1g} thresholds from the threshold or nearer"
            )
        lines.append(f"outputs: equal for {self.equal} of {self.samples} samples, the same class for {self.agree}")
        if self.right is not None and self.network_right is not None:
            graph, network = (100 * n / self.samples for n in (self.right, self.network_right))
            lost = f"{abs(network - graph):.1f} points {'lost' if network >= graph else 'gained'}"
            lines.append(f"accuracy: {graph:.1f} %, dsr {network:.1f} %: {lost}")
        return "\n".join(lines)


def compare(nir: Any, network: Network, graph: Any, data: NDArray[Any], labels: NDArray[Any] | None) -> Comparison:
    """What `dsr.nir.verify` does, given the package nir."""
    reader = graph.metadata.get("reader")
    chosen = READERS.get(reader) if isinstance(reader, str) else None
    rules = Rules(euler=graph.metadata.get("integration") == "euler") if chosen is None else chosen.rules
    steps = network.timesteps + (sum(1 for _ in network.neurons()) if rules.late else 0)
    dt, amplitude = (_number(graph, key) for key in ("dt", "output_amplitude"))
    axis = network.batch_axis(data)
    samples = data.shape[axis]
    layers: dict[str, LayerComparison] = {}
    sums, expected, classes = [], [], []
    for batch in batches_of(data, axis, BATCH):
        seen, rates, output, weights = _spikes(network, batch)
        expected.append((rates, output))
        shape = _input_shape(nir, graph)
        given = batch.reshape(*batch.shape[: axis + 1], *shape)
        if rules.late and axis:
            given = np.concatenate([given, np.zeros((steps - len(given), *given.shape[1:]), given.dtype)])
        result = run(nir, graph, given, steps, dt, rules, everything=False)
        outputs = _output(nir, graph, result.values).reshape(steps, batch.shape[axis], -1)
        sums.append(outputs.sum(0))
        # the class is told by the read-out of dsr, but where spikes come late
        classes.append((outputs.sum(0) if rules.late else np.tensordot(weights, outputs, 1)).argmax(1))
        for name, spikes in {} if rules.late else seen.items():
            compared = _compared(name, graph.nodes[name], spikes, result)
            layers[name] = layers.get(name, LayerComparison(name)) + compared
    got = np.concatenate(sums) * amplitude
    want = np.concatenate([output.reshape(len(output), -1) for _, output in expected])
    close = np.isclose(got, want, rtol=1e-4, atol=1e-4 * max(float(np.abs(want).max(initial=0)), 1e-30)).all(axis=1)
    found, own = (
        np.concatenate(classes),
        np.concatenate([rates.reshape(len(rates), -1) for rates, _ in expected]).argmax(1),
    )
    return Comparison(
        samples,
        tuple(layers.values()),
        int(close.sum()),
        int((found == own).sum()),
        None if labels is None else int((found == labels).sum()),
        None if labels is None else int((own == labels).sum()),
    )


def _number(graph: Any, key: str) -> float:
    try:
        return as_positive("verify", f"graph, its metadata '{key}'", float(graph.metadata[key]))
    except (TypeError, ValueError):
        given = shown(graph.metadata[key])
        raise ValueError(f"verify: argument 'graph': metadata '{key}': expected a number > 0, got {given}") from None


def _input_shape(nir: Any, graph: Any) -> tuple[int, ...]:
    node = next(node for node in graph.nodes.values() if isinstance(node, nir.Input))
    return tuple(int(size) for size in node.input_type["input"])


def _output(nir: Any, graph: Any, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return next(values[name] for name, node in graph.nodes.items() if isinstance(node, nir.Output))


def _compared(name: str, node: Any, spikes: NDArray[np.bool_], result: Result) -> LayerComparison:
    given = result.values[name]
    different = given != spikes.reshape(given.shape)
    first = different & (np.cumsum(different, axis=0) == 1)
    distances = np.abs(result.potentials[name] - node.v_threshold) / np.abs(node.v_threshold)
    margin = float(distances[first].max(initial=0))
    return LayerComparison(name, int(different.sum()), int(np.count_nonzero(spikes)), margin)


def _spikes(
    network: Network, data: NDArray[Any]
) -> tuple[dict[str, NDArray[np.bool_]], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Spikes of layers of neurons (T, B, ...) by their nodes, rates, outputs summed over time, weights of the rates."""
    seen: dict[str, NDArray[np.bool_]] = {}
    last: list[Signal] = []

    def observe(path: str, layer: Layer, output: Signal) -> None:
        if isinstance(layer, Neuron) and isinstance(output, SpikeTrain):
            seen[path.replace("/", "_") or type(network.body).__name__.lower()] = output.dense() != 0
        last[:] = [output]

    rates = network.forward(data, observer=observe)
    output = last[0]
    if isinstance(output, SpikeTrain):
        weights = uniform_weights(output.timesteps) if output.time_weights is None else output.time_weights
        return seen, rates, output.dense().sum(0), weights
    return seen, rates, output.rate() * output.timesteps, uniform_weights(output.timesteps)
