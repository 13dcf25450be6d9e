"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature

from dsr.layer import Layer, Sequential
from dsr.models.cifar_fast import cifar_fast
from dsr.models.digits import digits
from dsr.models.imagenet_resnet import imagenet_resnet
from dsr.models.preact_resnet import preact_resnet
from dsr.models.vgg import vgg
from dsr.network import Network
from dsr.neurons import IF, LIF, ReLU
from dsr.recipe import Recipe

__all__ = ["build", "cifar_fast", "digits", "imagenet_resnet", "names", "neuron_of", "preact_resnet", "vgg"]

_MODELS: dict[str, Callable[..., Sequential]] = {
    "digits": digits,
    "cifar_fast": cifar_fast,
    **{f"preact_resnet{depth}": partial(preact_resnet, depth=depth) for depth in (18, 34, 50)},
    **{f"vgg{depth}": partial(vgg, depth=depth) for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": partial(imagenet_resnet, depth=depth) for depth in (18, 34, 50)},
}


def names() -> list[str]:
    """Models that `build` knows."""
    return list(_MODELS)


def build(recipe: Recipe, features: tuple[int, ...], classes: int) -> Network:
    """The network of a recipe for samples of shape `features`.

    Raises
    ------
    ValueError
        There is no model of this name, or it does not fit the samples or the recipe.
    """
    if recipe.model not in _MODELS:
        raise ValueError(f"recipe: key 'model': expected one of {', '.join(_MODELS)}, got {recipe.model!r}")
    model = _MODELS[recipe.model]
    options: dict[str, float] = {"width": recipe.width}
    if "dropout" in signature(model).parameters:
        options["dropout"] = recipe.dropout
    elif recipe.dropout:
        raise ValueError(f"recipe: key 'dropout': expected 0, since {recipe.model} has none, got {recipe.dropout}")
    body = model(lambda: neuron_of(recipe), features, classes, **options)
    return Network(body, recipe.timesteps, recipe.seed, recipe.keep_mb << 20)


def neuron_of(recipe: Recipe) -> Layer:
    """A new neuron layer of a recipe."""
    if recipe.neuron == "relu":
        return ReLU()
    if recipe.neuron == "if":
        return IF(
            recipe.v_threshold,
            recipe.alpha,
            recipe.v_threshold_lower_bound,
            train_threshold=recipe.train_threshold,
            threshold_gradient_scale=recipe.threshold_gradient_scale,
        )
    return LIF(
        recipe.v_threshold,
        recipe.tau,
        recipe.delta_t,
        recipe.alpha,
        recipe.v_threshold_lower_bound,
        train_threshold=recipe.train_threshold,
        threshold_gradient_scale=recipe.threshold_gradient_scale,
    )
