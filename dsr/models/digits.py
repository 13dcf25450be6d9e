"""A small network for small images."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, require_image
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d


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
    require_image("digits", features, "H and W multiples of 4", lambda h, w: h % 4 == w % 4 == 0 < min(h, w))
    channels, height, columns = features
    return Sequential(
        conv1=Conv2d(channels, width, 3, padding=1, bias=False),
        bn1=BatchNorm(width),
        neuron1=make_neuron(),
        conv2=Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        bn2=BatchNorm(2 * width),
        neuron2=make_neuron(),
        pool=AvgPool2d(2),
        flatten=Flatten(),
        linear=Linear(2 * width * (height // 4) * (columns // 4), classes),
        bn3=BatchNorm(classes),
        neuron3=make_neuron(),
    )
