"""The kinds of neurons by name: what recipes, models, the classifier, the command line and benchmarks choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from dsr.nn.layer import Layer
from dsr.nn.neurons import Neuron
from dsr.nn.relu import ReLU

NEURONS: dict[str, type[Layer]] = {**Neuron.kinds, "relu": ReLU}
"""Spiking kinds name themselves (`Neuron.kinds`); options are the arguments of a class."""

TYPICAL: dict[str, dict[str, float]] = {"lif": {"v_threshold": 0.6, "v_threshold_lower_bound": 0.001}}
"""Options with which a kind fires about as often as IF with those of a recipe by default; for benchmarks."""

SPIKING = tuple(Neuron.kinds)
"""Those that spike."""


def kinds_with(option: str, kinds: Mapping[str, Callable[..., Any]] = NEURONS) -> tuple[str, ...]:
    """The kinds, of neurons or of whatever else is chosen by name, that take an option."""
    return tuple(kind for kind, made in kinds.items() if option in signature(made).parameters)


def options_of(made: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a class takes."""
    return {name: options[name] for name in signature(made).parameters if name in options}


def make_neuron(kind: str, options: Mapping[str, Any]) -> Layer:
    """A layer of neurons of a kind, with those of the options that it takes.

    Raises
    ------
    ValueError
        The kind is unknown, or a value is out of range.
    """
    if kind not in NEURONS:
        raise ValueError(f"make_neuron: argument 'kind': expected one of {', '.join(NEURONS)}, got {kind!r}")
    return NEURONS[kind](**options_of(NEURONS[kind], options))
