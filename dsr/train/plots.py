"""Plots of a run; needs matplotlib (``pip install dsr[plot]``), which is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import Samples
from dsr.files.figures import available, save_figure
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Values
from dsr.train.run_folder import load_metrics

MOST_NAMES = 8
"""Of more layers than this a picture tells the first and the last by name."""

MOST_TICKS = 20
"""Up to so many neurons or steps, each has a tick."""


def _figure(width: float, height: float) -> Any:
    if not available():
        raise ImportError("dsr.train.plots: matplotlib is not installed; pip install dsr[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a figure of its own: no global state, and no display is needed
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(metrics: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Loss, accuracy or another metric, firing rates and thresholds over the epochs, as a picture at `path`."""
    measured = _measured(metrics[0])
    by_layer = [key for key in ("firing_rate", "v_threshold") if metrics[0].get(key)]
    rows = 1 + len(measured) + len(by_layer)
    figure = _figure(9, 2.2 * rows)
    axes = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    epochs = [m["epoch"] for m in metrics]
    _lines(axes[0], epochs, {"": [m["loss"] for m in metrics]}, "training loss")
    for axis, (name, splits) in zip(axes[1:], measured.items(), strict=False):
        share, title = name.endswith("accuracy"), name.replace("_", " ")
        lines = {split: [(100 if share else 1) * m.get(f"{split}_{name}", np.nan) for m in metrics] for split in splits}
        _lines(axis, epochs, lines, f"{title}, %" if share else title)
    for axis, key in zip(axes[1 + len(measured) :], by_layer, strict=True):
        lines = {layer: [m[key].get(layer, np.nan) for m in metrics] for layer in metrics[0][key]}
        _lines(axis, epochs, lines, key if key == "v_threshold" else "firing rate")
        axis.set_ylim(0, 1.05 * max(axis.dataLim.y1, 1e-9))
    axes[-1].set_xlabel("epoch")
    axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    save_figure(figure, path)


def _measured(metrics: dict[str, Any]) -> dict[str, list[str]]:
    """What was measured besides the loss, such as ``accuracy``, and on which samples."""
    found: dict[str, list[str]] = {}
    for key, value in metrics.items():
        split, _, name = key.partition("_")
        if split in ("train", "validation", "test") and isinstance(value, int | float):
            found.setdefault(name, []).append(split)
    return found


