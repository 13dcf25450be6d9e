"""Milliseconds of a prediction: compiled, of integers, with early exit, not compiled, and the twin in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsr import _core
from dsr.bench import in_turn, onnx_twin
from dsr.bench.rates import mean_rate, set_rates
from dsr.deploy.early_exit import clearness, early_exit, rates_so_far
from dsr.deploy.integer_model import quantize
from dsr.deploy.lowering import lower
from dsr.deploy.program import Program
from dsr.deploy.session import compile
from dsr.nn.network import Network
from dsr.nn.registry import TYPICAL
from dsr.ops import Values
from dsr.ops.threads import set_num_threads
from dsr.train.build import build_network
from dsr.train.recipe import Recipe
from dsr.train.run_folder import load_run, load_run_data

FEATURES = {"digits": (1, 8, 8)}
IMAGE = (3, 32, 32)
SAMPLES = 32
"""Samples by which rates are set and measured, thresholds of early exit chosen, and integers scaled; at least."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes
    ----------
    name : str
        For the table.
    images : ndarray of float32, shape (B, C, H, W)
        Samples.
    network : callable
        The network for so many time steps.
    twin : callable
        The program of the same network with ReLU instead of spiking neurons.
    """

    name: str
    images: Values
    network: Callable[[int], Network]
    twin: Callable[[], Program]


def untrained(model: str, neuron: str, rate: float, samples: int = SAMPLES) -> Subject:
    """A model whose thresholds are set so that neurons fire at `rate`: as it is drawn it fires less, and is faster."""
    features = FEATURES.get(model, IMAGE)
    images = np.random.default_rng(0).normal(size=(samples, *features)).astype(np.float32)
    options: dict[str, Any] = TYPICAL.get(neuron, {})
    recipe = Recipe(
        data="random", model=model, width=32 if model == "digits" else 64, timesteps=1, neuron=neuron, **options
    )

    def network(steps: int) -> Network:
        made = build_network(replace(recipe, timesteps=steps), features, 10)
        set_rates(made, images[:SAMPLES], rate)
        return made

    return Subject(model, images, network, partial(_twin, recipe, features, 10))


def trained(folder: Path, data: Path | None = None, samples: int = SAMPLES, workers: int = 0) -> Subject:
    """The network of a run, on images of its test set, which are spread over all of them.

    Raises
    ------
    ValueError
        The run is not of static images.
    """
    _, recipe, metadata = load_run(folder)
    test = load_run_data(recipe, metadata, data, workers).test
    features = tuple(metadata["features"])
    images = test.batch(np.linspace(0, len(test) - 1, samples).astype(np.int64))
    if images.shape[1:] != features:
        raise ValueError(f"bench inference: expected a run of static images, got samples of shape {images.shape[1:]}")
    return Subject(
        str(folder),
        images,
        lambda steps: load_run(folder, timesteps=steps)[0],
        partial(_twin, recipe, features, len(metadata["classes"])),
    )


def _twin(recipe: Recipe, features: tuple[int, ...], classes: int) -> Program:
    return lower(build_network(replace(recipe, timesteps=1, neuron="relu"), features, classes), features)


def measure(
    subject: Subject, timesteps: Sequence[int], batches: Sequence[int], threads: Sequence[int], repeats: int = 5
) -> list[Row]:
    """Measure in turn, in this process: each contestant, then each again, and so on (`dsr.bench.in_turn`).

    Early exit leaves by the threshold at which half of the samples are clear after half of the steps; its rows stand
    below those of all steps. With many samples, as by `--batch 512`, slots are filled again. The integer
    network has weights of 8 bits. The twin is measured beside the smallest T, once for each batch and number of
    threads.

    Returns
    -------
    list of dict
        What was measured; median ``ms_per_sample``; the ``rate`` that was reached; ``mean_timesteps``.
    """
    rows: list[Row] = []
    images, before = subject.images, _core.threads()
    few = images[:SAMPLES]
    try:
        for steps in timesteps:
            network = subject.network(steps)
            reached = mean_rate(network, few)
            session = compile(network, features=images.shape[1:], samples=few)
            integer = quantize(network, few, 8)
            limits = [_limit(rates_so_far(runner, few)) for runner in (session, integer)]
            for count in threads:
                set_num_threads(count)
                twins = _twins(subject, count) if steps == min(timesteps) else {}
                for batch in batches:
                    some = images[:batch]
                    exits = {
                        "dsr, early exit": partial(early_exit, session, some, limits[0]),
                        "dsr, int8, early exit": partial(early_exit, integer, some, limits[1]),
                    }
                    calls: dict[str, Callable[[], object]] = {
                        "dsr, compiled": partial(session, some),
                        "dsr, early exit": exits["dsr, early exit"],
                        "dsr, int8": partial(integer, some),
                        "dsr, int8, early exit": exits["dsr, int8, early exit"],
                        "dsr, not compiled": partial(network, some),
                        **{name: partial(twin, some) for name, twin in twins.items()},
                    }
                    left = {name: float(call().timesteps.mean()) for name, call in exits.items()}
                    for name, seconds in zip(calls, in_turn(list(calls.values()), repeats), strict=True):
                        own = name.startswith("dsr")
                        rows.append(
                            {
                                "what": name,
                                "model": subject.name,
                                "timesteps": steps if own else None,
                                "mean_timesteps": left.get(name, steps) if own else None,
                                "batch": batch,
                                "threads": count,
                                "level": _core.level(),
                                "rate": reached if own else None,
                                "ms_per_sample": 1000 * seconds / batch,
                            }
                        )
    finally:
        set_num_threads(before)
    return rows


def _limit(rates: Values) -> float:
    """The probability that half of the samples have after half of the steps."""
    return float(np.median(clearness(rates)[(len(rates) + 1) // 2 - 1]))


Twins = dict[str, Callable[[Values], Values]]


def _twins(subject: Subject, threads: int) -> Twins:
    """The ReLU network in onnxruntime, where that is installed."""
    if not onnx_twin.AVAILABLE:
        return {}
    program = subject.twin()
    return {
        "onnxruntime, float32": onnx_twin.onnx_session(program, threads),
        "onnxruntime, int8": onnx_twin.onnx_session(program, threads, subject.images[:SAMPLES]),
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    first = rows[0]
    rates = [row["rate"] for row in rows if row["rate"] is not None]
    lines = [
        f"{first['model']}, level {first['level']}, firing rates {min(rates):.3f} to {max(rates):.3f}; "
        "medians, measured in turn; ms per sample",
        f"{'':22} {'T':>3} {'mean T':>7} {'batch':>6} {'threads':>8} {'ms':>9}",
    ]
    for row in rows:
        steps = "" if row["timesteps"] is None else str(row["timesteps"])
        mean = "" if row["mean_timesteps"] is None else f"{row['mean_timesteps']:.2f}"
        what, where = row["what"], f"{row['batch']:6d} {row['threads']:8d}"
        lines.append(f"{what:22} {steps:>3} {mean:>7} {where} {row['ms_per_sample']:9.3f}")
    if not onnx_twin.AVAILABLE:
        lines.append("pip install onnx onnxruntime adds the ordinary twin of the network (ReLU, in float32 and int8)")
    return "\n".join(lines)
