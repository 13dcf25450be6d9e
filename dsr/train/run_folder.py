"""The run folder: what a training leaves behind, and how it is read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsr import data
from dsr.data import DataSet, Preparation
from dsr.data.options import options
from dsr.files import atomic, checkpoint
from dsr.files.errors import reason
from dsr.files.progress import duration
from dsr.nn.network import Network
from dsr.train import recipe
from dsr.train.build import build_network
from dsr.train.recipe import Recipe

CHECKPOINT, BEST = checkpoint.LAST, checkpoint.BEST
METRICS = "metrics.jsonl"
TABLE = "metrics.csv"


def preparation(run: Recipe, workers: int = 0) -> Preparation:
    """How the samples of a recipe are made ready."""
    wanted = options(Preparation).keys() - {"workers"}
    return Preparation(workers=workers, **{name: getattr(run, name) for name in wanted})


def load_data(run: Recipe, path: str | Path | None, workers: int = 0) -> DataSet:
    """The data set of a recipe."""
    return data.load(run.data, path, preparation(run, workers))


def load_run(
    folder: str | Path, *, best: bool = False, timesteps: int | None = None
) -> tuple[Network, Recipe, dict[str, Any]]:
    """Network, recipe and metadata of a run folder.

    Parameters
    ----------
    folder : path
        Of `dsr train`.
    best : bool
        The checkpoint of the best epoch, not the last one.
    timesteps : int, optional
        Another T than trained with.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged or not of dsr.
    OSError
        There is none.
    """
    path = Path(folder) / (BEST if best else CHECKPOINT)
    arrays, metadata = checkpoint.load(path)
    try:
        run = recipe.from_dict(metadata["recipe"])
        if timesteps is not None:
            run = replace(run, timesteps=timesteps)
        network = build_network(run, tuple(metadata["features"]), len(metadata["classes"]))
        network.load_state(part(arrays, "average") or part(arrays, "network"))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: {reason(error)}") from None
    return network, run, metadata


def part(arrays: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The arrays of a checkpoint whose names start with `kind` and a dot, without these."""
    return {name.removeprefix(f"{kind}."): a for name, a in arrays.items() if name.startswith(f"{kind}.")}


def load_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Metrics of each epoch of a run; a last line that was cut short is left out.

    Raises
    ------
    ValueError
        Another line is damaged; the message names file and line.
    OSError
        The file is there, but cannot be read.
    """
    path = Path(folder) / METRICS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    metrics = []
    # what follows the last line break was cut short by an interruption; its epoch is measured again
    for number, line in enumerate(lines[:-1], 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is damaged ({reason(error)})") from None
        if not isinstance(entry, dict) or type(entry.get("epoch")) is not int:
            raise ValueError(f"{path}: line {number} is damaged (no metrics of an epoch)")
        metrics.append(entry)
    return metrics


def write_metrics(folder: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """All metrics so far, as JSON lines and as a table.

    Raises
    ------
    OSError
        One of the two could not be written; an older one is as it was, see `dsr.files.atomic.writing`.
    """
    atomic.write(folder / METRICS, "".join(json.dumps(m) + "\n" for m in metrics).encode())
    rows = [_flat(m) for m in metrics]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(rows)
    atomic.write(folder / TABLE, text.getvalue().encode())


def held_out(run: Recipe) -> str:
    """What a run measures with after each epoch: "test", or "validation"."""
    return "validation" if run.validation else "test"


def describe(metrics: Mapping[str, Any], run: Recipe) -> str:
    """One line for people: loss, accuracies, firing rates and thresholds of the spiking layers."""
    split = held_out(run)
    line = (
        f"epoch {metrics['epoch']:{len(str(run.epochs))}}/{run.epochs}  loss {metrics['loss']:.4f}  "
        f"train {100 * metrics['train_accuracy']:6.2f} %  {split} {100 * metrics[f'{split}_accuracy']:6.2f} %  "
    )
    if metrics["firing_rate"]:
        line += f"firing rate {_few(metrics['firing_rate'])}  v_threshold {_few(metrics['v_threshold'])}  "
    return line + duration(metrics["seconds"]) if metrics["seconds"] >= 10 else f"{line}{metrics['seconds']:.1f} s"


def _few(values: Mapping[str, float]) -> str:
    """All values, or the range of many."""
    numbers = list(values.values())
    if len(numbers) <= 4:
        return " ".join(f"{value:.3f}" for value in numbers)
    return f"{min(numbers):.3f} to {max(numbers):.3f}"


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of mappings as columns of their own."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        flat |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat
