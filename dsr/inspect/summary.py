"""Summary: what a network is made of, layer by layer, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from dsr.inspect.measurement import measure
from dsr.nn.currents import Current, Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.run import Run


@dataclass(frozen=True)
class LayerRow:
    """A layer of a network.

    Attributes
    ----------
    path : str
        Where it is.
    kind : str
        What it is; convolutions and pooling with their kernel, and their stride where it is not the usual one.
    shape : tuple of int
        Of the output of a sample and time step, ``(C, H, W)`` or ``(N,)``.
    parameters : int
        Trained numbers.
    macs : int or None
        Multiply-adds for a sample and time step, if all values were dense; borders count as full. None: the layer does
        not say (`dsr.Layer.multiply_adds`).
    neurons : int
        Spiking neurons.
    firing_rate : float or None
        Spikes per neuron and time step; None without data, and for layers that do not spike.
    synaptic_operations : float or None
        Additions of weights for a sample in all its time steps, one for each spike and connection, as
        `dsr.inspect.energy` counts them. None without data, and where the input is not spikes: there the multiply-adds
        are due.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    macs: int | None
    neurons: int = 0
    firing_rate: float | None = None
    synaptic_operations: float | None = None


def summary(network: Network, features: Sequence[int], data: ArrayLike | None = None) -> list[LayerRow]:
    """The layers of a network, in forward order.

    Parameters
    ----------
    network : Network
        It is not changed.
    features : sequence of int
        Shape of a sample (of one time step): ``(N,)``, ``(C, L)`` or ``(C, H, W)``.
    data : array_like, optional
        Samples as for `Network.forward`, on which to count the spikes of a network that has any.

    Returns
    -------
    list of LayerRow

    Raises
    ------
    ValueError
        Features or data do not fit the network, or there is no sample.
    """
    if not 1 <= len(features) <= 3:
        raise ValueError(f"summary: argument 'features': expected (N,), (C, L) or (C, H, W), got {tuple(features)}")
    outputs: dict[str, tuple[int, ...]] = {}

    def observe_shape(path: str, layer: Layer, output: Signal) -> None:
        outputs[path] = output.features

    # one step suffices for shapes
    blank = Current.from_static(np.zeros((1, *features), np.float32), 1)
    network.body(blank, Run(observer=observe_shape))

    rates: dict[str, float] = {}
    operations: dict[str, float] = {}
    if data is not None and any(True for _ in network.neurons()):
        report = measure(network, data)
        rates = {layer.path: layer.firing_rate for layer in report.layers}
        operations = {
            o.path: o.accumulates for o in report.operations if o.kind == "connections" and o.source == "spikes"
        }
    rows = []
    for path, layer in network.body.walk():
        if layer.children():
            continue
        shape = outputs[path]
        rows.append(
            LayerRow(
                path,
                layer.kind(),
                shape,
                sum(parameter.value.size for parameter in layer.parameters().values()),
                layer.multiply_adds(shape),
                prod(shape) if isinstance(layer, Neuron) else 0,
                rates.get(path),
                operations.get(path),
            )
        )
    return rows


def table(rows: Sequence[LayerRow]) -> str:
    """The rows of `summary` as text, with totals."""
    measured = any(row.firing_rate is not None for row in rows)
    head = ["layer", "kind", "output", "parameters", "MACs"]
    lines = [
        [row.path, row.kind, "x".join(map(str, row.shape)), _count(row.parameters), _count(row.macs)] for row in rows
    ]
    neurons = sum(row.neurons for row in rows)
    total = ["total", "", f"{neurons:,} neurons" if neurons else ""]
    total += [f"{sum(row.parameters for row in rows):,}", f"{sum(row.macs or 0 for row in rows):,}"]
    notes = ["MACs: multiply-adds for a sample and time step, as if all values were dense"]
    if measured:
        head += ["firing rate", "synaptic operations"]
        for line, row in zip(lines, rows, strict=True):
            line.append("" if row.firing_rate is None else f"{row.firing_rate:.4f}")
            line.append("" if row.synaptic_operations is None else f"{row.synaptic_operations:,.0f}")
        spikes = sum(row.neurons * row.firing_rate for row in rows if row.firing_rate is not None)
        total.append(f"{spikes / neurons:.4f}")
        total.append(f"{sum(row.synaptic_operations or 0 for row in rows):,.0f}")
        notes.append("synaptic operations: for a sample in all time steps, an addition for each spike and connection")
        dense = [row.path for row in rows if row.macs and row.synaptic_operations is None]
        if dense:
            notes.append(f"no spikes, but dense values, go into {', '.join(dense)}")
    grid = [head, *lines, total]
    widths = [max(len(line[column]) for line in grid) for column in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in grid
    ]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1], *notes])


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}" if number else ""
