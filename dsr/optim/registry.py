"""The optimisers by name, as recipes choose them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dsr.nn.layer import Parameter
from dsr.nn.registry import options_of
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam, Optimizer

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "muon": Muon}
"""Options are the arguments of a class."""


def optimizer_named(name: str, parameters: Iterable[tuple[str, Parameter]], options: Mapping[str, Any]) -> Optimizer:
    """An optimiser of these parameters, with those of the options that it takes; errors as the class raises them."""
    return OPTIMIZERS[name](parameters, **options_of(OPTIMIZERS[name], options))
