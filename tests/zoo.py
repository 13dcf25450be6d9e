"""Networks of other papers in a few lines each, from the layers of the package; spiking where they had ReLU."""

from __future__ import annotations

from collections.abc import Callable

import dsr
from dsr.nn.spike_residual import Connection

Neurons = Callable[[], dsr.Layer]


def conv(make: Neurons, channels: int, out: int, size: int = 3, stride: int = 1) -> dsr.Sequential:
    """Convolution, batch normalisation, neurons."""
    return dsr.Sequential(dsr.Conv2d(channels, out, size, stride, size // 2, False), dsr.BatchNorm(out), make())


def unet(make: Neurons, channels: int, classes: int, width: int = 8, depth: int = 2) -> dsr.Sequential:
    """U-Net (Ronneberger et al. 2015): an output for each class and pixel."""

    def level(inner: int, depth: int) -> dsr.Layer:
        if depth == 0:
            return conv(make, inner, inner)
        below = dsr.Sequential(
            dsr.MaxPool2d(2), conv(make, inner, 2 * inner), level(2 * inner, depth - 1), dsr.Upsample(2)
        )
        return dsr.Sequential(dsr.Concat(dsr.Identity(), below), conv(make, 3 * inner, inner))

    return dsr.Sequential(conv(make, channels, width), level(width, depth), dsr.Conv2d(width, classes, 1))


def densenet(make: Neurons, channels: int, classes: int, growth: int = 4, layers: int = 3) -> dsr.Sequential:
    """DenseNet (Huang et al. 2017): each layer sees the outputs of all before it."""
    body, width = [conv(make, channels, 2 * growth)], 2 * growth
    for block in range(2):
        for _ in range(layers):
            body.append(dsr.Concat(dsr.Identity(), conv(make, width, growth)))
            width += growth
        if block == 0:
            body += [conv(make, width, width // 2, 1), dsr.AvgPool2d(2)]
            width //= 2
    return dsr.Sequential(*body, dsr.GlobalAvgPool2d(), dsr.Linear(width, classes))


def mobilenet(make: Neurons, channels: int, classes: int, width: int = 8) -> dsr.Sequential:
    """MobileNet (Howard et al. 2017): convolutions of each channel by itself, then of each pixel."""

    def separable(inner: int, out: int, stride: int) -> dsr.Sequential:
        depthwise = dsr.Conv2d(inner, inner, 3, stride, 1, False, groups=inner)
        return dsr.Sequential(depthwise, dsr.BatchNorm(inner), make(), conv(make, inner, out, 1))

    blocks = [separable(width, 2 * width, 2), separable(2 * width, 2 * width, 1), separable(2 * width, 4 * width, 2)]
    return dsr.Sequential(conv(make, channels, width), *blocks, dsr.GlobalAvgPool2d(), dsr.Linear(4 * width, classes))


def sew_resnet18(
    make: Neurons, channels: int, classes: int, connect: Connection = "add", width: int = 8
) -> dsr.Sequential:
    """SEW-ResNet-18 (Fang et al. 2021): spikes are connected behind the neurons of both ways."""

    def block(inner: int, out: int, stride: int) -> dsr.Layer:
        body = dsr.Sequential(conv(make, inner, out, 3, stride), conv(make, out, out))
        return dsr.SpikeResidual(body, connect, conv(make, inner, out, 1, stride))

    blocks = [
        block(width * 2 ** max(stage - (place == 0), 0), width * 2**stage, 2 if stage and place == 0 else 1)
        for stage in range(4)
        for place in range(2)
    ]
    return dsr.Sequential(conv(make, channels, width), *blocks, dsr.GlobalAvgPool2d(), dsr.Linear(8 * width, classes))


def sound(make: Neurons, channels: int, classes: int, width: int = 8) -> dsr.Sequential:
    """Convolutions over the time of a recording (after M5, Dai et al. 2017), features (C, L)."""

    def block(inner: int, out: int, size: int) -> dsr.Sequential:
        return dsr.Sequential(
            dsr.Conv1d(inner, out, size, padding=size // 2), dsr.BatchNorm(out), make(), dsr.MaxPool1d(4)
        )

    blocks = [block(channels, width, 15), block(width, width, 3), block(width, 2 * width, 3)]
    return dsr.Sequential(*blocks, dsr.AvgPool1d(2), dsr.Flatten(), dsr.Linear(2 * width, classes))
