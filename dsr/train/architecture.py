"""A network in plain words: the classes of its layers and what they were made with, for files that stand alone.

A network of layers of dsr can be described, also one that your own function put together; from the description it is
made again without any of your code. A layer of a class of your own cannot: its code is needed.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

import dsr.nn
from dsr.nn.layer import Layer
from dsr.nn.neurons import Neuron


class NotDescribedError(ValueError):
    """A network that cannot be made again from a description."""


def describe(body: Layer) -> dict[str, Any]:
    """The layers of a network as what JSON holds.

    Raises
    ------
    NotDescribedError
        A layer is not of dsr, was made with an object that is no plain value, or was changed after it was made; the
        message names it.
    """
    described = _layer(body)
    again = make(described)
    for (path, layer), (other_path, other) in zip(body.walk(), again.walk(), strict=False):
        if path != other_path or _identity(layer) != _identity(other):
            raise NotDescribedError(f"layer '{path}' was changed after it was made")
    if len(list(body.walk())) != len(list(again.walk())):
        raise NotDescribedError("layers were added or removed after the network was made")
    return described


def make(described: Mapping[str, Any]) -> Layer:
    """The layers that `describe` wrote of; their arrays are new.

    Raises
    ------
    ValueError
        This is no description, or of layers that this version of dsr does not know.
    """
    try:
        layer = _made(described)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"the description of the network cannot be read ({error})") from None
    if not isinstance(layer, Layer):
        raise ValueError("the description of the network is not of a layer")
    return layer


@cache
def _known() -> Mapping[str, type[Layer]]:
    """The layers of dsr by name."""
    for module in pkgutil.iter_modules(dsr.nn.__path__):
        import_module(f"dsr.nn.{module.name}")
    found: dict[str, type[Layer]] = {}
    waiting = [Layer]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("dsr.nn."):
            found[kind.__name__] = kind
    return found


def _layer(layer: Layer) -> dict[str, Any]:
    kind = type(layer)
    if _known().get(kind.__name__) is not kind:
        raise NotDescribedError(f"layer '{layer.path}' is a {kind.__name__} of {kind.__module__}, not a layer of dsr")
    arguments, named = layer.made_with
    return {
        "layer": kind.__name__,
        "arguments": [_plain(layer, value) for value in arguments],
        "named": [[name, _plain(layer, value)] for name, value in named.items()],  # in order, which mappings may lose
    }


def _plain(layer: Layer, value: Any) -> Any:
    if isinstance(value, Layer):
        return _layer(value)
    if isinstance(value, np.generic | np.ndarray):
        return _plain(layer, value.tolist())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(layer, item) for item in value]
    raise NotDescribedError(f"layer '{layer.path}' was made with a {type(value).__name__}")


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        kinds = _known()
        if value["layer"] not in kinds:
            raise ValueError(f"there is no layer {value['layer']!s:.80}")
        named = {name: _made(item) for name, item in value["named"]}
        return kinds[value["layer"]](*map(_made, value["arguments"]), **named)
    return tuple(map(_made, value)) if isinstance(value, list) else value


def _identity(layer: Layer) -> tuple[Any, ...]:
    """What must be the same of a layer that is made again; arrays are loaded."""
    shapes = {name: p.value.shape for name, p in layer.parameters().items()}
    shapes |= {name: buffer.shape for name, buffer in layer.buffers().items()}
    numbers = (layer.alpha, layer.leak(), layer.v_threshold_lower_bound) if isinstance(layer, Neuron) else ()
    return type(layer), layer.kind(), shapes, numbers
