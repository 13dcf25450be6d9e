"""Programs that read NIR, and what each of them takes: graphs are written for one of them, or refused.

Each has its own nodes, its own time step and its own neurons. The figures of `READERS` were found by running the
versions named there; `dsr.nir.interpret` follows their rules, so that what is lost can be measured without them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, expm1
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nir.folding import AnyNode, Doubles, Flatten, Folded, Input, Neurons, Output, Pool, Scale, Step, Style, Weights
from dsr.nir.interpret import Rules
from dsr.ops import Geometry, PerChannel

Single = NDArray[np.float32]
Every = Callable[[Any], Single]
"""A number, or one for each channel, for every neuron."""

_NEVER = 2.0**24
"""Steps in a time constant that is as good as none: a leak of half a unit in the last place of float32."""


@dataclass(frozen=True)
class Reader:
    """A program that reads NIR.

    Attributes
    ----------
    version : str
        That it was tried with.
    call : str
        How it is called, in a line of Python.
    takes : tuple of type
        Kinds of folded nodes that it can read.
    style : callable
        T to what the graph may consist of.
    neurons : callable, optional
        ``(nir, node, every, T)`` to a node of NIR; by default what is written for nobody in particular.
    rules : Rules
        How it runs neurons.
    delta_t : float
        Its time step.
    step : callable, optional
        ``(nir, features, threshold)`` to a node of NIR for neurons without memory.
    flattens : bool
        It reads Flatten, and does not take the batch for an axis of samples.
    leaky_images : bool
        It reads leaky neurons that are images.
    depth_first : bool
        It runs nodes in the order of a search in depth (`nirtorch.load`), so that a sum may be made before its parts.
    chain : bool
        It reads nodes one after the other only.
    per_channel : bool
        Thresholds may differ from channel to channel.
    note : str
        What a user has to know.
    """

    version: str
    call: str
    takes: tuple[type[AnyNode], ...]
    style: Callable[[int], Style]
    neurons: Callable[[Any, Neurons, Every, int], Any] | None
    rules: Rules
    delta_t: float
    step: Callable[[Any, Single], Any] | None = None
    flattens: bool = False
    leaky_images: bool = True
    depth_first: bool = False
    chain: bool = False
    per_channel: bool = True
    note: str = ""


def _missing(node: Neurons) -> Doubles:
    """The charge that neurons of dsr have in advance, where others fire at the threshold that they subtract."""
    return np.asarray((1 - node.alpha) * np.asarray(node.v_threshold, np.float64))


def _in_time(timesteps: int) -> Callable[[Neurons], Doubles]:
    """The constant input that makes this charge in T steps: potentials cannot start at it."""
    return lambda node: _missing(node) / (-expm1(-node.leak * timesteps) if node.leak else timesteps)


def _below(values: PerChannel | Single) -> Any:
    return np.nextafter(np.asarray(values, np.float32), np.float32(-np.inf))


def _share(node: Neurons) -> float:
    """What a leaky neuron adds of its input in a step."""
    return -expm1(-node.leak) if node.leak else 1.0


def _norse(nir: Any, node: Neurons, every: Every, timesteps: int) -> Any:
    # an IF neuron is one whose leak is lost in rounding, and r undoes the smallness of its step
    tau, r = (_NORSE_STEP / _share(node), 1.0) if node.leak else (_NORSE_STEP * _NEVER, _NEVER)
    return nir.CubaLIF(
        tau_syn=every(_NORSE_STEP),
        tau_mem=every(tau),
        r=every(r),
        v_leak=every(_missing(node)),
        v_threshold=every(_below(node.v_threshold)),
        v_reset=every(0),
        w_in=every(1),
    )


def _snntorch(nir: Any, node: Neurons, every: Every, timesteps: int) -> Any:
    tau, r = (_SNNTORCH_STEP / _share(node), 1.0) if node.leak else (_SNNTORCH_STEP * _NEVER, _NEVER)
    threshold = _below(share_of_threshold(node.alpha, node.leak, timesteps) * np.asarray(node.v_threshold, np.float32))
    return nir.LIF(tau=every(tau), r=every(r), v_leak=every(0), v_threshold=every(threshold), v_reset=every(0))


def share_of_threshold(alpha: float, leak: float, timesteps: int) -> float:
    """The share of `v_threshold` at which neurons that are set to 0 come nearest to those that subtract it.

    They lose what lies above the threshold, so at `v_threshold` they fire too seldom, and too often at `alpha` of it. A
    share that makes both fire as often is found by running both for T steps with currents from 0 to where neurons fire
    at each step, small ones more often, as in trained networks (squares of uniform numbers). What is taken lies half
    way between this share and `alpha`. On digits (T = 5, 360 images) it lost 1.4 points of accuracy with IF and 2.2
    with LIF; `alpha` lost 3.1 and 1.7, and the share itself 1.7 and 2.8.
    """
    drive = ((np.arange(1000) + 0.5) / 1000) ** 2

    def spikes(threshold: float, subtract: bool) -> float:
        v, count = np.zeros_like(drive), 0
        for _ in range(timesteps):
            v = exp(-leak) * v + drive
            fired = v >= threshold
            count += int(fired.sum())
            v = np.where(fired, v - 1 if subtract else 0, v)
        return float(count)

    wanted, low, high = spikes(alpha, True), 0.0, 2.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if spikes(middle, False) > wanted else (low, middle)
    return (alpha + high) / 2


def _sinabs(nir: Any, node: Neurons, every: Every, timesteps: int) -> Any:
    thresholds = {"v_threshold": every(node.v_threshold), "v_reset": every(0)}
    if node.leak:
        return nir.LIF(tau=every(1 / node.leak), r=every(1), v_leak=every(0), **thresholds)
    return nir.IF(r=every(1), **thresholds)


def _spyx(nir: Any, node: Neurons, every: Every, timesteps: int) -> Any:
    thresholds = {"v_threshold": every(_below(node.v_threshold)), "v_reset": every(0)}
    if node.leak:
        return nir.LIF(tau=every(1 / _share(node)), r=every(1), v_leak=every(0), **thresholds)
    return nir.IF(r=every(1), **thresholds)


def _rockpool(nir: Any, node: Neurons, every: Every, timesteps: int) -> Any:
    tau = 1 / node.leak if node.leak else _NEVER
    return nir.CubaLIF(
        tau_syn=every(1 / np.log(_ROCKPOOL_DECAY)),
        tau_mem=every(tau),
        r=every(tau - 1),  # from which it computes its time step
        v_leak=every(0),
        v_threshold=every(node.v_threshold),
        v_reset=every(0),
        w_in=every(1),
    )


_NORSE_STEP, _SNNTORCH_STEP = 1e-3, 1e-4
_ROCKPOOL_DECAY = 2.0**16
"""By which a synapse falls in a step: what is left over is lost in the rounding of weights to 16 bits."""

_CHAIN = (Weights, Neurons)
_IMAGES = (*_CHAIN, Pool)

READERS: dict[str, Reader] = {
    "nirtorch": Reader(
        version="nirtorch 2.6",
        call="nirtorch.nir_to_torch(nir.read(FILE), {nir.IF: Neuron, nir.LIF: Neuron, nir.Affine: affine})",
        takes=(*_IMAGES, Step, Scale),
        style=lambda timesteps: Style(diagonal=True),
        neurons=None,
        rules=Rules(),
        delta_t=1.0,
        step=lambda nir, threshold: nir.LIF(
            *(np.full_like(threshold, value) for value in (1 / 128, 1, 0)), threshold, 0 * threshold
        ),
        note="It has no neurons of its own: Neuron is a module of yours that subtracts v_threshold - v_reset. Its own "
        "module for nir.Affine leaves the bias out, so give one.",
    ),
    "norse": Reader(
        version="norse 1.1.0, nirtorch 2.6",
        call="norse.torch.from_nir(nir.read(FILE), reset_method=norse.torch.functional.reset.reset_subtract)",
        takes=(*_IMAGES, Step),
        style=lambda timesteps: Style(sums=True, diagonal=True, shift=lambda node: -_missing(node)),
        neurons=_norse,
        rules=Rules(reset="subtract threshold", euler=True, starts_at_leak=True),
        delta_t=_NORSE_STEP,
        depth_first=True,
        step=lambda nir, threshold: nir.CubaLIF(
            *(np.full_like(threshold, value) for value in (_NORSE_STEP, _NORSE_STEP, 1, 0)), threshold, 0 * threshold
        ),
        note="Without reset_method potentials are set to 0, and accuracy is lost.",
    ),
    "snntorch": Reader(
        version="snntorch 1.0.0, nirtorch 2.6",
        call="snntorch.import_nir.import_from_nir(nir.read(FILE))",
        takes=(*_IMAGES, Step),
        style=lambda timesteps: Style(diagonal=True),
        neurons=_snntorch,
        rules=Rules(reset="to zero", euler=True),
        delta_t=_SNNTORCH_STEP,
        step=lambda nir, threshold: nir.LIF(
            *(np.full_like(threshold, value) for value in (_SNNTORCH_STEP, 1, 0)), threshold, 0 * threshold
        ),
        per_channel=False,
        note="Its neurons are set to 0 at a spike, whatever the file says.",
    ),
    "sinabs": Reader(
        version="sinabs 3.1.3, which asks for nir <= 1.0.4",
        call="sinabs.nir.from_nir(nir.read(FILE), batch_size=B)",
        takes=(*_IMAGES, Flatten),
        style=lambda timesteps: Style(sums=True, diagonal=True, shift=_in_time(timesteps), gain=_share),
        neurons=_sinabs,
        rules=Rules(reset="subtract threshold", input_as_it_is=True, several=True, floor=True),
        delta_t=1.0,
        flattens=True,
        leaky_images=False,
        depth_first=True,
        note="A neuron may give several spikes in a step, and IF potentials do not fall below minus the threshold. "
        "With spike_fn = sinabs.activation.SingleSpike and min_v_mem = None in its layers of neurons they do as in "
        "dsr, and with alpha = 1 give the same spikes.",
    ),
    "spyx": Reader(
        version="spyx 1.0.0",
        call="spyx.nir.from_nir(nir.read(FILE), frames, dt=1)",
        takes=_IMAGES,
        style=lambda timesteps: Style(sums=True, diagonal=True, shift=_in_time(timesteps), gain=_share),
        neurons=_spyx,
        rules=Rules(reset="subtract threshold", euler=True, input_as_it_is=True, late=True),
        delta_t=1.0,
        chain=True,
        note="Each layer of neurons gives its spikes a step late: run as many steps more as there are layers. Frames "
        "are (T, B, H, W, C).",
    ),
    "rockpool": Reader(
        version="rockpool 3.1.0",
        call="rockpool.nn.modules.torch.nir.from_nir(nir.read(FILE))",
        takes=_CHAIN,
        style=lambda timesteps: Style(
            diagonal=True, shift=_in_time(timesteps), gain=lambda node: _ROCKPOOL_DECAY * _share(node)
        ),
        neurons=_rockpool,
        rules=Rules(reset="subtract threshold", input_as_it_is=True, several=True),
        delta_t=1.0,
        depth_first=True,
        note="A neuron may give several spikes in a step.",
    ),
}


def fitting(name: str, graph: Folded) -> Folded:
    """The graph with what the reader takes; ValueError, with the node's name, where there is no way to say it."""
    reader = READERS[name]
    graph = _without_flatten(name, graph)
    nodes: dict[str, AnyNode] = {}
    for key, node in graph.nodes.items():
        if isinstance(node, Weights):
            node = _dense(name, key, node)
        nodes[key] = node
        if key in ("input", "output"):
            continue
        if not isinstance(node, reader.takes):
            raise _refusal(name, key, f"{name} has nothing that does what it does ({type(node).__name__})")
        if name == "rockpool" and isinstance(node, Weights) and node.geometry is not None:
            raise _refusal(name, key, "rockpool has no convolutions")
        if isinstance(node, Weights) and node.geometry is not None and len(node.before) != 3:
            raise _refusal(name, key, f"{name} does not read convolutions of signals (C, L)")
        if isinstance(node, Neurons) and node.leak and len(node.features) > 1 and not reader.leaky_images:
            raise _refusal(name, key, f"{name} fails on leaky neurons that are images")
        if isinstance(node, Neurons) and not reader.per_channel and np.ndim(node.v_threshold):
            raise _refusal(name, key, f"{name} has one threshold for all neurons of a layer")
        if isinstance(node, Pool) and node.sums and node.padding != (0, 0):
            raise _refusal(name, key, f"{name} does not read the padding of sum pooling, {node.padding}")
        if reader.chain and len(graph.sources(key)) > 1:
            raise _refusal(name, key, f"{name} reads chains of nodes only, not sums of several")
    graph = replace(graph, nodes=nodes)
    if reader.depth_first:
        _require_order(name, graph)
    return graph


