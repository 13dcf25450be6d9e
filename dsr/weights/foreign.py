"""Names of others for the arrays of a network: those of the authors' PyTorch code, next to dsr's.

The same array has several names, such as ``layer1.0.relu1.Vth`` and ``layer1_0.neuron1.v_threshold``. `canonical` gives
one for all of them, so a name fits the array of the network whose own name has the same canonical form.

| authors | dsr |
|---|---|
| ``module.`` before all (DataParallel) | nothing |
| ``layer1.0`` | ``layer1_0`` |
| ``conv1``, ``bn2``, ... of a block | ``residual.body.conv1``, ... |
| ``shortcut``; ``downsample.0`` and ``downsample.1`` | ``residual.shortcut``; with ``conv`` and ``bn`` |
| ``relu1`` | ``neuron1`` |
| ``Vth`` | ``v_threshold`` |
| ``fc`` | ``linear`` |
| VGG: ``layer3.4``, ``layer3.5``, ``layer3.6``: numbers of a `Sequential` | ``stage3.conv2``, ``bn2``, ``neuron2`` |
| VGG: ``classifier.1``, ``classifier.2``, ``classifier.3`` | ``linear``, ``bn``, ``neuron`` |

What names do not tell: the bottleneck blocks of their CIFAR code, which no network of the paper has, are strided in the
first convolution, those of `dsr.models` in the second.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm

_VGG_LINEAR = "classifier.1.weight"
_COPIES = 49
"""Pixels of 7x7 to which the authors' VGG enlarges the last image."""

_Replacement = str | Callable[[re.Match[str]], str]
_VGG_HEAD = {"1": "linear", "2": "bn", "3": "neuron"}


def _vgg_layer(match: re.Match[str]) -> str:
    """Convolution, normalisation, neurons and dropout follow each other; pooling, the last, has no arrays."""
    number = int(match[2])
    return f"stage{match[1]}.{('conv', 'bn', 'neuron', 'dropout')[number % 4]}{number // 4 + 1}.{match[3]}"


_RULES: list[tuple[re.Pattern[str], _Replacement]] = [
    (re.compile(r"^(module\.)+"), ""),
    (re.compile(r"\bVth$"), "v_threshold"),
    (re.compile(r"^layer(\d+)\.(\d+)\.([a-z_]+)$"), _vgg_layer),
    (re.compile(r"^classifier\.([123])\."), lambda match: f"{_VGG_HEAD[match[1]]}."),
    (re.compile(r"^fc\."), "linear."),
    (re.compile(r"^layer(\d+)_(\d+)\."), r"layer\1.\2."),
    (re.compile(r"\bresidual\.body\."), ""),
    (re.compile(r"\bresidual\.shortcut\."), "shortcut."),
    (re.compile(r"\bdownsample\.0\."), "shortcut.conv."),
    (re.compile(r"\bdownsample\.1\."), "shortcut.bn."),
    (re.compile(r"\brelu(\d*)\."), r"neuron\1."),
]


def canonical(name: str) -> str:
    """One name for all names of the same array."""
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def own_names(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The network's name for each name that is given; one that fits none, or one that is given itself, stays as it is.

    Parameters
    ----------
    given : iterable of str
        Names of dsr, or of the authors.
    known : iterable of str
        Names of the network's arrays. Where two of them have one canonical form, they are known by themselves alone.
    """
    names, listed = set(known), list(given)
    often = Counter(map(canonical, names))
    by_form = {form: name for name in names.difference(listed) if often[form := canonical(name)] == 1}
    return {name: name if name in names else by_form.get(canonical(name), name) for name in listed}


def fold_vgg(given: Mapping[str, NDArray[Any]], network: Network) -> dict[str, NDArray[Any]]:
    """The authors' VGG as `dsr.models.vgg` has it: 49 weights of copies of a pixel become a seventh of their sum.

    The linear layer then gives a seventh of what it gave; its bias and the statistics of the normalisation behind it
    are made to fit, so that a forward pass without training is the same function.

    Parameters
    ----------
    given : mapping of str to ndarray
        Arrays by the authors' names; those of other networks are given back as they are.
    network : Network
        Which they are for.
    """
    layers, arrays = dict(network.body.walk()), dict(given)
    key = next((name for name in given if re.fullmatch(rf"(module\.)*{re.escape(_VGG_LINEAR)}", name)), None)
    norm, linear = layers.get("bn"), dict(network.arrays()).get("linear.weight")
    if key is None or linear is None or not isinstance(norm, BatchNorm):
        return arrays
    weight = given[key]
    if weight.shape != (linear.shape[0], _COPIES * linear.shape[1]):
        return arrays
    prefix = key.removesuffix("1.weight")
    folded = weight.astype(np.float64).reshape(len(weight), -1, _COPIES).sum(axis=2) / 7
    changes: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        "1.weight": lambda _: folded,
        "1.bias": lambda bias: bias / 7,
        "2.running_mean": lambda mean: mean / 7,
        "2.running_var": lambda variance: (variance + norm.eps) / 49 - norm.eps,
    }
    for name, change in changes.items():
        if prefix + name in arrays:
            arrays[prefix + name] = change(arrays[prefix + name].astype(np.float64))
    return arrays
