"""A deep network for images of 64 to 256 pixels, whose training takes minutes to hours."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, require_image
from dsr.models.cifar_deep import group, normalised
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Linear
from dsr.nn.fast_layers import WhitenedConv2d
from dsr.nn.flatten import Flatten
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import GlobalAvgPool2d


def image_deep(make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 64) -> Sequential:
    """The groups of `dsr.models.cifar_deep`, four of them, behind a convolution of stride 2 of the whitened image.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)``, H and W at least 32; training and evaluation may be at other sizes, for it pools globally.
    classes : int
        Classes.
    width : int
        Channels of the first group; the others have 2, 4 and 4 times as many, the first convolution half as many.

    Notes
    -----
    The last group is no wider than the third: Muon's work on its weights would take a third of a step of 64 images.
    The output is a mean current. The image is the same at every step, so all up to the first neurons is computed once.
    """
    require_image("image_deep", features, "H and W at least 32", lambda height, width: min(height, width) >= 32)
    return Sequential(
        stem=normalised(make_neuron, WhitenedConv2d(features[0], width // 2, 3, 1, stride=2), width // 2),
        group1=group(make_neuron, width // 2, width),
        group2=group(make_neuron, width, 2 * width),
        group3=group(make_neuron, 2 * width, 4 * width),
        group4=group(make_neuron, 4 * width, 4 * width),
        pool=GlobalAvgPool2d(),
        flatten=Flatten(),
        linear=Linear(4 * width, classes, bias=False),
        bn=BatchNorm(classes),
    )
