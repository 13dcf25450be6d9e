"""The names that the authors' PyTorch code gives to the arrays of a network, and their names in dsr.

The same array has several names, such as ``layer1.0.relu1.Vth`` and ``layer1_0.neuron1.v_threshold``. `canonical` gives
one form for all of them; a name belongs to the array of the network whose own name has the same form.

| authors | dsr |
|---|---|
| ``module.`` at the beginning (DataParallel) | nothing |
| ``_orig_mod.`` (torch.compile), ``_fsdp_wrapped_module.``, ``_checkpoint_wrapped_module.`` anywhere | nothing |
| ``layer1.0`` | ``layer1_0`` |
| ``conv1``, ``bn2``, ... of a block | ``residual.body.conv1``, ... |
| ``shortcut``; ``downsample.0`` and ``downsample.1`` | ``residual.shortcut``; with ``conv`` and ``bn`` |
| ``relu1`` | ``neuron1`` |
| ``Vth`` | ``v_threshold`` |
| ``fc`` | ``linear`` |
| VGG: ``layer3.4``, ``layer3.5``, ``layer3.6``: numbers of a `Sequential` | ``stage3.conv2``, ``bn2``, ``neuron2`` |
| VGG: ``classifier.1``, ``classifier.2``, ``classifier.3`` | ``linear``, ``bn``, ``neuron`` |

Names cannot express one difference: the bottleneck blocks of their CIFAR code, which no network of the paper has, have
their stride in the first convolution, those of `dsr.models` in the second.
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
"""The authors' VGG enlarges the last image, of one pixel, to 7x7."""

_Replacement = str | Callable[[re.Match[str]], str]
_VGG_HEAD = {"1": "linear", "2": "bn", "3": "neuron"}


def _vgg_layer(match: re.Match[str]) -> str:
    """Convolution, normalisation, neurons and dropout follow each other; pooling, the last, has no arrays."""
    number = int(match[2])
    return f"stage{match[1]}.{('conv', 'bn', 'neuron', 'dropout')[number % 4]}{number // 4 + 1}.{match[3]}"


_WRAPPERS: list[tuple[re.Pattern[str], _Replacement]] = [
    (re.compile(r"(?<![^.])_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\."), ""),
    (re.compile(r"^(module\.)+"), ""),
]
_RULES: list[tuple[re.Pattern[str], _Replacement]] = [
    *_WRAPPERS,
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
    """One form for all names of the same array."""
    return _replaced(name, _RULES)


def _replaced(name: str, rules: list[tuple[re.Pattern[str], _Replacement]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def own_names(given: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The network's name for each name that is given.

    A name that belongs to no array of the network, or to one that is also given by its own name, stays as it is.

    Parameters
    ----------
    given : iterable of str
        Names of dsr, or of the authors' code.
    known : iterable of str
        Names of the network's arrays. Where two of them have one canonical form, only their own names are understood.
    """
    names, listed = set(known), list(given)
    often = Counter(map(canonical, names))
    by_form = {form: name for name in names.difference(listed) if often[form := canonical(name)] == 1}
    return {name: name if name in names else by_form.get(canonical(name), name) for name in listed}


def fold_vgg(given: Mapping[str, NDArray[Any]], network: Network) -> dict[str, NDArray[Any]]:
    """The authors' VGG in the form of `dsr.models.vgg`: the 49 weights of a pixel's copies become 1/7 of their sum.

    The linear layer then gives 1/7 of its former output. Its bias and the running statistics of the normalisation
    behind it are scaled accordingly, so that the evaluation of the network is the same function.

    Parameters
    ----------
    given : mapping of str to ndarray
        Arrays by the authors' names; those of other networks are returned as they are.
    network : Network
        The network that they are meant for.
    """
    layers, arrays = dict(network.body.walk()), dict(given)
    names = {_replaced(name, _WRAPPERS): name for name in given}
    norm, linear = layers.get("bn"), dict(network.arrays()).get("linear.weight")
    if _VGG_LINEAR not in names or linear is None or not isinstance(norm, BatchNorm):
        return arrays
    classes, channels = linear.shape[:2]

    def folded(weight: NDArray[Any]) -> NDArray[Any]:
        return weight.reshape(classes, channels, _COPIES).sum(axis=2) / 7

    changes: dict[str, tuple[tuple[int, ...], Callable[[NDArray[Any]], NDArray[Any]]]] = {
        _VGG_LINEAR: ((classes, _COPIES * channels), folded),
        "classifier.1.bias": ((classes,), lambda bias: bias / 7),
        "classifier.2.running_mean": ((classes,), lambda mean: mean / 7),
        "classifier.2.running_var": ((classes,), lambda variance: (variance + norm.eps) / 49 - norm.eps),
    }
    if given[names[_VGG_LINEAR]].shape != changes[_VGG_LINEAR][0]:
        return arrays
    for form, (shape, change) in changes.items():
        name = names.get(form, "")
        if name in arrays and arrays[name].shape == shape:  # others are refused, with their shape
            arrays[name] = change(arrays[name].astype(np.float64))
    return arrays
