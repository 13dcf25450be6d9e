"""Augmentation of batches of frames ``(B, T, 2, H, W)``: one choice per sample, the same for all its time steps.

| column of `draws` | decides |
|---|---|
| 0 | flip: mirrored where it is below 1/2 (`dsr.data.augment`) |
| 1, 2 | rows and columns of a random crop (`dsr.data.augment`) |
| 3, 4 | row and column of the centre of a cutout |
| 5, 6 | columns and rows by which a roll shifts |
| 7 | cutout: applied where it is below 1/2 |

The order is crop, flip, roll, cutout. Columns 3 to 6 have another meaning for images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import augment
from dsr.data.augment import flip, random_crop
from dsr.data.samples import Draws
from dsr.ops import Values


def roll(images: NDArray[Any], most: int, draws: Draws) -> NDArray[Any]:
    """Shift images ``(B, C, H, W)`` by at most `most` pixels; what leaves on one side comes in on the other.

    All ``2 * most + 1`` shifts of columns (column 5 of `draws`) and of rows (column 6) are equally likely.
    """
    count, _, height, width = images.shape
    shifts = (draws[:, 5:7] * (2 * most + 1)).astype(np.intp)
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(count), :, shifts[:, 1], shifts[:, 0]]


def cutout(images: NDArray[Any], side: int, draws: Draws) -> NDArray[Any]:
    """`dsr.data.augment.cutout` of half of the images ``(B, C, H, W)``; a new array."""
    chosen = draws[:, 7] < 0.5
    out = images.copy()
    out[chosen] = augment.cutout(images[chosen], side, draws[chosen, 3:5])
    return out


@dataclass(frozen=True)
class FrameTransform:
    """Augmentation and conversion of stored frames: the transform of samples that are recordings.

    Attributes
    ----------
    divisor : int
        By which the stored integers are divided.
    crop_padding, flip, roll, cutout
        As in `dsr.data.Preparation`; they apply only with draws.
    """

    divisor: int = 1
    crop_padding: int = 0
    flip: bool = False
    roll: int = 0
    cutout: int = 0

    def __call__(self, frames: NDArray[Any], draws: Draws | None) -> Values:
        """The batch in float32, time first: ``(T, B, 2, H, W)``."""
        if draws is not None:
            frames = self._augmented(frames.reshape(len(frames), -1, *frames.shape[3:]), draws).reshape(frames.shape)
        batch, timesteps, *features = frames.shape
        out: Values = np.empty((timesteps, batch, *features), np.float32)
        np.divide(frames.swapaxes(0, 1), np.float32(self.divisor), out=out, casting="same_kind")
        return out

    def _augmented(self, images: NDArray[Any], draws: Draws) -> NDArray[Any]:
        if self.crop_padding:
            images = random_crop(images, self.crop_padding, draws)
        if self.flip:
            images = flip(images, draws)
        if self.roll:
            images = roll(images, self.roll, draws)
        if self.cutout:
            images = cutout(images, self.cutout, draws)
        return images
