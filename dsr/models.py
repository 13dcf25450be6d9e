"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from dsr.layers import AvgPool2d, BatchNorm, Conv2d, Flatten, Linear, Sequential
from dsr.network import Network
from dsr.neurons import IF, LIF, Neuron
from dsr.recipe import Recipe

MakeNeuron = Callable[[], Neuron]


def digits(make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 32) -> Sequential:
    """Two spiking convolutions, a pooling and a spiking read-out, for images of 8x8 pixels.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)`` of the images, H and W multiples of 4.
    classes : int
        Neurons of the read-out.
    width : int
        Channels of the first convolution; the second has twice as many.
    """
    channels, height, rows = features
    return Sequential(
        conv1=Conv2d(channels, width, 3, padding=1, bias=False),
        bn1=BatchNorm(width),
        neuron1=make_neuron(),
        conv2=Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        bn2=BatchNorm(2 * width),
        neuron2=make_neuron(),
        pool=AvgPool2d(2),
        flatten=Flatten(),
        linear=Linear(2 * width * (height // 4) * (rows // 4), classes),
        bn3=BatchNorm(classes),
        neuron3=make_neuron(),
    )


def build(recipe: Recipe, features: tuple[int, ...], classes: int) -> Network:
    """The network of a recipe for samples of shape `features`.

    Raises
    ------
    ValueError
        There is no model of this name.
    """
    models = {"digits": digits}
    if recipe.model not in models:
        raise ValueError(f"recipe: key 'model': expected one of {', '.join(models)}, got {recipe.model!r}")
    body = models[recipe.model](lambda: neuron_of(recipe), features, classes, recipe.width)
    return Network(body, recipe.timesteps, recipe.seed)


def neuron_of(recipe: Recipe) -> Neuron:
    """A new neuron layer of a recipe."""
    if recipe.neuron == "if":
        return IF(recipe.v_threshold, recipe.alpha, recipe.v_threshold_lower_bound)
    return LIF(recipe.v_threshold, recipe.tau, recipe.delta_t, recipe.alpha, recipe.v_threshold_lower_bound)