def _require_order(reader: str, graph: Folded) -> None:
    """Raise ValueError where a search in depth comes to a node before it was at all of its sources."""
    seen: dict[str, None] = {}
    left = ["input"]
    while left:
        name = left.pop()
        if name in seen:
            continue
        late = [source for source in graph.sources(name) if source not in seen]
        if late:
            reason = f"{reader} would run it before '{late[0]}', and add what that gave a step earlier"
            raise _refusal(reader, name, f"{reason}; of two branches one may have layers")
        seen[name] = None
        left += reversed(graph.readers(name))
    if next(reversed(seen)) != "output":
        raise _refusal(reader, next(reversed(seen)), f"{reader} would take it for the output")


def _refusal(reader: str, node: str, reason: str) -> ValueError:
    return ValueError(f"to_nir: argument 'reader': {reader} cannot read node '{node}': {reason}")


def _dense(reader: str, name: str, node: Weights) -> Weights:
    """Groups as zeros of a full kernel, which is read wrongly elsewhere; padding the same on opposite sides."""
    geometry = node.geometry
    if geometry is None:
        return node
    top, bottom, left, right = geometry.padding
    if (top, left) != (bottom, right):
        raise _refusal(reader, name, 'padding "same" of an even kernel; use an odd one')
    if geometry.groups == 1:
        return node
    out, inner = node.weight.shape[:2]
    weight = np.zeros((out, inner * geometry.groups, *node.weight.shape[2:]))
    for group in range(geometry.groups):
        outs = slice(group * out // geometry.groups, (group + 1) * out // geometry.groups)
        weight[outs, group * inner : (group + 1) * inner] = node.weight[outs]
    return replace(node, weight=weight, geometry=replace(geometry, groups=1))


def _without_flatten(reader: str, graph: Folded) -> Folded:
    """Vectors that were images become images of one pixel, and the layer that reads all pixels a convolution.

    NIR's shapes have no batch, and readers flatten it too, or cannot be told.
    """
    flat = {name: node for name, node in graph.nodes.items() if isinstance(node, Flatten)}
    if not flat or READERS[reader].flattens:
        return graph
    if reader == "rockpool":
        return _of_vectors(graph)
    nodes: dict[str, AnyNode] = {}
    edges: list[tuple[str, str]] = []
    images: dict[str, tuple[int, ...]] = {}  # what a vector is now
    instead: dict[str, list[str]] = {}
    for name, node in graph.nodes.items():
        sources = [part for source in graph.sources(name) for part in instead.get(source, [source])]
        before = next((images[source] for source in graph.sources(name) if source in images), None)
        if isinstance(node, Flatten):
            instead[name], images[name] = sources, node.before if before is None else before
            continue
        if before is not None:
            node = _as_image(reader, name, node, before)
            images[name] = node.features
        nodes[name] = node
        edges += [(source, name) for source in sources]
    return replace(graph, nodes=nodes, edges=edges)


def _of_vectors(graph: Folded) -> Folded:
    """Samples that are flattened first are vectors."""
    first = graph.readers("input")
    flat = graph.nodes[first[0]]
    if len(first) != 1 or not isinstance(flat, Flatten):
        return graph
    nodes = {name: node for name, node in graph.nodes.items() if name != first[0]} | {"input": Input(flat.features)}
    edges = [("input" if a == first[0] else a, b) for a, b in graph.edges if b != first[0]]
    return replace(graph, nodes=nodes, edges=edges)


def _as_image(reader: str, name: str, node: AnyNode, before: tuple[int, ...]) -> AnyNode:
    if isinstance(node, Weights):
        out = len(node.weight)
        kernel = before[1], before[2]
        weight = node.weight.reshape(out, *before)
        return Weights(before, (out, 1, 1), weight, node.bias, Geometry(kernel))
    if isinstance(node, Output) or before[1:] == (1, 1):
        return replace(node, features=before)
    raise _refusal(reader, name, f"it gets an image that was flattened, {before}; only linear layers can")
