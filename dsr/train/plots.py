"""Plots of a run; needs matplotlib (``pip install dsr[plot]``), which is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data import Samples
from dsr.files.figures import available, save_figure
from dsr.nn.currents import Signal
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Values
from dsr.train.run_folder import load_metrics


def _figure(rows: int, height: float) -> tuple[Any, Any]:
    if not available():
        raise ImportError("dsr.train.plots: matplotlib is not installed; pip install dsr[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a figure of its own: no global state, and no display is needed
    figure = Figure(figsize=(8, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def curves(metrics: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Loss, accuracy, firing rates and thresholds over the epochs, as a picture at `path`."""
    spiking = bool(metrics[0]["firing_rate"])
    figure, axes = _figure(4 if spiking else 2, 2.2)
    loss, right = axes[:2]
    epochs = [m["epoch"] for m in metrics]
    loss.plot(epochs, [m["loss"] for m in metrics])
    loss.set_ylabel("training loss")
    for split in ("train", "validation", "test"):
        if f"{split}_accuracy" in metrics[0]:
            right.plot(epochs, [100 * m[f"{split}_accuracy"] for m in metrics], label=split)
    right.set_ylabel("accuracy, %")
    right.legend(fontsize="small")
    for axis, key, title in zip(axes[2:], ("firing_rate", "v_threshold"), ("firing rate", "v_threshold"), strict=False):
        layers = list(metrics[0][key])
        for number, layer in enumerate(layers):
            # many layers are told apart by their colour, from the first to the last, instead of by a legend
            colour = f"C{number}" if len(layers) <= 8 else (0.9 * number / len(layers), 0.3, 0.6)
            axis.plot(epochs, [m[key][layer] for m in metrics], label=layer, color=colour)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        if len(layers) <= 8:
            axis.legend(fontsize="small")
        else:
            axis.set_title(f"{layers[0]} (blue) to {layers[-1]} (red)", fontsize="small", loc="right")
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[-1].set_xlabel("epoch")
    save_figure(figure, path)


def raster(network: Network, sample: Values, path: str | Path, most: int = 200) -> None:
    """Spikes of each layer while the network sees one sample, a batch of one, as a picture at `path`.

    Of layers with more than `most` neurons every k-th is drawn.
    """
    trains: dict[str, SpikeTrain] = {}

    def observe(name: str, layer: Layer, output: Signal) -> None:
        if isinstance(output, SpikeTrain) and not layer.children():
            trains[name] = output

    network.forward(sample, observer=observe)
    if not trains:
        raise ValueError("raster: expected a network with spiking layers, got none")
    figure, axes = _figure(len(trains), 1.8)
    for axis, (name, train) in zip(axes, trains.items(), strict=True):
        spikes = train.dense().reshape(train.timesteps, -1) != 0
        step = -(-spikes.shape[1] // most)
        drawn = spikes[:, ::step].T
        edges = (0.5, train.timesteps + 0.5, -0.5, len(drawn) * step - 0.5)
        axis.imshow(drawn, cmap="binary", aspect="auto", origin="lower", interpolation="nearest", extent=edges)
        axis.set_xticks(range(1, train.timesteps + 1))
        axis.set_xticks([t + 0.5 for t in range(train.timesteps + 1)], minor=True)
        axis.grid(axis="x", which="minor", color="0.85")
        axis.set_ylabel(f"{name}\nneuron", fontsize="small")
        axis.set_title(f"{100 * spikes.mean():.1f} % of all neurons and steps fire", fontsize="small", loc="right")
    axes[-1].set_xlabel("time step")
    save_figure(figure, path)


def run_pictures(folder: str | Path, network: Network, samples: Samples) -> list[Path]:
    """`curves`, and `raster` of the first sample (where there are spikes), into a run's folder."""
    folder = Path(folder)
    pictures = [folder / "curves.png"]
    curves(load_metrics(folder), pictures[0])
    if any(True for _ in network.neurons()):
        pictures.append(folder / "raster.png")
        raster(network, samples.batch(np.array([0])), pictures[1])
    return pictures
