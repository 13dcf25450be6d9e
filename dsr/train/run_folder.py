"""The run folder: checkpoints and metrics of a training run, and how they are read back."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dsr import data
from dsr.data import DataSet, Preparation
from dsr.data.identity import with_classes
from dsr.data.options import options
from dsr.files import atomic, checkpoint, reference
from dsr.files.errors import reason
from dsr.files.progress import duration
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.train import architecture
from dsr.train.build import build_network
from dsr.train.metrics import ACCURACY, TOP5_ACCURACY, Metric
from dsr.train.recipe import Recipe, of_checkpoint
from dsr.train.steps import not_finite

Result = TypeVar("Result")

CHECKPOINT, BEST = checkpoint.LAST, checkpoint.BEST
METRICS = "metrics.jsonl"
TABLE = "metrics.csv"


def preparation(recipe: Recipe, workers: int = 0) -> Preparation:
    """How the samples of a recipe are made ready."""
    wanted = options(Preparation).keys() - {"workers"}
    return Preparation(workers=workers, **{name: getattr(recipe, name) for name in wanted})


def load_data(recipe: Recipe, path: str | Path | None, workers: int = 0) -> DataSet:
    """The data set of a recipe; one by reference runs that code.

    Raises
    ------
    ValueError, OSError
        As `dsr.data.load`; or there are `workers` for data that no other process decodes.
    """
    if workers > 0 and "workers" not in data.reads(recipe.data):
        raise ValueError(
            f"load_data: argument 'workers': expected 0 with data = {recipe.data}, got {workers}: only images of "
            "folders are decoded by other processes"
        )
    return data.load(recipe.data, path, preparation(recipe, workers), recipe.data_options)


def load_run_data(
    recipe: Recipe,
    metadata: Mapping[str, Any],
    path: str | Path | None = None,
    workers: int = 0,
    image_size: int | None = None,
    keep: bool = False,
) -> DataSet:
    """The data set of a run, with the class numbers of the run; one by reference runs that code.

    Parameters
    ----------
    recipe, metadata
        As `load_run` gives them.
    path : path, optional
        Where the data are; by default where the run had them from. They may have some of the run's classes only.
    workers : int
        Processes that decode images of folders.
    image_size : int, optional
        Another side of images than the run's.
    keep : bool
        Keep decoded pictures as the recipe says (`cache`), for many passes; else they are decoded when needed.

    Raises
    ------
    ValueError
        The data have classes that the run does not know, or samples of another shape; or the run had them as an object
        in Python.
    """
    own = reference.is_reference(recipe.data)
    if image_size is not None:
        if not own and "image_size" not in data.reads(recipe.data):
            raise ValueError(f"--image-size: expected none, since samples of {recipe.data} have a size of their own")
        recipe = replace(recipe, image_size=image_size)
    if not own and recipe.data not in data.names():
        raise ValueError(
            f"the run had its data, '{recipe.data}', as an object in Python: only Python can give them again; "
            "dsr predict and dsr.load need none"
        )
    if path is None and (own or data.needs_path(recipe.data)):
        path = metadata["data_path"]
    wanted = recipe if keep else replace(recipe, cache="none")
    samples = with_classes(load_data(wanted, path, workers), metadata["classes"])
    fixed = len(metadata["features"]) if image_size is None else -2  # but for height and width
    if list(samples.features[:fixed]) != metadata["features"][:fixed]:
        raise ValueError(
            f"the samples of {path or recipe.data} have the shape {tuple(samples.features)}, but the network of the "
            f"run takes {tuple(metadata['features'])}"
        )
    return samples


def load_run(
    folder: str | Path,
    *,
    best: bool = False,
    timesteps: int | None = None,
    run_code: bool = True,
    say: Callable[[str], object] = print,
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
    run_code : bool
        Whether code that the run refers to may be run, where its network has layers of one's own.
    say : callable
        Is told what of that code has changed.

    Returns
    -------
    network : Network
        With the weights of the checkpoint, of their average where there is one.
    recipe : Recipe
        Of the run, with `timesteps`.
    metadata : dict
        Among others the run's ``classes``, ``features`` and ``data_path``.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged or not of dsr, or its weights are not finite.
    ValueError
        `timesteps` is not an integer >= 1, or not 1 for a network without spikes; or the network needs code that is not
        there or must not be run.
    OSError
        There is none.
    """
    return load_checkpoint(Path(folder) / (BEST if best else CHECKPOINT), timesteps, run_code, say)


def load_checkpoint(
    path: Path,
    timesteps: int | None = None,
    run_code: bool = True,
    say: Callable[[str], object] = print,
    network: Network | None = None,
) -> tuple[Network, Recipe, dict[str, Any]]:
    """`load_run` of a file; `network`: one that takes the weights, instead of making it."""
    arrays, metadata = checkpoint.load(path)
    recipe = _understood(path, lambda: of_checkpoint(metadata["recipe"]))
    if timesteps is not None:
        recipe = replace(recipe, timesteps=timesteps)
    for noted in metadata.get("references", {}).values() if run_code else ():
        reference.recall(noted)
    loaded = network or _network_of(path, recipe, metadata, run_code, say)
    _understood(path, lambda: loaded.load_state(part(arrays, "average") or part(arrays, "network")))
    if words := not_finite(loaded):
        raise checkpoint.CheckpointError(f"{path}: {words}")
    return loaded, recipe, metadata


