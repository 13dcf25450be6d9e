"""Pictures a second: how fast they are read, decoded and made ready, beside what a training step takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from dsr import _core, system
from dsr.bench import in_turn
from dsr.data.folder import FolderSamples
from dsr.data.kept import Kept, decode, expected_bytes
from dsr.data.samples import Draws, epoch_draws
from dsr.data.tars import content
from dsr.train.build import build_network, make_loss, make_optimizer
from dsr.train.metrics import metric_of
from dsr.train.recipe import Recipe
from dsr.train.run_folder import load_data
from dsr.train.steps import compute_gradients

LITTLE = 0.03
"""Share of a step that loading may take without a word about it."""
_BATCH = 16


def measure(recipe: Recipe, path: Path, pictures: int = 128, repeats: int = 3) -> dict[str, Any]:
    """Measure how pictures of a data set are made ready by a recipe, and a training step, in this process.

    Parameters
    ----------
    recipe : Recipe
        With data of pictures (``folder``).
    path : Path
        Where they are.
    pictures, repeats : int
        How many are loaded, spread over the training part, and how often it counts.

    Returns
    -------
    dict
        Seconds a picture: ``read_seconds`` (the bytes of its file), ``ready_seconds`` (read, decoded, augmented and
        normalised by one process), ``kept_seconds`` (the same from decoded pictures that are kept); and
        ``step_seconds``, for a sample of a training step with all threads. ``kept_bytes``: of all pictures of the
        training part that would be kept. And what was measured.

    Raises
    ------
    ValueError
        The data are no pictures.
    DataError, OSError
        As `dsr.data.load`.
    """
    data = load_data(replace(recipe, cache="none"), path)
    samples = data.train
    if not isinstance(samples, FolderSamples):
        raise ValueError(f"bench data: expected a recipe with pictures, data = folder, got {recipe.data}")
    numbers = np.unique(np.linspace(0, len(samples) - 1, pictures).astype(np.int64))
    draws = epoch_draws(len(samples), recipe.seed, 0)[numbers]
    files = [samples.files[number] for number in numbers]
    whole = recipe.random_resized_crop
    few = FolderSamples(files, samples.labels[numbers], samples.decoder, samples.transform)
    kept = FolderSamples(few.files, few.labels, few.decoder, few.transform)
    kept.kept = Kept(decode(files, samples.decoder, whole), whole)

    def read() -> None:
        for file in files:
            content(file)

    parts = np.array_split(np.arange(len(files)), ceil(len(files) / _BATCH))

    def ready(source: FolderSamples) -> None:
        for part in parts:
            source.batch(part, draws[part])

    seconds = in_turn([read, lambda: ready(few), lambda: ready(kept)], repeats)
    return {
        "name": data.name,
        "pictures": len(samples),
        "image_size": recipe.image_size,
        "threads": _core.threads(),
        "processors": len(system.processors()),
        "model": recipe.model,
        "timesteps": recipe.timesteps,
        **{
            f"{what}_seconds": value / len(files)
            for what, value in zip(("read", "ready", "kept"), seconds, strict=True)
        },
        "step_seconds": _step_seconds(recipe, few, draws, data.features, len(data.classes), repeats),
        "kept_bytes": expected_bytes(samples.files, samples.decoder, whole),
        "memory_bytes": (system.memory_limit() - system.resident_memory()) * 2**20,
        "cache": recipe.cache,
    }


def _step_seconds(
    recipe: Recipe, samples: FolderSamples, draws: Draws, features: tuple[int, ...], classes: int, repeats: int
) -> float:
    """Of a sample, in steps of a few of them."""
    network = build_network(recipe, features, classes)
    optimizer = make_optimizer(recipe, network)
    optimizer.learning_rate = 0.0
    chosen = np.arange(min(_BATCH, len(samples), recipe.batch_size))
    images, labels = samples.batch(chosen, draws[chosen]), samples.labels[chosen]
    loss, metric = make_loss(recipe), metric_of(samples.task)

    def step() -> None:
        compute_gradients(network, images, labels, loss, metric)
        optimizer.step()

    return in_turn([step], repeats)[0] / len(chosen)


def advice(found: Mapping[str, Any]) -> list[str]:
    """What the figures of `measure` mean for a run, in sentences."""
    ready, kept, step = (found[f"{what}_seconds"] for what in ("ready", "kept", "step"))
    if found["cache"] != "none":
        ready = kept
    share = ready / step
    if share <= LITTLE:
        return [f"Loading takes {100 * share:.1f} % of a step if one process does it all: there is nothing to gain."]
    if found["cache"] != "none":
        return [f"Loading from the cache takes {100 * share:.0f} % of a step: what is left is augmentation."]
    if found["processors"] > 1:
        words = [
            f"Loading takes {100 * share:.0f} % of a step if one process does it all. Decoding ahead (--workers auto, "
            f"the default of dsr train) hides it behind the step: {ceil(share)} process{'es' * (share > 1)} can do as "
            f"much. Where the step keeps all processors busy, {100 * share / found['processors']:.0f} % remain."
        ]
    else:
        words = [f"Loading takes {100 * share:.0f} % of a step, and there is no other processor that could do it."]
    where = "memory" if found["kept_bytes"] < found["memory_bytes"] / 2 else "disk"
    words.append(
        f'cache = "{where}" keeps the decoded pictures ({found["kept_bytes"] / 1e6:,.0f} MB): then it is '
        f"{100 * kept / step:.1f} %."
    )
    if found["read_seconds"] > ready / 2:
        words.append("More than half of it is reading files: a faster disk or a copy on this machine helps most.")
    return words


def table(found: Mapping[str, Any]) -> str:
    """The results of `measure` as text, with `advice`."""
    size = f"{found['image_size']} pixels" if found["image_size"] else "their own size"
    rows = [
        ("read from its file", found["read_seconds"]),
        ("made ready by one process", found["ready_seconds"]),
        ("made ready from the cache", found["kept_seconds"]),
        (f"training step, {found['threads']} threads", found["step_seconds"]),
    ]
    return "\n".join(
        [
            f"{found['name']}: {found['pictures']:,} training pictures, {size}; {found['model']}, T = "
            f"{found['timesteps']}; medians",
            f"{'':28}{'ms a picture':>13}{'a second':>11}",
            *(f"{words:28}{1000 * seconds:13.2f}{_rate(1 / seconds):>11}" for words, seconds in rows),
            *advice(found),
        ]
    )


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"
