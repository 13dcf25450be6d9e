"""Seconds and memory of whole training and evaluation steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dsr import _core, system
from dsr.bench import beside_torch, in_process, in_turn, seconds
from dsr.bench.rates import mean_rate, set_rates
from dsr.nn.network import Network
from dsr.nn.norm import NormGradient, NormVariance
from dsr.nn.registry import TYPICAL
from dsr.ops.memory import keep_freed_memory
from dsr.optim.optimizers import SGD
from dsr.train.build import build_network
from dsr.train.recipe import Recipe
from dsr.train.steps import train_step


def measure(
    model: str,
    neuron: str,
    timesteps: int,
    batch: int,
    repeats: int = 5,
    rate: float | None = None,
    norm_gradient: NormGradient = "exact",
    norm_variance: NormVariance = "steps",
    beside: str | None = None,
    image_size: int = 32,
) -> dict[str, Any]:
    """Measure training and evaluation steps of a model on random images, in this process.

    Parameters
    ----------
    model, neuron : str
        By name, as in recipes.
    timesteps, batch, repeats : int
        T, samples of a step, and how often each is measured.
    rate : float, optional
        Firing rate of each layer, for which thresholds are set before timing: those of training with the statistics of
        the batch, those of evaluation with running ones. The learning rate is 0 then, so that they stay. By default
        thresholds are as initialised, and rates what comes out: they fall with T (PreActResNet-18, IF: 0.03 at T = 20)
        below those of trained networks (about 0.1), and so do times.
    norm_gradient, norm_variance : str
        Of batch normalisation, as in recipes.
    beside : {"torch"}, optional
        Measure the same step in PyTorch, in turn with this package's (`dsr.bench.beside_torch`).
    image_size : int
        Side of the images.

    Returns
    -------
    dict
        Median seconds of a training step and of an evaluation step, the same per sample in ms, peak memory in MB of
        training, the mean firing rates of the layers in both, and what was measured; beside PyTorch its median seconds
        of a training step, ``torch_seconds``, and how many times those of this package they are, ``torch_ratio``.

    Raises
    ------
    ImportError, ValueError
        PyTorch is not installed, or its twin does not know a layer of the model.
    """
    network = _network(model, neuron, timesteps, norm_gradient, norm_variance, image_size)
    learning_rate = 0.05 if rate is None else 0.0
    optimizer = SGD(network.parameters(), learning_rate, 0.9, 5e-4)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, 3, image_size, image_size)).astype(np.float32)
    labels = rng.integers(10, size=batch)
    if rate is not None:
        set_rates(network, images, rate, training=True)

    def step() -> None:
        train_step(network, optimizer, images, labels)

    step()
    memory = system.peak_memory()
    keep_freed_memory()  # as the command line does in training; PyTorch's arrays are kept too
    twin = None if beside is None else beside_torch.Step(network, learning_rate, 0.9, 5e-4)
    times = in_turn([step] if twin is None else [step, lambda: twin(images, labels)], repeats)
    training = times[0]
    train_rate = mean_rate(network, images, training=True)
    if rate is not None:
        set_rates(network, images, rate)
    evaluation = seconds(lambda: network.forward(images), repeats)
    return {
        "model": model,
        "neuron": neuron,
        "timesteps": timesteps,
        "batch": batch,
        "image_size": image_size,
        "norm_gradient": norm_gradient,
        "norm_variance": norm_variance,
        "threads": _core.threads(),
        "level": _core.level(),
        "train_seconds": training,
        "train_ms_per_sample": 1000 * training / batch,
        "evaluate_seconds": evaluation,
        "evaluate_ms_per_sample": 1000 * evaluation / batch,
        "peak_memory_mb": memory,
        "mean_firing_rate": mean_rate(network, images),
        "train_firing_rate": train_rate,
        **({} if twin is None else {"torch_seconds": times[1], "torch_ratio": times[1] / training}),
    }


def measure_all(
    model: str, neuron: str, timesteps: Sequence[int], batch: int, repeats: int, **options: Any
) -> list[dict[str, Any]]:
    """`measure` for each T, each in a process of its own so that peak memory is that of one T; errors are the same."""
    norm = options.get("norm_gradient", "exact"), options.get("norm_variance", "steps")
    network = _network(model, neuron, timesteps[0], *norm, options.get("image_size", 32))
    if options.get("beside") is not None:
        beside_torch.Step(network)
    calls = [f"step.measure({model!r}, {neuron!r}, {t}, {batch}, {repeats}, **{options!r})" for t in timesteps]
    return [in_process(f"from dsr.bench import step; result = {call}") for call in calls]


def _network(
    model: str,
    neuron: str,
    timesteps: int,
    norm_gradient: NormGradient,
    norm_variance: NormVariance,
    image_size: int,
) -> Network:
    options: dict[str, Any] = TYPICAL.get(neuron, {})
    norm: dict[str, Any] = {"norm_gradient": norm_gradient, "norm_variance": norm_variance}
    recipe = Recipe(data="random", model=model, width=64, timesteps=timesteps, neuron=neuron, **options, **norm)
    return build_network(recipe, (3, image_size, image_size), 10)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results of `measure_all` as text."""
    first = results[0]
    lines = [
        f"{first['model']}, {first['neuron'].upper()}, batch {first['batch']}, {first['image_size']}x"
        f"{first['image_size']}, level {first['level']}, "
        f"{first['threads']} threads, batch normalisation {first['norm_gradient']}, {first['norm_variance']}; medians; "
        "firing rates in training and evaluation",
        f"{'T':>3} {'train s':>9} {'ms/sample':>10} {'evaluate s':>11} {'ms/sample':>10} {'peak MB':>8} {'rates':>11}"
        + (f" {'torch s':>9} {'times':>6}" if "torch_seconds" in first else ""),
    ]
    lines += [
        f"{r['timesteps']:3d} {r['train_seconds']:9.3f} {r['train_ms_per_sample']:10.2f} "
        f"{r['evaluate_seconds']:11.3f} {r['evaluate_ms_per_sample']:10.2f} {r['peak_memory_mb']:8.0f} "
        f"{r['train_firing_rate']:5.3f} {r['mean_firing_rate']:5.3f}"
        + (f" {r['torch_seconds']:9.3f} {r['torch_ratio']:6.1f}" if "torch_seconds" in r else "")
        for r in results
    ]
    return "\n".join(lines)