def _network_of(
    path: Path, recipe: Recipe, metadata: Mapping[str, Any], run_code: bool, say: Callable[[str], object]
) -> Network:
    """The network of a checkpoint: a model by name, from its description, or by the user's code."""
    described = metadata.get("network")
    if described is None and not reference.is_reference(recipe.model):
        return _understood(path, lambda: build_network(recipe, *_shape(metadata)))
    if described is not None and "layer" in described:
        body = _understood(path, lambda: architecture.make(described))
        return Network(body, recipe.timesteps, recipe.seed, recipe.keep_mb << 20, weight_bits=recipe.weight_bits)
    why = described["missing"] if described else f"its model is {recipe.model}"
    if not reference.is_reference(recipe.model):
        raise checkpoint.CheckpointError(
            f"{path}: {why}, and the run had its network as an object in Python: dsr.load(..., network=NETWORK) gives "
            "it the weights"
        )
    if not run_code:
        raise checkpoint.CheckpointError(
            f"{path}: {why}: the network needs the code {recipe.model}; dsr.load(..., run_code=True) runs it"
        )
    if words := reference.recall(_noted(metadata, "model")):
        say(f"note: model: {words}")
    features, classes = _understood(path, lambda: _shape(metadata))
    return build_network(recipe, features, classes)  # errors of the user's code as they are


def build_of(recipe: Recipe, metadata: Mapping[str, Any]) -> Callable[..., Layer] | None:
    """For a Trainer that goes on with a run: what makes its network, where the recipe alone cannot."""
    if metadata.get("network") is None or reference.is_reference(recipe.model):
        return None
    return lambda *arguments, **options: architecture.make(metadata["network"])


def _shape(metadata: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    return tuple(metadata["features"]), len(metadata["classes"])


def _noted(metadata: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    noted: Mapping[str, Any] = metadata.get("references", {}).get(key, {})
    return noted


def source_of(path: Path) -> tuple[Recipe, list[str]] | None:
    """Recipe and classes of a checkpoint of a run; None for other files of weights."""
    if path.suffix != ".safetensors":
        return None
    try:
        _, metadata = checkpoint.load(path)
        return of_checkpoint(metadata["recipe"]), list(metadata["classes"])
    except (AttributeError, KeyError, TypeError, ValueError):  # whoever reads the weights says what is wrong
        return None


def _understood(path: Path, read: Callable[[], Result]) -> Result:
    """What `read` makes of a checkpoint's content, or a CheckpointError that names the file."""
    try:
        return read()
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: {reason(error)}") from None


def version(folder: Path) -> tuple[int, ...] | None:
    """What changes with each checkpoint that is written into a folder; None where there is none."""
    try:
        about = (folder / CHECKPOINT).stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def require_room(folder: Path, size: int) -> None:
    """Raise OSError where a disk has no room for the checkpoints of a run, of about `size` bytes each.

    Three lie there while one is written: the last, the best, and the new one. Quotas are not seen.
    """
    there = sum((folder / name).stat().st_size for name in (CHECKPOINT, BEST) if (folder / name).exists())
    needed, free = 3 * size - there, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: its checkpoints need {needed / 1e6:,.1f} MB, but {free / 1e6:,.1f} MB of the disk are free"
        )


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
    columns = dict.fromkeys(column for row in rows for column in row)  # epochs of older versions have fewer
    table = csv.DictWriter(text, list(columns), lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(rows)
    atomic.write(folder / TABLE, text.getvalue().encode())


def held_out(recipe: Recipe) -> str:
    """The split that a run measures with after each epoch: "test" or "validation"."""
    return "validation" if recipe.validation else "test"


def optimistic(metadata: Mapping[str, Any]) -> bool:
    """Whether the best epoch was chosen on the test samples, whose accuracy is then too high an estimate."""
    return not metadata["recipe"].get("validation")


OPTIMISTIC = (
    "this epoch was chosen on the test samples, so the figure is too high an estimate; with validation = N in the "
    "recipe, samples are held out for that"
)
"""What is said wherever the accuracy of such a checkpoint is printed or loaded."""


def describe(metrics: Mapping[str, Any], recipe: Recipe, metric: Metric = ACCURACY) -> str:
    """One line for people: loss, accuracies (or another metric), firing rates and thresholds of the spiking layers."""
    split = held_out(recipe)
    train, test = (metric.text(metrics[f"{samples}_{metric.name}"]) for samples in ("train", split))
    if (fifth := metrics.get(f"{split}_{TOP5_ACCURACY.name}")) is not None:
        test += f" (top 5 {TOP5_ACCURACY.text(fifth)})"
    line = (
        f"epoch {metrics['epoch']:{len(str(recipe.epochs))}}/{recipe.epochs}  loss {metrics['loss']:.4f}  "
        f"train {train:>8}  {split} {test:>8}  "
    )
    if metrics["firing_rate"]:
        line += f"firing rate {_few(metrics['firing_rate'])}  v_threshold {_few(metrics['v_threshold'])}  "
    return line + duration(metrics["seconds"]) if metrics["seconds"] >= 10 else f"{line}{metrics['seconds']:.1f} s"


def _few(values: Mapping[str, float]) -> str:
    """All of up to four values; the range of more."""
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
