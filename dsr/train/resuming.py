"""What is compared when a run goes on: the recipe, the data, and the metrics of the epochs that are done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsr.data import DataSet
from dsr.data.identity import different_classes
from dsr.files.checkpoint import CheckpointError
from dsr.train import run_folder
from dsr.train.recipe import Recipe, of_checkpoint

Say = Callable[[str], object]


def require_same(
    path: Path, metadata: Mapping[str, Any], recipe: Recipe, data: DataSet, fingerprints: Mapping[str, Any], say: Say
) -> int:
    """Raise CheckpointError unless a checkpoint is of this recipe, but for its epochs, and these data.

    Parameters
    ----------
    path : Path
        The checkpoint, for messages.
    metadata : mapping
        What it says of its run.
    recipe, data
        Of the run that is to go on.
    fingerprints : mapping
        Of its samples, by split, as `dsr.data.identity.fingerprint` makes them.
    say : callable
        Is told where only the content of samples differs: another version of a library may decode it a little
        differently.

    Returns
    -------
    int
        The epochs of the checkpoint's recipe.
    """
    before = of_checkpoint(metadata["recipe"])  # keys of later versions have their defaults
    if replace(before, epochs=recipe.epochs) != recipe:
        raise CheckpointError(f"{path}: its recipe differs: it is of another run")
    if metadata["classes"] != list(data.classes):
        raise _of_other_data(path, different_classes(data.classes, metadata["classes"]))
    if metadata["features"] != list(data.features):
        shapes = f"of samples of shape {tuple(metadata['features'])}, not {tuple(data.features)}"
        raise _of_other_data(path, shapes)
    for name, now in fingerprints.items() if "samples" in metadata else ():  # older checkpoints have none
        then = metadata["samples"][name]
        if now["count"] != then["count"]:
            raise _of_other_data(path, f"it had {then['count']:,} {name} samples, now there are {now['count']:,}")
        if now["labels"] != then["labels"]:
            raise _of_other_data(path, f"the labels of the {name} samples are not those it was trained with")
        if now["content"] != then["content"]:
            say(f"the {name} samples differ from those that {path.parent} was trained with until now")
    return before.epochs


def _of_other_data(path: Path, how: str) -> CheckpointError:
    return CheckpointError(f"{path}: it is of other data: {how}; a run is resumed with its own data")


def metrics_until(folder: Path, epoch: int, last: Any, say: Say) -> list[dict[str, Any]]:
    """The metrics of the epochs done, from a run folder; `last`, of the checkpoint, where those of `epoch` are missing.

    `say` is told which others are missing.
    """
    metrics = [m for m in run_folder.load_metrics(folder) if m["epoch"] <= epoch]
    missing = sorted(set(range(1, epoch + 1)) - {m["epoch"] for m in metrics})
    if missing and isinstance(last, dict) and last.get("epoch") == missing[-1] == epoch:
        metrics.append(last)
        missing.pop()
    if missing:
        listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        say(f"{folder / run_folder.METRICS} has no metrics of epoch {listed}; they stay missing")
    return metrics