def _lines(axis: Any, epochs: list[int], lines: dict[str, list[float]], title: str) -> None:
    """Lines with a legend beside the axes, where it covers nothing; an epoch alone is a point."""
    drawn = []
    for number, values in enumerate(lines.values()):
        colour = f"C{number}" if len(lines) <= MOST_NAMES else (0.9 * number / len(lines), 0.3, 0.6)
        drawn += axis.plot(epochs, values, color=colour, marker="o" if len(epochs) == 1 else "")
    axis.set_ylabel(title)
    names = list(lines)
    if len(names) > MOST_NAMES:
        drawn, names = [drawn[0], drawn[-1]], [names[0], f"... to {names[-1]}"]
    if any(names):
        axis.legend(drawn, names, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


def raster(
    network: Network,
    sample: Values,
    path: str | Path,
    most: int = 200,
    *,
    label: Any = None,
    classes: Sequence[str] = (),
) -> None:
    """Spikes of each layer while the network sees one sample, beside the sample, as a picture at `path`.

    Parameters
    ----------
    network : Network
        With spiking layers.
    sample : array_like
        A batch of one, as `Network.forward` takes it.
    path : str or Path
        Where the picture goes; its ending says in which format.
    most : int
        Of layers with more neurons every k-th is drawn, and the picture says so.
    label : int, optional
        The true class of the sample.
    classes : sequence of str
        Names of the classes, which are the neurons of the last layer.
    """
    trains: dict[str, SpikeTrain] = {}

    def observe(name: str, layer: Layer, output: Signal) -> None:
        if isinstance(layer, Neuron) and isinstance(output, SpikeTrain):
            trains[name] = output

    rates = network.forward(sample, observer=observe)
    if not trains:
        raise ValueError("raster: expected a network with spiking layers, got none")
    figure = _figure(10, 0.4 + 1.8 * max(len(trains), 2))
    grid = figure.add_gridspec(len(trains), 2, width_ratios=(1, 3.5))
    _draw_sample(figure.add_subplot(grid[:, 0]), np.asarray(sample), _verdict(rates, label, classes))
    shared = None
    for row, (name, train) in enumerate(trains.items()):
        axis = shared = figure.add_subplot(grid[row, 1], sharex=shared)
        _draw_train(axis, name, train, most, classes if train.features == rates.shape[1:] else ())
        axis.tick_params(labelbottom=row == len(trains) - 1)
    axis.set_xlabel("time step")
    save_figure(figure, path)


def _verdict(rates: Values, label: Any, classes: Sequence[str]) -> str:
    """Label and prediction, where they are classes."""
    if rates.ndim != 2:
        return "sample"

    def name(number: int) -> str:
        return classes[number] if 0 <= number < len(classes) else str(number)

    predicted = f"prediction: {name(int(rates[0].argmax()))}"
    known = label is not None and np.ndim(label) == 0 and np.asarray(label).dtype.kind in "iu"
    return f"label: {name(int(label))}\n{predicted}" if known else predicted


def _draw_sample(axis: Any, sample: NDArray[Any], title: str) -> None:
    axis.set_title(title, fontsize="small")
    values = sample[0] if sample.ndim in (2, 4) else sample[:, 0].mean(axis=0)
    if sample.ndim in (3, 5):
        axis.set_xlabel("mean over time", fontsize="small")
    if values.ndim == 1:
        axis.plot(values, np.arange(len(values)), linewidth=1)
        axis.set_ylabel("input", fontsize="small")
        axis.yaxis.get_major_locator().set_params(integer=True)
        return
    low, high = float(values.min()), float(values.max())
    shown = (values - low) / ((high - low) or 1.0)
    axis.imshow(shown.transpose(1, 2, 0) if len(shown) == 3 else shown.mean(axis=0), cmap="gray")
    axis.set_xticks([])
    axis.set_yticks([])


def _draw_train(axis: Any, name: str, train: SpikeTrain, most: int, classes: Sequence[str]) -> None:
    spikes = train.dense().reshape(train.timesteps, -1) != 0
    neurons = spikes.shape[1]
    step = -(-neurons // most)
    drawn = spikes[:, ::step].T
    edges = (0.5, train.timesteps + 0.5, -0.5, len(drawn) * step - 0.5)
    axis.imshow(drawn, cmap="binary", aspect="auto", origin="lower", interpolation="nearest", extent=edges)
    if train.timesteps <= MOST_TICKS:
        axis.set_xticks(range(1, train.timesteps + 1))
        axis.set_xticks([t + 0.5 for t in range(train.timesteps + 1)], minor=True)
        axis.tick_params(which="minor", bottom=False)
        axis.grid(axis="x", which="minor", color="0.85")
    else:
        axis.xaxis.get_major_locator().set_params(integer=True)
    if neurons <= MOST_TICKS:
        axis.set_yticks(range(neurons), classes or [str(n) for n in range(neurons)], fontsize="x-small")
    else:
        axis.yaxis.get_major_locator().set_params(integer=True)
    which = f"all {neurons:,} neurons"
    if step > 1:
        which = f"{len(drawn):,} of {neurons:,} neurons: 0, {step}, {2 * step}, ..."
    axis.set_ylabel("class" if classes else "neuron", fontsize="small")
    axis.set_title(f"{name}: {which}", fontsize="small", loc="left")
    axis.set_title(f"{100 * spikes.mean():.1f} % of all fire per step", fontsize="small", loc="right")


def run_pictures(folder: str | Path, network: Network, samples: Samples, classes: Sequence[str] = ()) -> list[Path]:
    """`curves`, and `raster` of the first sample (where there are spikes), into a run's folder."""
    folder = Path(folder)
    pictures = [folder / "curves.png"]
    curves(load_metrics(folder), pictures[0])
    if any(True for _ in network.neurons()):
        pictures.append(folder / "raster.png")
        raster(network, samples.batch(np.array([0])), pictures[1], label=samples.labels[0], classes=classes)
    return pictures
