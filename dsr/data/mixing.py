"""Mixing of training samples and of their labels: mixup and CutMix, by the random numbers of each sample.

Each sample of a batch is mixed with the next one, the last with the first: batches are in random order already. On
several ranks these are the samples of a rank's part. Each sample has a share of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.augment import MIXING, generator_of
from dsr.data.samples import Draws
from dsr.ops import Values


@dataclass(frozen=True)
class Mixing:
    """Mixes batches of training samples.

    Attributes
    ----------
    classes : int
        Number of classes.
    axes : int
        Axes of a sample, without those of batch and time.
    mixup : float
        Alpha of the Beta distribution of the share that a sample keeps; 0: no mixup. (H. Zhang et al., "mixup: Beyond
        Empirical Risk Minimization", 2018.)
    cutmix : float
        The same of the area that a sample keeps; 0: no CutMix. (S. Yun et al., "CutMix", 2019.) With both, each sample
        takes one of them by chance.
    """

    classes: int
    axes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(self, batch: Values, labels: NDArray[Any], draws: Draws) -> tuple[Values, Values]:
        """The batch, mixed; and its labels as shares of the classes, ``(B, classes)``, rows whose sum is 1.

        Parameters
        ----------
        batch : ndarray of float32, shape (B, ...) or (T, B, ...)
            It is not changed.
        labels : ndarray of int64, shape (B,)
            Classes.
        draws : ndarray of float64, shape (B, DRAWS)
            Of the samples.
        """
        axis = batch.ndim - 1 - self.axes
        samples, out = np.moveaxis(batch, axis, 0), np.moveaxis(batch.copy(), axis, 0)
        kept = np.ones(len(samples))
        for i in range(len(samples)):
            other = samples[(i + 1) % len(samples)]
            generator = generator_of(draws[i], MIXING)
            cut = self.cutmix > 0 and (not self.mixup or generator.random() < 0.5)
            alpha = self.cutmix if cut else self.mixup
            kept[i] = generator.beta(alpha, alpha)
            if cut:
                rows, columns = _box(samples.shape[-2], samples.shape[-1], kept[i], generator)
                out[i][..., rows, columns] = other[..., rows, columns]
                area = (rows.stop - rows.start) * (columns.stop - columns.start)
                kept[i] = 1 - area / (samples.shape[-2] * samples.shape[-1])
            else:
                share = np.float32(kept[i])
                out[i] = share * samples[i] + (1 - share) * other
        targets = np.zeros((len(samples), self.classes), np.float32)
        rows_of = np.arange(len(samples))
        targets[rows_of, labels] += kept
        targets[rows_of, np.roll(labels, -1)] += 1 - kept
        return np.ascontiguousarray(np.moveaxis(out, 0, axis)), targets


def _box(height: int, width: int, kept: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of the box that CutMix replaces, cut off at the edges of the image."""
    parts = []
    for length in (height, width):
        side = round(length * sqrt(1 - kept))
        start = int(generator.integers(length)) - side // 2
        parts.append(slice(max(start, 0), min(start + side, length)))
    return parts[0], parts[1]
