"""Pre-activation residual networks for small images."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, maybe_dropout, require_image, residual_stages
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d


def preact_resnet(
    make_neuron: MakeNeuron,
    features: tuple[int, ...],
    classes: int,
    width: int = 64,
    dropout: float = 0.0,
    depth: int = 18,
) -> Sequential:
    """PreActResNet for images of 32x32 pixels; depth 18 is the network of the paper's CIFAR experiments.

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
        Before the last convolution of each block and before the linear layer.
    depth : int
        18, 34 or 50.

    Notes
    -----
    Meng et al. 2022. Convolutions have biases, except the first. PreActResNet-18 for 10 classes of RGB images has
    11,176,945 parameters, 19 of them thresholds.
    """
    require_image("preact_resnet", features, "H and W multiples of 32", lambda h, w: h % 32 == w % 32 == 0 < min(h, w))
    blocks, channels = residual_stages(make_neuron, depth, width, dropout=dropout)
    pixels = features[1] // 32 * (features[2] // 32)
    return Sequential(
        conv1=Conv2d(features[0], width, 3, 1, 1, bias=False),
        **blocks,
        bn1=BatchNorm(channels),
        neuron1=make_neuron(),
        pool=AvgPool2d(4),
        neuron2=make_neuron(),
        flatten=Flatten(),
        **maybe_dropout(dropout),
        linear=Linear(channels * pixels, classes),
        bn2=BatchNorm(classes),
        neuron3=make_neuron(),
    )
