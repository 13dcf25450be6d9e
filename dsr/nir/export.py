"""Folded network to NIR graph; see `dsr.nir` for what is written and why."""

from __future__ import annotations

from collections.abc import Callable
from math import expm1
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.folding import AnyNode, Flatten, Folded, Input, Neurons, Output, Pool, Scale, Step, Style, Weights, fold
from dsr.nir.potentials import potentials
from dsr.nir.readers import READERS, fitting
from dsr.nn.network import Network
from dsr.ops import PerChannel
from dsr.ops.arguments import LARGEST, SMALLEST

FORMAT_VERSION = 1


def export_graph(
    nir: Any,
    network: Network,
    features: tuple[int, ...],
    delta_t: float | None,
    euler: bool,
    diagonal: bool,
    reader: str | None,
) -> Any:
    """What `dsr.nir.to_nir` does, given the package nir."""
    if reader is not None:
        chosen = READERS[reader]
        folded = fitting(reader, fold("to_nir", network, features, chosen.style(network.timesteps)))
        return _Writer(nir, chosen.delta_t, chosen.rules.euler, reader).graph(folded, network.timesteps)
    if delta_t is None:
        delta_t = next((neuron.delta_t for _, neuron in network.neurons() if neuron.delta_t is not None), 1.0)
    folded = fold("to_nir", network, features, Style(diagonal=diagonal))
    return _Writer(nir, float(delta_t), euler, None).graph(folded, network.timesteps)


class _Writer:
    """Makes NIR nodes of folded ones."""

    def __init__(self, nir: Any, delta_t: float, euler: bool, reader: str | None) -> None:
        self.nir, self.delta_t, self.euler = nir, delta_t, euler
        self.reader = None if reader is None else READERS[reader]
        self.name, self.timesteps = reader, 0
        self.makers: dict[type[Any], Callable[[str, Any], Any]] = {
            Input: lambda name, node: nir.Input(input_type=np.array(node.features)),
            Output: lambda name, node: nir.Output(output_type=np.array(node.features)),
            Weights: self._weights,
            Pool: self._pool,
            Flatten: lambda name, node: nir.Flatten({"input": np.array(node.before)}, start_dim=0, end_dim=-1),
            Scale: lambda name, node: nir.Scale(_every(node.scale, node.features)),
            Step: self._step,
            Neurons: self._neurons,
        }

    def graph(self, folded: Folded, timesteps: int) -> Any:
        """The whole graph."""
        self.timesteps = timesteps
        nodes = {name: self._node(name, node) for name, node in folded.nodes.items()}
        neurons = folded.neurons()
        metadata = {
            "producer": "dsr",
            "format_version": FORMAT_VERSION,
            "dt": self.delta_t,
            "timesteps": timesteps,
            "reset": "subtract" if self.reader is None else self.reader.rules.reset,
            "integration": "euler" if self.euler else "exponential",
            "readout": folded.readout,
            "output_amplitude": folded.output_amplitude,
            "v_threshold": {name: _told(node.v_threshold) for name, node in neurons.items()},
            "alpha": {name: node.alpha for name, node in neurons.items()},
            "amplitude": {name: _told(node.model.amplitude) for name, node in neurons.items()},
        }
        if self.name is not None:
            metadata["reader"] = self.name
        return self.nir.NIRGraph(nodes=nodes, edges=list(folded.edges), metadata=metadata)

    def _node(self, name: str, node: AnyNode) -> Any:
        return self.makers[type(node)](name, node)

    def _weights(self, name: str, node: Weights) -> Any:
        with np.errstate(over="ignore"):
            weight, bias = node.weight.astype(np.float32), node.bias.astype(np.float32)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FloatingPointError(f"to_nir: weights of '{name}' are not finite in float32")
        geometry = node.geometry
        if geometry is None:
            return self.nir.Affine(weight.reshape(weight.shape[:2]), bias)
        top, bottom, left, right = geometry.padding
        same = (top, left) != (bottom, right)  # all that folding lets through
        image, dilation, stride, groups = node.before[1:], geometry.dilation, geometry.stride, geometry.groups
        if len(image) == 1:
            zeros: Any = "same" if same else left
            made = self.nir.Conv1d(image[0], weight[:, :, 0], stride[1], zeros, dilation[1], groups, bias)
        else:
            zeros = "same" if same else (top, left)
            made = self.nir.Conv2d(image, weight, stride, zeros, dilation, groups, bias)
        # nir computes them as if there were one group and a square kernel
        made.input_type, made.output_type = {"input": np.array(node.before)}, {"output": np.array(node.features)}
        return made

    def _pool(self, name: str, node: Pool) -> Any:
        kind = self.nir.SumPool2d if node.sums else self.nir.AvgPool2d
        return kind(*(np.array(numbers) for numbers in (node.kernel_size, node.stride, node.padding)))

    def _step(self, name: str, node: Step) -> Any:
        threshold = _every(node.threshold, node.features)
        if self.reader is None or self.reader.step is None:
            return self.nir.Threshold(threshold)
        return self.reader.step(self.nir, threshold)

    def _neurons(self, name: str, node: Neurons) -> Any:
        if self.reader is not None and self.reader.neurons is not None:
            return self.reader.neurons(self.nir, node, lambda values: _every(values, node.features), self.timesteps)
        threshold, reset = (_every(values, node.features) for values in potentials(node.v_threshold, node.alpha))
        ones = np.ones(node.features, np.float32)
        if not node.leak:
            return self.nir.IF(r=_every(1 / self.delta_t, node.features), v_threshold=threshold, v_reset=reset)
        tau = self.delta_t / (-expm1(-node.leak) if self.euler else node.leak)
        if not SMALLEST <= tau <= LARGEST:
            raise ValueError(
                f"to_nir: layer '{name}': with delta_t = {self.delta_t} its tau is {tau:g}, beyond float32"
            )
        return self.nir.LIF(
            tau=_every(tau, node.features), r=ones, v_leak=0 * ones, v_threshold=threshold, v_reset=reset
        )


def _every(value: Any, features: tuple[int, ...]) -> NDArray[np.float32]:
    """A number, or one for each channel, for every neuron."""
    image = (-1,) + (1,) * (len(features) - 1)
    return np.full(features, value if np.ndim(value) == 0 else np.reshape(value, image), np.float32)


def _told(number: PerChannel) -> float | list[float]:
    """A number, or those of the channels, as metadata hold them."""
    return number if isinstance(number, float) else np.asarray(number, np.float64).tolist()
