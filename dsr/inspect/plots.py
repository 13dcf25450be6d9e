"""Pictures of a report of `dsr.inspect`; need matplotlib (``pip install dsr[plot]``), which is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dsr.files.figures import save_figure
from dsr.inspect.report import CurvePoint, NeuronLayer, Report

SPIKING, ORDINARY, FULL = "#d95f02", "#9a9a9a", "#7570b3"
MOST_NAMES = 8
"""With more layers than this a picture tells them apart by shade, not by name."""


def pictures(report: Report, folder: str | Path) -> list[Path]:
    """All pictures of a report, into a folder, which is made if it does not exist.

    Returns
    -------
    list of Path
        ``firing.png``, if there are spiking layers, ``energy.png``, and ``errors.png``, if the report has curves.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {folder / "firing.png": firing} if report.layers else {}
    drawn[folder / "energy.png"] = energy
    if report.curves:
        drawn[folder / "errors.png"] = errors
    for path, draw in drawn.items():
        draw(report, path)
    return list(drawn)


def firing(report: Report, path: str | Path) -> None:
    """How many spikes the neurons of each layer give for a sample, as a picture at `path`."""
    layers = report.layers
    columns = min(3, len(layers))
    figure, axes = _figure(-(-len(layers) // columns), columns, (3.4, 2.3))
    figure.suptitle(f"How many spikes a neuron gives in {report.timesteps} steps ({report.samples:,} samples)")
    for axis, layer in zip(axes.flat, layers, strict=False):
        _firing_panel(axis, layer, report.timesteps)
    for axis in axes.flat[len(layers) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("share, %", fontsize="small")
    save_figure(figure, path)


def _firing_panel(axis: Any, layer: NeuronLayer, timesteps: int) -> None:
    shares = 100 * np.array(layer.spike_counts) / sum(layer.spike_counts)
    most = len(layer.spike_counts) - 1  # T, or of graded spikes as many times T
    spikes = np.arange(1, most + 1)
    colours = [SPIKING] * (most - 1) + [FULL]
    axis.bar(spikes, shares[1:], width=0.85, color=colours)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlim(0.4, most + 0.6)
    axis.set_title(layer.path, fontsize="small")
    full = "at every step" if most == timesteps else "all levels at every step"
    words = f"{shares[0]:.0f} % silent (not drawn)\n{shares[-1]:.0f} % {full}"
    axis.text(0.97, 0.95, words, ha="right", va="top", fontsize="x-small", transform=axis.transAxes)
    axis.set_ylim(0, 1.35 * max(shares[1:].max(), 0.1))
    axis.set_xlabel("spikes", fontsize="small")


def energy(report: Report, path: str | Path) -> None:
    """Energy of each layer's arithmetic beside that of the ordinary twin, as a picture at `path`."""
    cost = report.cost
    weighted = [o for o in report.operations if o.kind == "connections"]
    others = [o for o in report.operations if o.kind != "connections"]
    rows = [(o.path, o.energy(cost), o.ann_energy(cost)) for o in weighted]
    rows.append(
        ("neurons, sums without weights", sum(o.energy(cost) for o in others), sum(o.ann_energy(cost) for o in others))
    )
    names, spiking, ordinary = zip(*rows, strict=True)
    figure, axes = _figure(1, 1, (8, 1.5 + 0.34 * len(rows)))
    axis, places = axes[0, 0], np.arange(len(rows))
    scale, unit = (1.0, "nJ") if max(*spiking, *ordinary) < 1e4 else (1e-3, "µJ")
    for shift, values, total, colour, name in (
        (-0.2, spiking, report.energy, SPIKING, f"this network, T = {report.timesteps}"),
        (0.2, ordinary, report.ann_energy, ORDINARY, "the same network with ReLU, one pass"),
    ):
        label = f"{name}: {scale * total:,.4g} {unit}"
        axis.barh(places + shift, scale * np.array(values), height=0.4, color=colour, label=label)
    axis.set_yticks(places, names, fontsize="small")
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(
        f"{unit} a sample, arithmetic alone: {cost.accumulate:g} pJ an accumulate, {cost.mac:g} pJ a MAC; "
        "memory accesses not counted",
        fontsize="small",
    )
    axis.set_title("Estimated energy of each layer")
    figure.legend(fontsize="small", loc="outside lower center")
    save_figure(figure, path)


def errors(report: Report, path: str | Path) -> None:
    """Representation errors against T, a panel for each alpha, and the accuracy, as a picture at `path`."""
    curves = {alpha: [p for p in report.curves if p.alpha == alpha] for alpha in (p.alpha for p in report.curves)}
    steps = sorted({point.timesteps for point in report.curves})
    measured = report.curves[0].accuracy is not None
    panels, columns = len(curves) + measured, min(3, len(curves) + measured)
    figure, axes = _figure(-(-panels // columns), columns, (max(3.6, 8 / columns), 3.0))
    figure.suptitle(f"The same network run with other numbers of steps (dashed: its own, {report.timesteps})")
    shown = [100 * error for point in report.curves for error in point.errors.values() if error > 0] or [1.0]
    for axis in axes.flat[:panels]:
        axis.set_xscale("log")
        axis.set_xticks(steps, [str(t) for t in steps], fontsize="small")
        axis.minorticks_off()
        axis.set_xlabel("time steps T", fontsize="small")
        axis.grid(color="0.9")
        axis.axvline(report.timesteps, color="0.6", linestyle="--", linewidth=1)
    for axis, (alpha, points) in zip(axes.flat, curves.items(), strict=False):
        axis.set_yscale("log")
        axis.set_ylim(min(shown) / 1.3, max(shown) * 1.3)
        axis.set_title(f"representation error, %, {_alpha_name(alpha)}", fontsize="small")
        lines = _error_panel(axis, points)
    names = list(report.curves[0].errors)
    if len(names) > MOST_NAMES:
        lines, names = [lines[0], lines[-1]], [names[0], f"... to {names[-1]}"]
    # beside the panels, where it covers nothing
    figure.legend(lines, names, fontsize="x-small", loc="outside lower center", ncols=4)
    if measured:
        axis, drawn = axes.flat[len(curves)], []
        for alpha, points in curves.items():
            shares = [100 * point.accuracy for point in points if point.accuracy is not None]
            axis.plot([p.timesteps for p in points], shares, "o-", markersize=3, label=_alpha_name(alpha))
            drawn += shares
        room = max(1, 0.05 * (max(drawn) - min(drawn)))
        axis.set_ylim(min(drawn) - room, max(drawn) + room)
        axis.set_title("accuracy, %", fontsize="small")
        legend = axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
        legend.set_in_layout(panels % columns == 0)  # else an empty panel has room for it
    for axis in axes.flat[panels:]:
        axis.set_axis_off()
    save_figure(figure, path)


class ExitPoint(Protocol):
    """What a threshold of early exit gives, see `dsr.deploy.early_exit.Point`."""

    @property
    def threshold(self) -> float:
        """Infinity: all steps."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""

    @property
    def timesteps(self) -> float:
        """The mean."""


def exits(points: Sequence[ExitPoint], path: str | Path, chosen: float | None = None) -> None:
    """Accuracy against mean T of thresholds of early exit, the chosen one marked, as a picture at `path`."""
    figure, axes = _figure(1, 1, (4.8, 3.2))
    axis = axes[0, 0]
    ordered = sorted(points, key=lambda point: point.timesteps)
    axis.plot([p.timesteps for p in ordered], [100 * p.accuracy for p in ordered], "o-", markersize=3, color=SPIKING)
    for point in ordered:
        name = "all steps" if np.isinf(point.threshold) else f"{point.threshold:g}"
        at = point.timesteps, 100 * point.accuracy
        axis.annotate(name, at, (3, -9), textcoords="offset points", fontsize="xx-small", color=ORDINARY)
        if point.threshold == chosen:
            axis.plot(*at, "o", markersize=8, markerfacecolor="none", color=FULL)
    axis.set_xlabel("mean T", fontsize="small")
    axis.set_ylabel("accuracy, %", fontsize="small")
    axis.set_title("Early exit: accuracy against time steps", fontsize="small")
    save_figure(figure, path)


def _error_panel(axis: Any, points: Sequence[CurvePoint]) -> list[Any]:
    """The lines of the layers."""
    from matplotlib.ticker import LogFormatter

    names, lines = list(points[0].errors), []
    for number, name in enumerate(names):
        colour = f"C{number}" if len(names) <= MOST_NAMES else (0.9 * number / len(names), 0.3, 0.6)
        values = [100 * point.errors[name] for point in points]
        lines += axis.plot([p.timesteps for p in points], values, "o-", markersize=3, color=colour)
    for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        set_formatter(LogFormatter())  # plain numbers, not powers of ten
    return lines


def _alpha_name(alpha: float | None) -> str:
    return "its own alpha" if alpha is None else f"alpha = {alpha:g}"


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of `rows` x `columns` panels of `size` inches, and the panels, (rows, columns)."""
    if find_spec("matplotlib") is None:
        raise ImportError("dsr.inspect.plots: matplotlib is not installed; pip install dsr[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a figure of its own: no global state, and no display is needed
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)
