"""What `dsr.inspect` found out, as dataclasses, tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

from dsr.inspect.energy import Cost, Operations


@dataclass(frozen=True)
class NeuronLayer:
    """A spiking layer over a set of samples. A neuron is one channel of one pixel; shares are in [0, 1].

    Attributes
    ----------
    path, neuron : str
        Where it is, and its kind.
    features : tuple of int
        ``(C, H, W)`` or ``(N,)``.
    v_threshold, alpha : float
        The threshold that the passes used, and the fraction of it at which the neurons fired.
    firing_rate : float
        Spikes per neuron and time step.
    dead : float
        Share of neurons that did not fire at all, for no sample.
    saturated : float
        Share of neurons and samples with as many spikes at every step as the neuron can emit: it cannot say more.
    in_range : float
        Share of neurons and samples whose mean current is where the mapping rises, from 0 to V (IF) or to tau V / dt
        (LIF), and to so many times it with several levels. In training only these send a gradient to their input.
    error : float
        Representation error: the mean of ``|r - mapping(z)|`` as a fraction of what a spike is worth, V (IF) or V / dt
        (LIF). r is the (weighted) mean of the output, z that of the input current, and the mapping, ``clip(z, 0, V)``
        or ``clip(z / tau, 0, V / dt)``, is what training takes r for.
    spike_counts : tuple of int
        How often a neuron gave 0, 1, ..., T spikes (T times its levels) for a sample.
    """

    path: str
    neuron: str
    features: tuple[int, ...]
    v_threshold: float
    alpha: float
    firing_rate: float
    dead: float
    saturated: float
    in_range: float
    error: float
    spike_counts: tuple[int, ...]


@dataclass(frozen=True)
class CurvePoint:
    """The network run with a number of steps and an alpha that may be other than its own.

    Attributes
    ----------
    timesteps : int
        T.
    alpha : float or None
        Of all layers; None: each layer's own.
    errors : dict
        Representation error of each spiking layer by path, as in `NeuronLayer`.
    accuracy : float or None
        Share of samples classified correctly, if labels were given.
    """

    timesteps: int
    alpha: float | None
    errors: dict[str, float]
    accuracy: float | None


@dataclass(frozen=True)
class Report:
    """All that was measured; `text` is for people, `to_dict` for JSON.

    Attributes
    ----------
    timesteps, samples : int
        T, and how many samples were looked at.
    accuracy : float or None
        Share of them classified correctly, if labels were given.
    layers : tuple of NeuronLayer
        Spiking layers, in forward order.
    operations : tuple of Operations
        What is computed for a sample, on average; `dsr.inspect.energy` says how it is counted.
    cost : Cost
        Energy of an operation.
    curves : tuple of CurvePoint
        Of `dsr.inspect.error_curves`, if they were asked for.
    """

    timesteps: int
    samples: int
    accuracy: float | None
    layers: tuple[NeuronLayer, ...]
    operations: tuple[Operations, ...]
    cost: Cost = field(default_factory=Cost)
    curves: tuple[CurvePoint, ...] = ()

    @property
    def synaptic_operations(self) -> float:
        """Accumulates that spikes cause, per sample (SynOps)."""
        return sum(o.accumulates for o in self.operations if o.kind != "update")

    @property
    def energy(self) -> float:
        """Of the arithmetic of the spiking network, in nJ a sample."""
        return sum(o.energy(self.cost) for o in self.operations)

    @property
    def ann_energy(self) -> float:
        """Of the arithmetic of its ordinary twin, in nJ a sample."""
        return sum(o.ann_energy(self.cost) for o in self.operations)

    def to_dict(self) -> dict[str, Any]:
        """All fields, and the sums over the layers, ready for JSON."""
        sums = {name: getattr(self, name) for name in ("synaptic_operations", "energy", "ann_energy")}
        return asdict(self) | sums

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that `to_dict` was made of, also after a way through JSON."""
        layers = [
            NeuronLayer(**layer | {name: tuple(layer[name]) for name in ("features", "spike_counts")})
            for layer in values["layers"]
        ]
        return cls(
            values["timesteps"],
            values["samples"],
            values["accuracy"],
            tuple(layers),
            tuple(Operations(**o) for o in values["operations"]),
            Cost(**values["cost"]),
            tuple(CurvePoint(**point) for point in values["curves"]),
        )

    def text(self) -> str:
        """Tables, and what their columns mean."""
        accuracy = "" if self.accuracy is None else f", accuracy {100 * self.accuracy:.2f} %"
        parts = [f"{self.samples:,} samples, T = {self.timesteps}{accuracy}"]
        if self.layers:
            parts.append(layer_table(self.layers))
        parts.append(operation_table(self.operations, self.cost))
        if self.curves:
            parts.append(curve_table(self.curves))
        return "\n\n".join(parts)


