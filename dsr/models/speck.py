"""A network for the Speck chip: convolutions, integrate-and-fire neurons and pooling, and no bias anywhere."""

from __future__ import annotations

from dsr.models.blocks import MakeNeuron, require_image
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.flatten import Flatten
from dsr.nn.pooling import AvgPool2d


def speck(make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 16) -> Sequential:
    """Three spiking convolutions, each with pooling by 2, and a spiking read-out.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        ``(C, H, W)`` of the frames, H and W multiples of 8 up to 128.
    classes : int
        Neurons of the read-out.
    width : int
        Channels of the first convolution; the others have twice as many. At 16 it fits in the memory of a Speck.

    Notes
    -----
    What a Speck takes (`dsr.nir.targets`): no batch normalisation, whose shift would be a bias; pooling behind the
    neurons, where its mean is a sum and a factor of the next weights; maps of up to 64x64 pixels, so images larger than
    that are convolved with a stride of 2.
    """
    require_image("speck", features, "H and W multiples of 8 up to 128", lambda h, w: _fits(h) and _fits(w))
    channels, height, columns = features
    stride = 1 if max(height, columns) <= 64 else 2
    if stride == 2 and (height % 16 or columns % 16):
        require_image("speck", features, "beyond 64 multiples of 16", lambda h, w: False)
    return Sequential(
        conv1=Conv2d(channels, width, 3, stride, 1, bias=False),
        neuron1=make_neuron(),
        pool1=AvgPool2d(2),
        conv2=Conv2d(width, 2 * width, 3, 1, 1, bias=False),
        neuron2=make_neuron(),
        pool2=AvgPool2d(2),
        conv3=Conv2d(2 * width, 2 * width, 3, 1, 1, bias=False),
        neuron3=make_neuron(),
        pool3=AvgPool2d(2),
        flatten=Flatten(),
        linear=Linear(2 * width * (height // (8 * stride)) * (columns // (8 * stride)), classes, bias=False),
        neuron4=make_neuron(),
    )


def _fits(size: int) -> bool:
    return 0 < size <= 128 and size % 8 == 0
