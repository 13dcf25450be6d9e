"""A deep and wide network for 32x32 images, for the accuracy that hours of training reach."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, require_image
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.fast_layers import PooledConv2d, WhitenedConv2d
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d


def cifar_deep(make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 128) -> Sequential:
    """A convolution of the whitened image, and three groups of three convolutions, read out by a linear layer.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, 32, 32)``.
    classes : int
        Classes.
    width : int
        Channels of the first group; the others have 3 and 4 times as many, the first convolution half as many.

    Notes
    -----
    After the network for 96 % of K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024: the first
    convolution of a group pools (averages, as part of the convolution, `dsr.nn.fast_layers.PooledConv2d`), and its
    spikes are added to what the other two make of them. Here normalisation follows that sum, not the last convolution:
    in evaluation the convolution, the spikes that are added, the normalisation and the neurons are then one pass. The
    output is a mean current. The image is the same at every step, so all up to the first neurons is computed once.
    """
    require_image("cifar_deep", features, "32x32 pixels", lambda height, width: (height, width) == (32, 32))

    return Sequential(
        stem=normalised(make_neuron, WhitenedConv2d(features[0], width // 2, 3, 1), width // 2),
        group1=group(make_neuron, width // 2, width),
        group2=group(make_neuron, width, 3 * width),
        group3=group(make_neuron, 3 * width, 4 * width),
        pool=AvgPool2d(3),
        flatten=Flatten(),
        linear=Linear(4 * width, classes, bias=False),
        bn=BatchNorm(classes),
    )


def normalised(make_neuron: MakeNeuron, layer: Layer, out: int) -> Sequential:
    """A layer of `out` channels with normalisation and neurons."""
    return Sequential(conv=layer, bn=BatchNorm(out, gain=False), neuron=make_neuron())


def group(make_neuron: MakeNeuron, channels: int, out: int) -> Sequential:
    """A convolution that halves the side, and two more whose sum with its spikes is normalised."""

    def conv() -> Conv2d:
        return Conv2d(out, out, 3, 1, 1, bias=False, dirac=True)

    body = Sequential(first=normalised(make_neuron, conv(), out), conv=conv())
    return Sequential(
        pool=normalised(make_neuron, PooledConv2d(channels, out, 3, 1, bias=False, dirac=True), out),
        sum=normalised(make_neuron, Residual(body), out),
    )
