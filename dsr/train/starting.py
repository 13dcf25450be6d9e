"""Starting from the weights of another network: warm starts, hybrid training, and a new head for other classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.data.identity import different_classes
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.train import hybrid, run_folder
from dsr.weights.foreign import own_names
from dsr.weights.loading import assign
from dsr.weights.reading import listed, read_arrays

if TYPE_CHECKING:
    from dsr.train.trainer import Trainer

_HINT = "; strict=False (--partial on the command line) takes what fits and leaves the rest as it is"


def start(trainer: Trainer, path: Path, twin: Callable[[], Network], batches: Iterable[Values], strict: bool) -> None:
    """What `dsr.train.Trainer.start_from` does; `twin` makes a ReLU network, `batches` are training samples for it."""
    source = path / run_folder.BEST if path.is_dir() else path
    if not source.exists():
        raise FileNotFoundError(f"--from: {path}: expected a run folder or a file of weights, found nothing")
    recipe, network = trainer.recipe, trainer.network
    about = run_folder.source_of(source)
    if about is None:
        given = own_names(read_arrays("--from", source), dict(network.arrays())).values()
        spiking = any(name.rpartition(".")[2] == "v_threshold" for name in given)
        kind = "spiking" if spiking else "relu"
    else:
        kind = about[0].neuron
        spiking = kind != "relu"
        if about[1] != list(trainer.data.classes):
            trainer.say(f"--from: {source}: {different_classes(trainer.data.classes, about[1])}")
    if spiking and kind not in ("spiking", recipe.neuron):
        if recipe.neuron == "relu":
            raise ValueError(f"--from: {source} is of {kind.upper()} neurons, expected a ReLU network")
        raise ValueError(
            f"--from: {source} is of {kind.upper()} neurons, expected {recipe.neuron.upper()} or ReLU neurons: the "
            "thresholds of different kinds do not mean the same"
        )
    if spiking or recipe.neuron == "relu":
        trainer.say(f"--from: {source}: {take(network, source, strict)}")
        return
    preprocessing = trainer.data.preprocessing
    if preprocessing is not None and preprocessing.has_time:
        raise ValueError(
            f"--from: {source} is of a ReLU network, which sees a recording as one frame: its activations say nothing "
            f"of the {recipe.timesteps} frames of these samples; expected weights of a spiking network"
        )
    ann = twin()
    taken = take(ann, source, strict)
    hybrid.convert(ann, network, batches, recipe.start_quantile)
    trainer.say(f"--from: {source}: {taken}; thresholds by the activations of the ReLU network")


def take(network: Network, source: Path, strict: bool) -> str:
    """Load the arrays of a file into a network, all or those that fit; words that say which were taken.

    Raises
    ------
    ValueError
        Arrays are missing or do not fit and `strict`, or none fits.
    """
    arrays = dict(network.arrays())
    if strict:
        try:
            assign("--from", network, source, optional_thresholds=False)
        except ValueError as error:
            raise ValueError(f"{error}{_HINT}") from None
        return f"all {len(arrays)} arrays taken"
    given = read_arrays("--from", source)
    names = own_names(given, arrays)
    shapes = {name: _shape(array) for name, array in arrays.items()}
    fitting = {names[n]: value for n, value in given.items() if _shape(value) == shapes.get(names[n])}
    if not fitting:
        raise ValueError(f"--from: {source}: none of its arrays ({listed(given)}) fits the network")
    assign("--from", network, {**network.state(), **fitting}, optional_thresholds=False)
    kept = [name for name in arrays if name not in fitting]
    words = f"{len(fitting)} of {len(arrays)} arrays taken: {', '.join(fitting)}"
    return f"{words}; initial values kept: {', '.join(kept)}" if kept else words


def _shape(value: Any) -> tuple[int, ...]:
    """Without axes of length 1 at the end, which may be missing."""
    shape = tuple(np.shape(value)) if hasattr(value, "shape") else (-1,)
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
