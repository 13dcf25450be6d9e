"""NIR graphs run step by step in plain NumPy: what a program that takes a graph literally would compute.

A step of length dt: every node once, in the order of the edges, a spike being seen by the nodes after it in the same
step. Neurons are integrated with the input held for the step (IF: ``v += dt r I``; LIF: exactly, or by Euler's rule),
compare ``v > v_threshold``, and are reset in one of the ways that programs choose from (`Rules`). Potentials are
float32, as those of dsr are; everything between neurons is float64, rounded once. Nothing here knows layers of dsr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RESETS: dict[str, Callable[[Array, Any], Array]] = {
    "subtract": lambda v, node: v - (node.v_threshold - node.v_reset),  # exact for what dsr writes
    "subtract threshold": lambda v, node: v - node.v_threshold,
    "to v_reset": lambda v, node: np.broadcast_to(node.v_reset, v.shape),
    "to zero": lambda v, node: np.zeros_like(v),
}


@dataclass(frozen=True)
class Rules:
    """What programs decide for themselves.

    Attributes
    ----------
    reset : str
        One of `RESETS`.
    euler : bool
        Leaky neurons take Euler steps.
    starts_at_leak : bool
        Potentials start at `v_leak` instead of 0, also those of synapses, which leak to it as well.
    input_as_it_is : bool
        `r` is not looked at, and leaky neurons add their input as it is, not ``1 - decay`` of it; synapses decay it.
    several : bool
        A neuron gives as many spikes in a step as thresholds fit in its potential.
    floor : bool
        Potentials do not fall below ``-v_threshold``.
    late : bool
        A spike comes out a step after the potential passed the threshold.
    """

    reset: str = "subtract"
    euler: bool = False
    starts_at_leak: bool = False
    input_as_it_is: bool = False
    several: bool = False
    floor: bool = False
    late: bool = False


@dataclass
class Result:
    """What came out: values of nodes (T, B, ...), and of neurons the potential before the reset."""

    values: dict[str, Array] = field(default_factory=dict)
    potentials: dict[str, Array] = field(default_factory=dict)


def run(
    nir: Any,
    graph: Any,
    data: Any,
    timesteps: int,
    dt: float,
    rules: Rules | None = None,
    forced: Mapping[str, Array] | None = None,
    everything: bool = True,
) -> Result:
    """Run a graph.

    Parameters
    ----------
    nir : module
        The package nir.
    graph : nir.NIRGraph
        Without graphs inside; one Input.
    data : array_like, shape (B, ...), the same at every step, or (T, B, ...)
        In the shape of the Input.
    timesteps : int
        T.
    dt : float
        Length of a step.
    rules : Rules, optional
        By default those that are exact for what dsr writes.
    forced : mapping of str to ndarray, optional
        Spikes (T, B, ...) by neuron: each neuron decides for itself (`values` says how), but what others see, and the
        reset, follow them. So two programs can be compared decision by decision.
    everything : bool
        Whether the values of all nodes are kept, or only those of neurons and of the Output.

    Returns
    -------
    Result
    """
    rules = rules or Rules()
    order = topological(graph)
    readers = {name: sum(a == name for a, _ in graph.edges) for name in order}
    result, now = Result(), dict[str, Array]()
    for name in order:
        node = graph.nodes[name]
        sources = [a for a, b in graph.edges if b == name]
        if isinstance(node, nir.Input):
            given = np.asarray(data, np.float32)
            static = given.ndim == len(node.input_type["input"]) + 1
            x = np.asarray(given[np.newaxis] if static else given, np.float64)
        else:
            x = sum((now[source] for source in sources[1:]), now[sources[0]])
        if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
            told = None if forced is None else forced[name]
            spikes, potentials = _neurons(nir, node, x.astype(np.float32), timesteps, dt, rules, told)
            result.values[name], result.potentials[name] = spikes, potentials
            now[name] = np.asarray(spikes if told is None else told, np.float64)
        else:
            steps, batch = x.shape[:2]
            flat = apply(nir, node, x.reshape(steps * batch, *x.shape[2:]))
            now[name] = flat.reshape(steps, batch, *flat.shape[1:])
            if everything or isinstance(node, nir.Output):
                result.values[name] = np.broadcast_to(now[name], (timesteps, *now[name].shape[1:]))
        for source in sources:
            readers[source] -= 1
            if readers[source] == 0:
                del now[source]
    return result


def _neurons(
    nir: Any, node: Any, x: Array, timesteps: int, dt: float, rules: Rules, forced: Array | None
) -> tuple[Array, Array]:
    """Spikes and potentials of neurons that get x, (T or 1, B, ...)."""
    start = node.v_leak if rules.starts_at_leak and hasattr(node, "v_leak") else np.zeros(1)
    v = np.broadcast_to(start, x.shape[1:]).astype(np.float32)
    synapse = v
    spikes, potentials = [], []
    for t in range(timesteps):
        now = x[t if len(x) > 1 else 0]
        if isinstance(node, nir.CubaLIF):
            leak = node.v_leak if rules.starts_at_leak else np.float32(0)
            keep = _decay(node.tau_syn, dt, rules)
            if rules.input_as_it_is:
                synapse = (keep * (synapse + node.w_in * now)).astype(np.float32)
            else:
                synapse = (keep * synapse + (1 - keep) * (leak + node.w_in * now)).astype(np.float32)
            now = synapse
        u = integrate(nir, node, v, now, dt, rules)
        if rules.floor:
            u = np.maximum(u, -node.v_threshold)
        # a program that is late compares before it adds
        decided = v if rules.late else u
        fired = decided > node.v_threshold
        if rules.several:
            fired = np.where(fired, np.floor(decided / node.v_threshold), 0.0)
        seen = fired if forced is None else forced[t]
        if rules.several or rules.late:
            v = (u - seen * node.v_threshold).astype(np.float32)
        else:
            v = np.where(seen, RESETS[rules.reset](u, node), u).astype(np.float32)
        spikes.append(fired)
        potentials.append(u)
    return np.stack(spikes), np.stack(potentials)


def _decay(tau: Array, dt: float, rules: Rules) -> Array:
    steps = dt / tau.astype(np.float64)
    return np.asarray(1 - steps if rules.euler else np.exp(-steps))


def integrate(nir: Any, node: Any, v: Array, x: Array, dt: float, rules: Rules) -> Array:
    """The potential after a step, before any reset."""
    if isinstance(node, nir.IF):
        gain = np.float32(1) if rules.input_as_it_is else (node.r.astype(np.float64) * dt).astype(np.float32)
        return np.asarray(v + gain * x)
    decay = _decay(node.tau_mem if isinstance(node, nir.CubaLIF) else node.tau, dt, rules)
    if rules.input_as_it_is:
        return np.asarray(decay.astype(np.float32) * v + x)
    gain = (1 - decay).astype(np.float32)
    return np.asarray(decay.astype(np.float32) * v + gain * (node.v_leak + node.r * x))


def apply(nir: Any, node: Any, x: Array) -> Array:
    """The output of a node without memory, for x of shape (B, ...)."""
    if isinstance(node, nir.Input | nir.Output):
        return x
    if isinstance(node, nir.Affine | nir.Linear):
        return np.asarray(x @ node.weight.astype(np.float64).T + getattr(node, "bias", 0))
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, nir.Threshold):
        return (x > node.threshold).astype(np.float64)
    if isinstance(node, nir.Flatten):
        if node.start_dim != 0 or node.end_dim not in (-1, x.ndim - 2):
            raise ValueError(f"run: expected Flatten of all axes, got {node.start_dim} to {node.end_dim}")
        return x.reshape(len(x), -1)
    if isinstance(node, nir.AvgPool2d):
        return np.asarray(windows(x, node.kernel_size, node.stride, node.padding).mean(axis=(4, 5)))
    if isinstance(node, nir.SumPool2d):
        return np.asarray(windows(x, node.kernel_size, node.stride, node.padding).sum(axis=(4, 5)))
    if isinstance(node, nir.Conv1d):
        image = nir.Conv2d(
            None,
            node.weight[:, :, np.newaxis],
            (1, int(node.stride)),
            node.padding if isinstance(node.padding, str) else (0, int(node.padding)),
            (1, int(node.dilation)),
            node.groups,
            node.bias,
        )
        return apply(nir, image, x[:, :, np.newaxis])[:, :, 0]
    if isinstance(node, nir.Conv2d):
        return _convolution(node, x)
    raise ValueError(f"run: expected nodes that dsr writes, got one of kind {type(node).__name__}")


def _convolution(node: Any, x: Array) -> Array:
    reach = np.array(node.dilation) * (np.array(node.weight.shape[2:]) - 1)
    around = {"valid": (0 * reach, 0 * reach), "same": (reach // 2, reach - reach // 2)}
    before, after = around[node.padding] if isinstance(node.padding, str) else 2 * [np.broadcast_to(node.padding, 2)]
    padded = np.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)))
    down, across = np.broadcast_to(node.dilation, 2)
    seen = windows(padded, reach + 1, node.stride, 0)[..., ::down, ::across]
    parts = [
        np.tensordot(part, weight.astype(np.float64), ((1, 4, 5), (1, 2, 3)))
        for part, weight in zip(np.split(seen, node.groups, axis=1), np.split(node.weight, node.groups), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, axis=-1) + node.bias, -1, 1)


def windows(x: Array, kernel_size: Any, stride: Any, padding: Any) -> Array:
    """(B, C, H, W, kernel, kernel) of a padded image."""
    (height, width), (down, right), (top, left) = (np.broadcast_to(pair, 2) for pair in (kernel_size, stride, padding))
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    return np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::down, ::right]


def topological(graph: Any) -> list[str]:
    """The names of all nodes, each after those with an edge to it; ValueError if there is a cycle."""
    order: list[str] = []
    left = dict.fromkeys(graph.nodes)
    while left:
        ready = [name for name in left if all(a not in left for a, b in graph.edges if b == name)]
        if not ready:
            raise ValueError(f"run: expected a graph without cycles, got one through '{next(iter(left))}'")
        order += ready
        for name in ready:
            del left[name]
    return order
