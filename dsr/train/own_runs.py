"""Runs with networks and objects of one's own: the recipe that stands for them, and what their checkpoints note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsr.data import DataSet
from dsr.data.options import options
from dsr.data.samples import SampleOptions
from dsr.files import reference
from dsr.files.checkpoint import CheckpointError
from dsr.nn.network import Network
from dsr.nn.registry import NEURONS
from dsr.ops.arguments import shown
from dsr.optim.optimizers import Optimizer
from dsr.train.architecture import NotDescribedError, describe
from dsr.train.build import references
from dsr.train.recipe import Recipe, from_dict

_OF_NETWORK = {"data", "data_options", "model", "model_options", "neuron", "timesteps", "width", "dropout"} | {
    *("weight_bits", "levels", "norm_gradient", "norm_variance", "dropout_mask")
}
_REPLACED = {
    "loss": ("loss", "loss_options", "label_smoothing"),
    "optimizer": ("momentum", "nesterov", "weight_decay"),
    "schedule": ("learning_rate", "warmup_steps"),
    "augment": ("augment_options",),
}
"""Settings that would have no effect with an object in their place."""

MODEL = "network"
"""What a recipe calls a network that was given as an object."""


def recipe_of(
    run: Recipe | Network, samples: DataSet, objects: Mapping[str, Any], build: Any, settings: Mapping[str, Any]
) -> tuple[Recipe, Network | None]:
    """The recipe of a run, and the network where that was given; `objects` are those given, by argument.

    Raises
    ------
    TypeError
        `run` is neither, or arguments do not go with it.
    ValueError
        A setting is no key of a recipe, or its value is wrong.
    """
    if isinstance(run, Recipe):
        if settings:
            raise TypeError(f"Trainer: unexpected argument '{min(settings)}': a recipe has its settings in it")
        return run, None
    if not isinstance(run, Network):
        raise TypeError(f"Trainer: argument 'run': expected a Recipe or a Network, got {type(run).__name__}")
    if build is not None:
        raise TypeError("Trainer: argument 'build': expected none with a network, which is built already")
    if fixed := settings.keys() & (_OF_NETWORK | options(SampleOptions).keys()):
        raise TypeError(f"Trainer: unexpected argument {shown(min(fixed))}: the network and the samples have their own")
    for name in objects.keys() & _REPLACED.keys():
        if ignored := settings.keys() & set(_REPLACED[name]):
            raise TypeError(f"Trainer: unexpected argument {shown(min(ignored))}: '{name}' is given as an object")
    optimizer = objects.get("optimizer")
    values: dict[str, Any] = {"data": samples.name, "model": MODEL, "timesteps": run.timesteps, "task": samples.task}
    values |= {"weight_bits": run.weight_bits}
    kinds = {kind: name for name, kind in NEURONS.items()}
    first = next((kinds[type(neuron)] for _, neuron in run.neurons() if type(neuron) in kinds), None)
    if isinstance(optimizer, Optimizer) and "learning_rate" not in settings:
        values["learning_rate"] = optimizer.learning_rate
    return from_dict({**values, **({"neuron": first} if first else {}), **settings}), run


def require_task(recipe: Recipe, samples: DataSet) -> None:
    """Raise ValueError where samples are not of the recipe's task."""
    if recipe.task != samples.task:
        raise ValueError(
            f"recipe: key 'task': expected {samples.task!r}, which the samples of {samples.name} are for, got "
            f"{recipe.task!r}"
        )


@dataclass(frozen=True)
class Own:
    """What a run has of its user's: code by reference, a network, objects.

    Attributes
    ----------
    references : dict
        By key of the recipe, what `dsr.files.reference.note` gives.
    objects : dict of str to str
        Names of the objects that were given, by argument of the Trainer.
    network : dict or None
        The description of a network that is not a model of dsr by name, or why there is none; None for models of dsr.
    """

    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    network: dict[str, Any] | None = None

    @classmethod
    def of(cls, recipe: Recipe, network: Network, objects: Mapping[str, Any], given: bool) -> Own:
        """Of a run: `objects` by argument; `given`: the network is not the model of the recipe."""
        described: dict[str, Any] | None = None
        if given or reference.is_reference(recipe.model):
            try:
                described = describe(network.body)
            except NotDescribedError as error:
                described = {"missing": str(error)}
        names = {name: reference.name_of(value) for name, value in objects.items()}
        return cls(references(recipe), names, described)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint notes; nothing for runs without anything of the user's."""
        noted = {"references": self.references, "objects": self.objects, "network": self.network}
        return {name: value for name, value in noted.items() if value}

    def require_same(self, path: Path, metadata: Mapping[str, Any], say: Callable[[str], object]) -> None:
        """Raise CheckpointError unless a run goes on with the same kinds of objects; say which code has changed."""
        before = metadata.get("objects", {})
        if missing := before.keys() - self.objects.keys():
            name = min(missing)
            raise CheckpointError(
                f"{path}: it was trained with an object as {name}, {before[name]}: resume it from Python, by a Trainer "
                "with the same"
            )
        if more := self.objects.keys() - before.keys():
            raise CheckpointError(f"{path}: it was trained without an object as {min(more)}")
        for key, noted in metadata.get("references", {}).items():
            if words := reference.recall(noted):
                say(f"note: {key}: {words}")
