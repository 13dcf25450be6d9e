"""Pre-activation residual networks for large images."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, require_image, residual_stages
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d, GlobalAvgPool2d


def imagenet_resnet(
    make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 64, depth: int = 18
) -> Sequential:
    """ResNet for images, usually of 224x224 pixels; depth 18 is the network of the paper's ImageNet experiments.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)`` of the images, H and W at least 32; evaluation may be at another size.
    classes : int
        Neurons of the read-out.
    width : int
        Channels of the first stage; the other three have 2, 4 and 8 times as many.
    depth : int
        18, 34 or 50.

    Notes
    -----
    Meng et al. 2022. Convolutions have no biases; shortcuts that are convolutions are normalised. The stem pools by
    means, not maxima: the first block then sees sums of spikes.
    """
    require_image("imagenet_resnet", features, "H and W at least 32", lambda h, w: min(h, w) >= 32)
    blocks, channels = residual_stages(make_neuron, depth, width, bias=False, norm_shortcut=True)
    return Sequential(
        conv1=Conv2d(features[0], width, 7, 2, 3, bias=False),
        bn1=BatchNorm(width),
        neuron1=make_neuron(),
        pool1=AvgPool2d(3, 2, 1),
        **blocks,
        bn2=BatchNorm(channels),
        neuron2=make_neuron(),
        pool2=GlobalAvgPool2d(),
        neuron3=make_neuron(),
        flatten=Flatten(),
        linear=Linear(channels, classes),
        bn3=BatchNorm(classes),
        neuron4=make_neuron(),
    )
