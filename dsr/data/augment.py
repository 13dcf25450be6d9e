"""Augmentation of batches of uint8 images ``(B, C, H, W)``, and normalisation; every choice comes from `draws`.

| column of `draws` | decides |
|---|---|
| 0 | flip: mirrored where it is below 1/2 |
| 1, 2 | rows and columns of a crop: of `random_crop`, and of `resized_crop` where its crop lies |
| 3, 4 | area and aspect ratio of `resized_crop` |
| 5, 6 | row and column of the centre of a cutout |
| 1, 2 | also the seed of `generator_of`, from which newer kinds draw: `ERASING` and those after it |

Frames of events use some of the columns in another way: see `dsr.data.events.augment`. `random_crop` and
`resized_crop` share columns, because no data set uses both.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.preprocessing import normalise
from dsr.data.samples import Draws, Preparation
from dsr.ops import Values

Bytes = NDArray[np.uint8]

LEAST_AREA = 0.08
SHAPE = (3 / 4, 4 / 3)
TRIES = 10
ERASED_AREA, ERASED_SHAPE = (0.02, 1 / 3), (0.3, 3.3)
ERASING, JITTER, TRIVIAL, MIXING, RANDOM = range(5)
"""Kinds of augmentation with a generator of their own."""


def generator_of(draws: NDArray[np.float64], kind: int) -> np.random.Generator:
    """A generator of further random numbers of a sample, for one kind of augmentation.

    So a new kind leaves the bits of all others as they are, and an epoch keeps 8 numbers a sample in memory.
    """
    return np.random.default_rng([kind, *np.ascontiguousarray(draws[1:3]).view(np.uint32).tolist()])


def random_crop(images: NDArray[Any], padding: int, draws: Draws, reflect: bool = False) -> NDArray[Any]:
    """Shift each image by at most `padding` pixels; what moves in is 0 (black), or the image reflected.

    Columns 1 and 2 of `draws`: all ``2 * padding + 1`` positions of rows and of columns are equally likely.
    """
    if padding == 0:
        return images
    count, _, height, width = images.shape
    shifts = (draws[:, 1:3] * (2 * padding + 1)).astype(np.intp)
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(images, sides, mode="reflect" if reflect else "constant")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(count), :, shifts[:, 0], shifts[:, 1]]


def flip(images: NDArray[Any], draws: Draws) -> NDArray[Any]:
    """Mirror left to right where column 0 of `draws` is below 1/2; a new array."""
    mirrored = draws[:, 0] < 0.5
    out = images.copy()
    out[mirrored] = images[mirrored][..., ::-1]
    return out


def cutout(images: NDArray[Any], side: int, centres: Draws) -> NDArray[Any]:
    """Zeros in a square of each image; a new array.

    Any pixel may be the centre, so that squares at the edge are cut off (T. DeVries and G. Taylor, "Improved
    Regularization of Convolutional Neural Networks with Cutout", 2017). `centres` (B, 2): row and column, as shares
    of height and width.
    """
    height, width = images.shape[2:]
    top, left = ((centres[:, k, np.newaxis] * n).astype(np.intp) - side // 2 for k, n in enumerate((height, width)))
    rows = (np.arange(height) >= top) & (np.arange(height) < top + side)
    columns = (np.arange(width) >= left) & (np.arange(width) < left + side)
    hole = rows[:, np.newaxis, :, np.newaxis] & columns[:, np.newaxis, np.newaxis, :]
    return np.where(hole, images.dtype.type(0), images)


def erased(images: NDArray[Any], probability: float, draws: Draws) -> NDArray[Any]:
    """Zeros in a rectangle of some of the images, which for normalised ones is the mean colour; a new array.

    Its area is uniform in `ERASED_AREA`, its aspect ratio log-uniform in `ERASED_SHAPE`; one that does not fit is drawn
    again, at most `TRIES` times (Z. Zhong et al., "Random Erasing Data Augmentation", 2020).
    """
    out = images.copy()
    height, width = images.shape[2:]
    for image, of_image in zip(out, draws, strict=True):
        generator = generator_of(of_image, ERASING)
        if generator.random() >= probability:
            continue
        for _ in range(TRIES):
            area, shape, down, across = generator.random(4)
            pixels = height * width * (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0]))
            ratio = exp(log(ERASED_SHAPE[0]) + shape * (log(ERASED_SHAPE[1]) - log(ERASED_SHAPE[0])))
            rows, columns = round(sqrt(pixels * ratio)), round(sqrt(pixels / ratio))
            if rows < height and columns < width:
                row, column = int(down * (height - rows + 1)), int(across * (width - columns + 1))
                image[:, row : row + rows, column : column + columns] = 0
                break
    return out


def resized_crop(
    height: int, width: int, draws: NDArray[np.float64], least: float = LEAST_AREA
) -> tuple[int, int, int, int]:
    """A random crop of an image: its first row and column, height and width.

    Its share of the area is uniform in [least, 1], and its aspect ratio log-uniform in `SHAPE`. Like the usual
    implementation (torchvision's ``RandomResizedCrop``), it draws again if the crop does not fit into the image, at
    most `TRIES` times, and after that takes the largest crop in the middle.

    Parameters
    ----------
    height, width : int
        Of the image.
    draws : ndarray of float64, shape (DRAWS,)
        Of the sample. Further tries use random numbers seeded by columns 3 and 4.
    """
    area, shape = draws[3], draws[4]
    further = None
    for _ in range(TRIES):
        pixels = height * width * (least + area * (1 - least))
        ratio = exp(log(SHAPE[0]) + shape * (log(SHAPE[1]) - log(SHAPE[0])))
        columns, rows = round(sqrt(pixels * ratio)), round(sqrt(pixels / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            return int(draws[1] * (height - rows + 1)), int(draws[2] * (width - columns + 1)), rows, columns
        further = further or np.random.default_rng(np.ascontiguousarray(draws[3:5]).view(np.uint32))
        area, shape = further.random(2)
    columns, rows = width, height
    if width / height < SHAPE[0]:
        rows = min(height, round(width / SHAPE[0]))
    elif width / height > SHAPE[1]:
        columns = min(width, round(height * SHAPE[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def holed(images: Values, wanted: Preparation, draws: Draws) -> Values:
    """Normalised images after `cutout` and `erased`, where they are wanted."""
    if wanted.cutout:
        images = cutout(images, wanted.cutout, draws[:, 5:7])
    return erased(images, wanted.random_erasing, draws) if wanted.random_erasing else images


@dataclass(frozen=True)
class ImageTransform:
    """Crop, flip and normalise batches of bytes: the transform of samples that are RGB images.

    Attributes
    ----------
    mean, deviation : sequence of float
        Of each channel, for values in [0, 1].
    preparation : Preparation
        Of which `crop_padding`, `crop_reflect`, `flip`, `cutout` and `random_erasing` apply, where there are draws.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    preparation: Preparation

    def __call__(self, images: Bytes, draws: Draws | None) -> Values:
        """The batch in float32."""
        if draws is None:
            return normalise(images, self.mean, self.deviation)
        wanted = self.preparation
        images = random_crop(images, wanted.crop_padding, draws, wanted.crop_reflect)
        if wanted.flip:
            images = flip(images, draws)
        normalised = normalise(images, self.mean, self.deviation)
        return holed(normalised, wanted, draws)
