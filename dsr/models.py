"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from dsr.layer import Layer, Residual, Sequential
from dsr.layers import AvgPool2d, Conv2d, Dropout, Flatten, Linear
from dsr.network import Network
from dsr.neurons import IF, LIF, Neuron
from dsr.norm import BatchNorm
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


def preact_resnet18(
    make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 64, dropout: float = 0.0
) -> Sequential:
    """PreActResNet-18 for images of 32x32 pixels, the network of the paper's CIFAR experiments.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)`` of the images, H and W multiples of 32.
    classes : int
        Neurons of the read-out.
    width : int
        Channels of the first stage; the other three have 2, 4 and 8 times as many.
    dropout : float
        Before the second convolution of each block and before the linear layer.

    Notes
    -----
    Block: ``s = N(BN(x))``, ``conv(drop(N(BN(conv(s))))) + shortcut(s)``, the shortcut being s, or a 1x1 convolution of
    it where the shape changes (Meng et al. 2022; He et al., "Identity mappings in deep residual networks", 2016).
    """

    def maybe_dropout() -> dict[str, Layer]:
        return {"dropout": Dropout(dropout)} if dropout else {}

    def block(channels: int, out: int, stride: int) -> Sequential:
        body = Sequential(
            conv1=Conv2d(channels, out, 3, stride, 1),
            bn2=BatchNorm(out),
            neuron2=make_neuron(),
            **maybe_dropout(),
            conv2=Conv2d(out, out, 3, 1, 1),
        )
        shortcut = Conv2d(channels, out, 1, stride) if stride != 1 or channels != out else None
        return Sequential(bn1=BatchNorm(channels), neuron1=make_neuron(), residual=Residual(body, shortcut))

    blocks: dict[str, Layer] = {}
    channels = width
    for stage, (out, stride) in enumerate(((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)), start=1):
        for number, step in enumerate((stride, 1)):
            blocks[f"layer{stage}_{number}"] = block(channels, out, step)
            channels = out
    pixels = features[1] // 32 * (features[2] // 32)
    return Sequential(
        conv1=Conv2d(features[0], width, 3, 1, 1, bias=False),
        **blocks,
        bn1=BatchNorm(channels),
        neuron1=make_neuron(),
        pool=AvgPool2d(4),
        neuron2=make_neuron(),
        flatten=Flatten(),
        **maybe_dropout(),
        linear=Linear(channels * pixels, classes),
        bn2=BatchNorm(classes),
        neuron3=make_neuron(),
    )


def build(recipe: Recipe, features: tuple[int, ...], classes: int) -> Network:
    """The network of a recipe for samples of shape `features`.

    Raises
    ------
    ValueError
        There is no model of this name.
    """
    models = {"digits": digits, "preact_resnet18": preact_resnet18}
    if recipe.model not in models:
        raise ValueError(f"recipe: key 'model': expected one of {', '.join(models)}, got {recipe.model!r}")
    body = models[recipe.model](lambda: neuron_of(recipe), features, classes, recipe.width)
    return Network(body, recipe.timesteps, recipe.seed)


def neuron_of(recipe: Recipe) -> Neuron:
    """A new neuron layer of a recipe."""
    if recipe.neuron == "if":
        return IF(recipe.v_threshold, recipe.alpha, recipe.v_threshold_lower_bound)
    return LIF(recipe.v_threshold, recipe.tau, recipe.delta_t, recipe.alpha, recipe.v_threshold_lower_bound)
