"""The optimisers by name, as recipes choose them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

from dsr.nn.layer import Parameter
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam, Optimizer

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "muon": Muon}
"""Options are the arguments of a class."""


def optimizers_with(option: str) -> tuple[str, ...]:
    """The names of the optimisers that take an option."""
    return tuple(name for name, optimizer in OPTIMIZERS.items() if option in signature(optimizer).parameters)


def optimizer_named(name: str, parameters: Iterable[tuple[str, Parameter]], options: Mapping[str, Any]) -> Optimizer:
    """An optimiser of these parameters, with those of the options that it takes; errors as the class raises them."""
    optimizer = OPTIMIZERS[name]
    taken = {option: options[option] for option in signature(optimizer).parameters if option in options}
    return optimizer(parameters, **taken)
