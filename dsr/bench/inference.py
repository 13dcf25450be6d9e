"""Milliseconds of a prediction: compiled, not compiled, with early exit, and the ordinary twin in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from dsr import _core
from dsr.bench import in_turn, onnx_twin
from dsr.bench.rates import mean_rate, set_rates
from dsr.deploy.early_exit import clearness, early_exit, rates_so_far
from dsr.deploy.lowering import lower
from dsr.deploy.session import compile
from dsr.nn.registry import TYPICAL
from dsr.ops import Values
from dsr.ops.threads import set_num_threads
from dsr.train.build import build_network
from dsr.train.recipe import Recipe

FEATURES = {"digits": (1, 8, 8)}
IMAGE = (3, 32, 32)
Row = dict[str, Any]


def measure(
    model: str,
    neuron: str,
    timesteps: Sequence[int],
    batches: Sequence[int],
    threads: Sequence[int],
    rate: float,
    repeats: int = 5,
) -> list[Row]:
    """Measure in turn, in this process: each contestant once, then each again, and so on.

    Thresholds are set so that neurons fire at `rate`, since an untrained network fires less, and faster. Early exit
    leaves by the threshold at which half of the samples are clear after half of the steps.

    Returns
    -------
    list of dict
        What was measured; median ``ms_per_sample``; the ``rate`` that was reached; ``mean_timesteps``.
    """
    features, rows = FEATURES.get(model, IMAGE), []
    rng = np.random.default_rng(0)
    images = rng.normal(size=(max(*batches, 32), *features)).astype(np.float32)
    before = _core.threads()
    try:
        for steps in timesteps:
            options: dict[str, Any] = TYPICAL.get(neuron, {})
            recipe = Recipe(data="random", model=model, width=_width(model), timesteps=steps, neuron=neuron, **options)
            network = build_network(recipe, features, 10)
            set_rates(network, images[:32], rate)
            reached = mean_rate(network, images[:32])
            session = compile(network, features=features, samples=images[:32])
            clear = clearness(rates_so_far(session, images))[(steps + 1) // 2 - 1]
            limit = float(np.median(clear))
            for count in threads:
                set_num_threads(count)
                twins = _twins(model, features, count, images) if steps == min(timesteps) else {}
                for batch in batches:
                    some = images[:batch]
                    left = early_exit(session, some, limit).timesteps.mean()
                    calls: dict[str, Callable[[], object]] = {
                        "dsr, compiled": partial(session, some),
                        "dsr, early exit": partial(early_exit, session, some, limit),
                        "dsr, not compiled": partial(network, some),
                    }
                    calls |= {name: partial(twin, some) for name, twin in twins.items()}
                    for name, seconds in zip(calls, in_turn(list(calls.values()), repeats), strict=True):
                        own = name.startswith("dsr")
                        rows.append(
                            {
                                "what": name,
                                "model": model,
                                "timesteps": steps if own else None,
                                "mean_timesteps": float(left) if "exit" in name else steps if own else None,
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


def _width(model: str) -> int:
    return 32 if model == "digits" else 64


Twins = dict[str, Callable[[Values], Values]]


def _twins(model: str, features: tuple[int, ...], threads: int, images: Values) -> Twins:
    """The ReLU network in onnxruntime, where that is installed."""
    if not onnx_twin.AVAILABLE:
        return {}
    recipe = Recipe(data="random", model=model, width=_width(model), timesteps=1, neuron="relu")
    program = lower(build_network(recipe, features, 10), features)
    return {
        "onnxruntime, float32": onnx_twin.onnx_session(program, threads),
        "onnxruntime, int8": onnx_twin.onnx_session(program, threads, images[:32]),
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
