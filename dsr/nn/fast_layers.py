"""Layers of networks that are to be trained in minutes: a frozen whitening, and a convolution that pools as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.nn.convolution import Conv2d
from dsr.nn.describe import Total
from dsr.ops import Values
from dsr.ops.arguments import as_counts, as_number


class _Kept:
    """A kernel, and copies of what it was made from; replaced as a whole, so that threads may share it."""

    made: tuple[tuple[Values, ...], Values] | None = None


class MadeKernel(Conv2d):
    """Base of convolutions whose kernel is made from the weight; in evaluation once, as long as that stays the same."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._kept = _Kept()

    def sources(self) -> tuple[Values, ...]:
        """What the kernel is made from."""
        return (self.weight.value,)

    def evaluation_kernel(self) -> Values:
        """`kernel`, which is for reading only: kept with copies of its sources, and made anew where these differ."""
        sources, made = self.sources(), self._kept.made
        if made is None or not all(map(np.array_equal, made[0], sources)):
            self._kept.made = made = tuple(source.copy() for source in sources), self.kernel()
        return made[1]


class PooledConv2d(MadeKernel):
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
        kernel = self.geometry.kernel[0] + 1, self.geometry.kernel[1] + 1
        self.geometry = replace(self.geometry, kernel=kernel, stride=(2, 2))

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`, (O, C, K + 1, K + 1)."""
        out, channels, height, width = self.weight.value.shape
        return out, channels, height + 1, width + 1

    def kernel(self) -> Values:
        """The mean of the weight's four shifts."""
        # taps outside: additions of long rows
        weight = np.ascontiguousarray(self.weight.value.transpose(2, 3, 0, 1))
        out, channels, height, width = self.kernel_shape
        total = np.zeros((height, width, out, channels), np.float32)
        for y in range(2):
            for x in range(2):
                total[y : height - 1 + y, x : width - 1 + x] += weight
        total *= np.float32(0.25)
        return np.ascontiguousarray(total.transpose(2, 3, 0, 1))

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """The transpose of `kernel`: the mean of four shifts of its gradient."""
        total = np.zeros(self.weight.value.shape, np.float32)
        for _, part in _parts(grad_kernel, self.weight.value):
            total += part
        total *= np.float32(0.25)
        return total


class WhitenedConv2d(MadeKernel):
    """A convolution after a frozen whitening of the image, as one convolution.

    The whitening's filters are the eigenvectors of the covariance of all P x P patches of training images, divided by
    the root of their eigenvalues, so that its outputs are uncorrelated; they are computed once, in `calibrate` (K.
    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024). The trained weight belongs to these outputs, but
    what is convolved with is P + K - 1 wide and belongs to the image: ``C (P + K - 1)**2`` products an output instead
    of ``C P**2 K**2`` (48 instead of 108 for C = 3, P = 2, K = 3), and no whitened image in memory.

    Parameters
    ----------
    in_channels, out_channels : int
        C of the images, and of the output.
    kernel_size : int
        K of the trained weight, (O, C P**2, K, K).
    padding : int
        Zeros around the image.
    patch_size : int
        P.
    eps : float
        Added to the eigenvalues.
    stride : int
        Of the convolution; the whitening before it has stride 1.

    Notes
    -----
    The first output channels start as copies of the whitened image, the next ones as their negatives.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: int = 0,
        patch_size: int = 2,
        eps: float = 5e-4,
        stride: int = 1,
    ) -> None:
        in_channels, patch_size = as_counts("WhitenedConv2d", in_channels=in_channels, patch_size=patch_size)
        patch = in_channels * patch_size**2
        super().__init__(patch, out_channels, kernel_size, stride, padding, bias=False, dirac=True)
        height, width = (size + patch_size - 1 for size in self.geometry.kernel)
        self.geometry = replace(self.geometry, kernel=(height, width))
        self.eps = as_number("WhitenedConv2d", "eps", eps, lambda value: 0 <= value < inf, "a number >= 0")
        self.filters = np.eye(patch, dtype=np.float32).reshape(patch, in_channels, patch_size, patch_size)

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``filters``, (C P**2, C, P, P)."""
        return {"filters": self.filters}

    def join_ranks(self, rank: int, total: Total | None) -> None:
        """All ranks have the filters of rank 0."""

    def initialise(self, rng: np.random.Generator) -> None:
        """Copies of the whitened image, their negatives, and Kaiming normal of fan-out."""
        super().initialise(rng)
        patch = len(self.filters)
        negatives = self.weight.value[patch : 2 * patch]
        negatives[...] = -self.weight.value[: len(negatives)]

    def calibrate(self, batches: Iterable[Values]) -> None:
        """Compute the filters from batches of training images, (N, C, H, W) each; one is in memory at a time.

        The frames of samples with a time axis, (T, N, C, H, W), are images like any others.

        Raises
        ------
        ValueError
            There is no image, or of another number of channels or smaller than a patch; a pixel is not finite; or
            without `eps` the images leave a filter undefined.
        """
        patch, channels, size, _ = self.filters.shape
        total, count = np.zeros((patch, patch)), 0
        for batch in batches:
            shape = np.shape(batch)
            if len(shape) not in (4, 5) or shape[-3] != channels or min(shape[-2:]) < size:
                raise ValueError(
                    f"WhitenedConv2d {self.path}: calibrate: expected images of shape (N, {channels}, H, W) or (T, N, "
                    f"{channels}, H, W), with H and W of at least {size}, got {shape}"
                )
            images = np.reshape(batch, (-1, *shape[-3:]))
            windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(2, 3))
            patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, patch).astype(np.float64)
            if not np.isfinite(patches).all():
                raise ValueError(f"WhitenedConv2d {self.path}: calibrate: expected finite images, got NaN or infinity")
            total += patches.T @ patches
            count += len(patches)
        if count == 0:
            raise ValueError(f"WhitenedConv2d {self.path}: calibrate: expected at least one image, got none")
        covariance = total / count
        eigenvalues, vectors = np.linalg.eigh(covariance)
        variances = eigenvalues + self.eps
        rounding = eigenvalues[-1] * patch * np.finfo(np.float64).eps  # what a variance of zero may come out as
        if not (variances > rounding).all():
            raise ValueError(
                f"WhitenedConv2d {self.path}: calibrate: patches of the images differ in fewer directions than a patch "
                f"has pixels, as those of images of one colour do; expected other images, or eps above {self.eps:g}"
            )
        filters = (vectors / np.sqrt(variances)).T[::-1]
        # an eigenvector's sign means nothing; fixed, so that libraries of linear algebra agree
        filters *= np.sign(filters[np.arange(len(filters)), np.abs(filters).argmax(axis=1)])[:, np.newaxis]
        self.filters[...] = filters.reshape(self.filters.shape)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`, (O, C, P + K - 1, P + K - 1)."""
        out, _, height, width = self.weight.value.shape
        _, channels, size, _ = self.filters.shape
        return out, channels, height + size - 1, width + size - 1

    def sources(self) -> tuple[Values, ...]:
        """Weight and filters."""
        return self.weight.value, self.filters

    def kernel(self) -> Values:
        """The weight's convolution with the filters."""
        total = np.zeros(self.kernel_shape, np.float32)
        for place, part in _parts(total, self.weight.value):
            part += np.einsum("omyx,mc->ocyx", self.weight.value, self.filters[:, :, *place])
        return total

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """The transpose of `kernel`."""
        total = np.zeros(self.weight.value.shape, np.float32)
        for place, part in _parts(grad_kernel, self.weight.value):
            total += np.einsum("ocyx,mc->omyx", part, self.filters[:, :, *place])
        return total


def _parts(kernel: Values, weight: Values) -> Iterator[tuple[tuple[int, int], Values]]:
    """All places in a kernel where a smaller weight fits, with the view of what lies there."""
    height, width = weight.shape[2:]
    for y in range(kernel.shape[2] - height + 1):
        for x in range(kernel.shape[3] - width + 1):
            yield (y, x), kernel[:, :, y : y + height, x : x + width]
