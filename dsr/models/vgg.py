"""VGG networks, for event data above all."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, maybe_dropout, require_image
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of the five stages."""


def vgg(
    make_neuron: MakeNeuron,
    features: tuple[int, ...],
    classes: int,
    width: int = 64,
    dropout: float = 0.1,
    depth: int = 11,
) -> Sequential:
    """VGG with a single linear layer; depth 11 is the network of the paper's DVS-CIFAR10 experiments.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)`` of images or frames of events, H and W at least 32.
    classes : int
        Neurons of the read-out.
    width : int
        Channels of the first stage; the other four have 2, 4, 8 and 8 times as many.
    dropout : float
        After each neuron layer.
    depth : int
        11, 13, 16 or 19.

    Notes
    -----
    Meng et al. 2022. Their network enlarges the last image to 7x7 pixels by adaptive average pooling. From 48x48 pixels
    (and from 32x32) that is one pixel copied 49 times, so 49 weights of the linear layer always act as their sum W.
    Here it is one weight, W / 7. Both are the same function, since batch normalisation follows, and SGD trains them
    alike: with learning rate r and gradient g(W), a step changes the sum of the 49 by 49 r g(W), hence W / 7 by 7 r
    g(W), which is r g(W / 7), gradients behind a normalisation being of degree -1; and W / 7 of 49 weights drawn with
    standard deviation 0.01 has that of 0.01 too. So VGG-11 for 10 classes of events has 9,230,567 parameters, 9 of them
    thresholds, where theirs has 9,476,327.
    """
    require_image("vgg", features, "H and W at least 32", lambda h, w: min(h, w) >= 32)
    if depth not in DEPTHS:
        raise ValueError(f"vgg: argument 'depth': expected 11, 13, 16 or 19, got {depth!r}")
    stages: dict[str, Layer] = {}
    channels = features[0]
    for stage, count in enumerate(DEPTHS[depth], start=1):
        out = width << min(stage - 1, 3)
        layers: dict[str, Layer] = {}
        for number in range(1, count + 1):
            layers |= {
                f"conv{number}": Conv2d(channels, out, 3, padding=1),
                f"bn{number}": BatchNorm(out),
                f"neuron{number}": make_neuron(),
                **maybe_dropout(dropout, f"dropout{number}"),
            }
            channels = out
        stages[f"stage{stage}"] = Sequential(**layers, pool=AvgPool2d(2))
    return Sequential(
        **stages,
        flatten=Flatten(),
        linear=Linear(channels * (features[1] >> 5) * (features[2] >> 5), classes, std=0.01),
        bn=BatchNorm(classes),
        neuron=make_neuron(),
    )
