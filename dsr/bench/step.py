"""Seconds and memory of whole training and evaluation steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsr import _core, system
from dsr.bench import in_process, seconds
from dsr.bench.rates import mean_rate, set_rates
from dsr.nn.registry import TYPICAL
from dsr.optim.optimizers import SGD
from dsr.train.build import build_network
from dsr.train.recipe import Recipe
from dsr.train.steps import train_step


def measure(
    model: str, neuron: str, timesteps: int, batch: int, repeats: int = 5, rate: float | None = None
) -> dict[str, Any]:
    """Measure training and evaluation steps of a model on random 32x32 images, in this process.

    Parameters
    ----------
    rate : float, optional
        Firing rate of each layer, for which thresholds are set before timing: those of training with the statistics of
        the batch, those of evaluation with running ones. The learning rate is 0 then, so that they stay. By default
        thresholds are as initialised, and rates what comes out: they fall with T (PreActResNet-18, IF: 0.03 at T = 20)
        below those of trained networks (about 0.1), and so do times.

    Returns
    -------
    dict
        Median seconds of a training step and of an evaluation step, the same per sample in ms, peak memory in MB of
        training, the mean firing rates of the layers in both, and what was measured.
    """
    options: dict[str, Any] = TYPICAL.get(neuron, {})
    recipe = Recipe(data="random", model=model, width=64, timesteps=timesteps, neuron=neuron, **options)
    network = build_network(recipe, (3, 32, 32), 10)
    optimizer = SGD(network.parameters(), 0.05 if rate is None else 0.0, 0.9, 5e-4)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, 3, 32, 32)).astype(np.float32)
    labels = rng.integers(10, size=batch)
    if rate is not None:
        set_rates(network, images, rate, training=True)
    training = seconds(lambda: train_step(network, optimizer, images, labels), repeats)
    memory = system.peak_memory()
    train_rate = mean_rate(network, images, training=True)
    if rate is not None:
        set_rates(network, images, rate)
    evaluation = seconds(lambda: network.forward(images), repeats)
    return {
        "model": model,
        "neuron": neuron,
        "timesteps": timesteps,
        "batch": batch,
        "threads": _core.threads(),
        "level": _core.level(),
        "train_seconds": training,
        "train_ms_per_sample": 1000 * training / batch,
        "evaluate_seconds": evaluation,
        "evaluate_ms_per_sample": 1000 * evaluation / batch,
        "peak_memory_mb": memory,
        "mean_firing_rate": mean_rate(network, images),
        "train_firing_rate": train_rate,
    }


def measure_all(
    model: str, neuron: str, timesteps: Sequence[int], batch: int, repeats: int, rate: float | None = None
) -> list[dict[str, Any]]:
    """`measure` for each T, each in a process of its own so that peak memory is that of one T."""
    calls = [f"step.measure({model!r}, {neuron!r}, {t}, {batch}, {repeats}, {rate!r})" for t in timesteps]
    return [in_process(f"from dsr.bench import step; result = {call}") for call in calls]


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results of `measure_all` as text."""
    first = results[0]
    lines = [
        f"{first['model']}, {first['neuron'].upper()}, batch {first['batch']}, level {first['level']}, "
        f"{first['threads']} threads; medians; firing rates in training and evaluation",
        f"{'T':>3} {'train s':>9} {'ms/sample':>10} {'evaluate s':>11} {'ms/sample':>10} {'peak MB':>8} {'rates':>11}",
    ]
    lines += [
        f"{r['timesteps']:3d} {r['train_seconds']:9.3f} {r['train_ms_per_sample']:10.2f} "
        f"{r['evaluate_seconds']:11.3f} {r['evaluate_ms_per_sample']:10.2f} {r['peak_memory_mb']:8.0f} "
        f"{r['train_firing_rate']:5.3f} {r['mean_firing_rate']:5.3f}"
        for r in results
    ]
    return "\n".join(lines)
