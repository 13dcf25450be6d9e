"""Residual blocks of spiking networks, "pre-activated": normalisation and neuron come before each convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d
from dsr.nn.dropout import Dropout
from dsr.nn.layer import Layer
from dsr.nn.norm import BatchNorm

MakeNeuron = Callable[[], Layer]
"""Gives a new neuron layer."""

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks of the four stages; from 50 on they are bottlenecks."""

EXPANSION = 4
"""Output channels of a bottleneck block, in widths of its middle."""


def residual_stages(
    make_neuron: MakeNeuron,
    depth: int,
    width: int,
    *,
    dropout: float = 0.0,
    bias: bool = True,
    norm_shortcut: bool = False,
) -> tuple[dict[str, Layer], int]:
    """The four stages of a residual network, of `width`, 2, 4 and 8 times as many channels.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    depth : int
        18, 34 or 50.
    width : int
        Channels that the first stage receives, and those of its (narrow) convolutions.
    dropout : float
        Before the last convolution of each block.
    bias : bool
        Of the convolutions.
    norm_shortcut : bool
        Normalise shortcuts that are convolutions.

    Returns
    -------
    dict of str to Layer
        The blocks, by names such as ``layer1_0``.
    int
        Channels of the last one's output.

    Notes
    -----
    Block: ``s = N(BN(x))``, ``body(s) + shortcut(s)``. The body is ``conv3x3, BN, N, conv3x3``, or as a bottleneck
    ``conv1x1, BN, N, conv3x3, BN, N, conv1x1``, the stride being that of the first 3x3 convolution; the shortcut is s,
    or a 1x1 convolution of it where the shape changes (He et al., "Identity mappings in deep residual networks", 2016).
    """
    if depth not in DEPTHS:
        raise ValueError(f"residual_stages: argument 'depth': expected 18, 34 or 50, got {depth!r}")
    bottleneck = depth >= 50

    def block(channels: int, narrow: int, stride: int) -> Sequential:
        out = EXPANSION * narrow if bottleneck else narrow
        body: dict[str, Layer] = {}
        if bottleneck:
            body |= {
                "conv1": Conv2d(channels, narrow, 1, bias=bias),
                "bn2": BatchNorm(narrow),
                "neuron2": make_neuron(),
                "conv2": Conv2d(narrow, narrow, 3, stride, 1, bias=bias),
                "bn3": BatchNorm(narrow),
                "neuron3": make_neuron(),
                **maybe_dropout(dropout),
                "conv3": Conv2d(narrow, out, 1, bias=bias),
            }
        else:
            body |= {
                "conv1": Conv2d(channels, narrow, 3, stride, 1, bias=bias),
                "bn2": BatchNorm(narrow),
                "neuron2": make_neuron(),
                **maybe_dropout(dropout),
                "conv2": Conv2d(narrow, out, 3, 1, 1, bias=bias),
            }
        shortcut: Layer | None = None
        if stride != 1 or channels != out:
            shortcut = Conv2d(channels, out, 1, stride, bias=bias)
            if norm_shortcut:
                shortcut = Sequential(conv=shortcut, bn=BatchNorm(out))
        return Sequential(
            bn1=BatchNorm(channels), neuron1=make_neuron(), residual=Residual(Sequential(**body), shortcut)
        )

    blocks: dict[str, Layer] = {}
    channels = width
    for stage, count in enumerate(DEPTHS[depth]):
        narrow = width << stage
        for number in range(count):
            blocks[f"layer{stage + 1}_{number}"] = block(channels, narrow, 2 if stage > 0 and number == 0 else 1)
            channels = EXPANSION * narrow if bottleneck else narrow
    return blocks, channels


def maybe_dropout(p: float, name: str = "dropout") -> dict[str, Layer]:
    """A dropout layer by its name, or none where it would do nothing."""
    return {name: Dropout(p)} if p else {}


def require_image(function: str, features: Sequence[int], expected: str, good: Callable[[int, int], bool]) -> None:
    """Raise ValueError unless `features` are those of images, ``(C, H, W)``, of a size that `good` accepts."""
    if len(features) != 3 or not good(features[1], features[2]):
        raise ValueError(f"{function}: argument 'features': expected (C, H, W), {expected}, got {tuple(features)}")
