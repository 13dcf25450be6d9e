"""NIR graphs run step by step in plain NumPy: what a program that takes the file literally would compute.

A step of length dt: every node once, in the order of the edges, a spike being seen by the nodes after it in the same
step. Neurons are integrated with the input held for the step (IF: ``v += dt r I``; LIF: exactly, or by Euler's rule),
compare ``v > v_threshold``, and are reset in one of the ways that programs choose from. Potentials are float32, as
those of dsr are; everything between neurons is float64, rounded once.
"""

from __future__ import annotations

import nir
import numpy as np

RESETS = {
    "subtract": lambda v, node: v - (node.v_threshold - node.v_reset),  # exact for what dsr writes
    "subtract threshold": lambda v, node: v - node.v_threshold,
    "to v_reset": lambda v, node: np.broadcast_to(node.v_reset, v.shape),
    "to zero": lambda v, node: np.zeros_like(v),
}


class Result:
    """What came out: `values` of all nodes (T, B, ...), and of neurons the potential before the reset."""

    def __init__(self):
        self.values, self.potentials = {}, {}

    def stack(self):
        for table in (self.values, self.potentials):
            for name, steps in table.items():
                table[name] = np.stack(steps)
        return self


def run(graph, data, timesteps, dt, reset="subtract", euler=False, forced=None):
    """Run a graph.

    `data` is (B, ...), the same at every step, or (T, B, ...) with ``T = timesteps`` where it has an axis more than the
    Input. With `forced`, spikes (T, B, ...) by neuron, each neuron decides for itself (`values` says how), but what
    others see, and the reset, follow `forced`: so two programs can be compared decision by decision.
    """
    order = topological(graph)
    (source,) = (name for name in order if isinstance(graph.nodes[name], nir.Input))
    data = np.asarray(data, np.float32)
    static = data.ndim == len(graph.nodes[source].input_type["input"]) + 1
    result = Result()
    result.values = {name: [] for name in order}
    state = {}
    for t in range(timesteps):
        now = {}
        for name in order:
            node = graph.nodes[name]
            x = sum(now[a] for a, b in graph.edges if b == name) if name != source else data if static else data[t]
            x = np.asarray(x, np.float64)
            if isinstance(node, nir.IF | nir.LIF):
                u = integrate(node, state.get(name), x.astype(np.float32), dt, euler)
                spikes = u > node.v_threshold
                result.potentials.setdefault(name, []).append(u)
                result.values[name].append(spikes)
                seen = spikes if forced is None else forced[name][t]
                state[name] = np.where(seen, RESETS[reset](u, node), u).astype(np.float32)
                now[name] = seen.astype(np.float64)
            else:
                now[name] = apply(node, x)
                result.values[name].append(now[name])
    return result.stack()


def integrate(node, v, x, dt, euler):
    v = np.zeros_like(x) if v is None else v
    if isinstance(node, nir.IF):
        return v + (node.r.astype(np.float64) * dt).astype(np.float32) * x
    steps = dt / node.tau.astype(np.float64)
    decay = 1 - steps if euler else np.exp(-steps)
    return decay.astype(np.float32) * v + (1 - decay).astype(np.float32) * (node.v_leak + node.r * x)


def apply(node, x):
    if isinstance(node, nir.Input | nir.Output):
        return x
    if isinstance(node, nir.Affine | nir.Linear):
        return x @ node.weight.astype(np.float64).T + getattr(node, "bias", 0)
    if isinstance(node, nir.Scale):
        return x * node.scale
    if isinstance(node, nir.Threshold):
        return (x > node.threshold).astype(np.float64)
    if isinstance(node, nir.Flatten):
        assert node.start_dim == 0 and node.end_dim in (-1, x.ndim - 2)
        return x.reshape(len(x), -1)
    if isinstance(node, nir.AvgPool2d):
        return windows(x, node.kernel_size, node.stride, node.padding).mean(axis=(4, 5))
    if isinstance(node, nir.SumPool2d):
        return windows(x, node.kernel_size, node.stride, node.padding).sum(axis=(4, 5))
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
        return apply(image, x[:, :, np.newaxis])[:, :, 0]
    if isinstance(node, nir.Conv2d):
        reach = np.array(node.dilation) * (np.array(node.weight.shape[2:]) - 1)
        around = {"valid": (0 * reach, 0 * reach), "same": (reach // 2, reach - reach // 2)}
        before, after = (
            around[node.padding] if isinstance(node.padding, str) else 2 * [np.broadcast_to(node.padding, 2)]
        )
        padded = np.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)))
        seen = windows(padded, reach + 1, node.stride, 0)[..., :: node.dilation[0], :: node.dilation[1]]
        parts = [
            np.tensordot(part, weight.astype(np.float64), ((1, 4, 5), (1, 2, 3)))
            for part, weight in zip(
                np.split(seen, node.groups, axis=1), np.split(node.weight, node.groups), strict=True
            )
        ]
        return np.moveaxis(np.concatenate(parts, axis=-1) + node.bias, -1, 1)
    raise NotImplementedError(type(node).__name__)


def windows(x, kernel_size, stride, padding):
    """(B, C, H, W, kernel, kernel) of a padded image."""
    (height, width), (down, right), (top, left) = (np.broadcast_to(pair, 2) for pair in (kernel_size, stride, padding))
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    return np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::down, ::right]


def topological(graph):
    order, left = [], dict.fromkeys(graph.nodes)
    while left:
        ready = [name for name in left if all(a not in left for a, b in graph.edges if b == name)]
        assert ready, "a cycle"
        order += ready
        for name in ready:
            del left[name]
    return order