def layer_table(layers: Sequence[NeuronLayer]) -> str:
    """Spiking layers as text."""
    width = max(len("layer"), *(len(layer.path) for layer in layers))
    lines = [
        f"{'layer':{width}}  {'':4} {'neurons':>9}  {'firing rate':>11}  {'dead':>7}  {'saturated':>9}  "
        f"{'in range':>8}  {'v_threshold':>11}  {'alpha':>6}  {'error':>7}"
    ]
    lines += [
        f"{x.path:{width}}  {x.neuron:4} {prod(x.features):9,}  {x.firing_rate:11.4f}  {100 * x.dead:5.1f} %  "
        f"{100 * x.saturated:7.1f} %  {100 * x.in_range:6.1f} %  {x.v_threshold:11.4g}  {x.alpha:6.3g}  "
        f"{100 * x.error:5.2f} %"
        for x in layers
    ]
    return "\n".join(
        [
            *lines,
            "firing rate: spikes per neuron and step; dead: neurons that never fired; saturated: fired at every step",
            "of a sample; in range: mean current where the gradient passes; error: mean distance of the output's rate",
            "from the mapping that training takes it for, as a fraction of a spike at every step",
        ]
    )


def operation_table(operations: Sequence[Operations], cost: Cost) -> str:
    """Operations and energy as text: connections layer by layer, updates of neurons together, and the sum."""
    updates = [o for o in operations if o.kind == "update"]
    rows = [(row_name(o), o.source, [o]) for o in operations if o.kind != "update"]
    rows += [("neuron updates", "", updates), ("all", "", [*operations])]
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"{'':{width}}  {'':6}  {'':>12}  {'this network':^40}  {'with ReLU, one pass':>26}",
        f"{'per sample':{width}}  {'input':6}  {'how many':>12}  {'accumulates':>14}  {'MACs':>14}  {'nJ':>10}  "
        f"{'MACs':>14}  {'nJ':>10}",
    ]
    for name, source, parts in rows:
        events = f"{parts[0].events:12,.0f}" if source else " " * 12
        accumulates, macs = sum(o.accumulates for o in parts), sum(o.macs for o in parts)
        lines.append(
            f"{name:{width}}  {source:6}  {events}  {accumulates:14,.0f}  {macs:14,.0f}  "
            f"{sum(o.energy(cost) for o in parts):10,.1f}  {sum(o.ann_macs for o in parts):14,.0f}  "
            f"{sum(o.ann_energy(cost) for o in parts):10,.1f}"
        )
    known = " (32-bit float, 45 nm, Horowitz 2014)" if cost == Cost() else ""
    return "\n".join(
        [
            *lines,
            f"energy: {cost.accumulate:g} pJ an accumulate, {cost.mac:g} pJ a multiply-accumulate (MAC){known};",
            "of the arithmetic alone: memory accesses, which usually need more in both networks, are not counted",
        ]
    )


def row_name(operations: Operations) -> str:
    """The layer, and whether it adds spikes without weights."""
    return f"{operations.path} (no weights)" if operations.kind == "direct" else operations.path


def curve_table(curves: Sequence[CurvePoint]) -> str:
    """Error curves as text: all layers if they are few, else the mean and the worst."""
    few = len(curves[0].errors) <= 6
    names = list(curves[0].errors) if few else ["mean error", "worst error", "of layer"]
    widths = [max(8, len(name)) for name in names] if few else [10, 11, max(map(len, curves[0].errors))]
    lines = [
        f"{'T':>4}  {'alpha':>6}  {'accuracy':>8}  "
        + "  ".join(f"{n:>{w}}" for n, w in zip(names, widths, strict=True))
    ]
    for point in curves:
        alpha = "own" if point.alpha is None else f"{point.alpha:.3g}"
        accuracy = "" if point.accuracy is None else f"{100 * point.accuracy:.2f} %"
        errors = point.errors
        worst = max(errors, key=errors.__getitem__)
        cells = [
            f"{100 * e:.2f} %"
            for e in (errors.values() if few else (sum(errors.values()) / len(errors), errors[worst]))
        ]
        cells += [] if few else [worst]
        lines.append(
            f"{point.timesteps:4d}  {alpha:>6}  {accuracy:>8}  "
            + "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True))
        )
    return "\n".join([*lines, "the network as trained, run with another T or alpha; error as above, layer by layer"])
