"""Layers of networks that are to be trained in minutes: a frozen whitening, and a convolution that pools as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.lanes import Values
from dsr.layer import Parameter
from dsr.layers import Conv2d


class PooledConv2d(Conv2d):
    """``AvgPool2d(2)`` after a convolution of stride 1, as one convolution of stride 2.

    The mean over 2x2 outputs of a K x K kernel is one output of the kernel that is the mean of its four shifts,
    K + 1 wide. It costs ``(K + 1)**2`` products where the two layers cost ``4 K**2`` (16 instead of 36 for K = 3), the
    current that goes to memory is a quarter, and spikes stay spikes.

    Parameters
    ----------
    in_channels, out_channels : int
        C of input and output.
    kernel_size : int
        K of the trained weight.
    padding : int
        As of the convolution of stride 1.
    bias, dirac : bool
        As of `Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        bias: bool = True,
        dirac: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, 1, padding, bias, dirac)
        self.stride = 2

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`, (O, C, K + 1, K + 1)."""
        out, channels, height, width = self.weight.value.shape
        return out, channels, height + 1, width + 1

    def kernel(self) -> Values:
        """The mean of the weight's four shifts."""
        weight, total = self.weight.value, np.zeros(self.kernel_shape, np.float32)
        height, width = weight.shape[2:]
        for y in (0, 1):
            for x in (0, 1):
                total[:, :, y : y + height, x : x + width] += weight
        total *= np.float32(0.25)
        return total

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """The transpose of `kernel`: the mean of four shifts of its gradient."""
        height, width = self.weight.value.shape[2:]
        total = np.zeros(self.weight.value.shape, np.float32)
        for y in (0, 1):
            for x in (0, 1):
                total += grad_kernel[:, :, y : y + height, x : x + width]
        total *= np.float32(0.25)
        return total


class Whitening(Conv2d):
    """A frozen convolution whose outputs are uncorrelated over the patches of the training images.

    Its filters are the eigenvectors of the covariance of all K x K patches, divided by the root of their eigenvalues,
    and their negatives; they are computed once, in `calibrate` (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a
    Single GPU", 2024). Static images are convolved once, whatever T is.

    Parameters
    ----------
    in_channels : int
        C of the images; the output has ``2 C kernel_size**2`` channels.
    kernel_size : int
        K.
    eps : float
        Added to the eigenvalues.
    """

    def __init__(self, in_channels: int, kernel_size: int = 2, eps: float = 5e-4) -> None:
        super().__init__(in_channels, 2 * in_channels * kernel_size**2, kernel_size, bias=False)
        self.eps = eps

    def parameters(self) -> Mapping[str, Parameter]:
        """None: the weight is not trained."""
        return {}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``weight``."""
        return {"weight": self.weight.value}

    def initialise(self, rng: np.random.Generator) -> None:
        """Kaiming normal, until `calibrate` is called."""
        shape = self.weight.value.shape
        self.weight.value[...] = rng.normal(0, sqrt(2 / (shape[0] * shape[2] * shape[3])), shape)

    def calibrate(self, images: Values) -> None:
        """Compute the filters from training images (N, C, H, W)."""
        size = self.weight.value.shape[2]
        windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(2, 3))
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * size * size).astype(np.float64)
        covariance = patches.T @ patches / len(patches)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        filters = (vectors / np.sqrt(eigenvalues + self.eps)).T[::-1]
        # an eigenvector's sign means nothing; fixed, so that libraries of linear algebra agree
        filters *= np.sign(filters[np.arange(len(filters)), np.abs(filters).argmax(axis=1)])[:, np.newaxis]
        self.weight.value[...] = np.concatenate([filters, -filters]).reshape(self.weight.value.shape)
