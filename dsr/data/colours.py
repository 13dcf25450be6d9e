"""Colour jitter, TrivialAugment and RandAugment of single pictures, by the operations of Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsr.data.augment import JITTER, RANDOM, TRIVIAL, generator_of

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LEVELS = 31
"""Strengths of an operation, equally far apart, the first of which changes nothing."""
_ENHANCED = ("Brightness", "Contrast", "Color", "Sharpness")
OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", *_ENHANCED),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
"""Those of TrivialAugment's wide set, which are those of RandAugment."""


@dataclass(frozen=True)
class Most:
    """What operations do at their largest strength.

    Attributes
    ----------
    shear : float
        Pixels that a row moves for each row above it.
    shift : tuple of float
        Pixels to the side, and down.
    turn : float
        Degrees.
    enhanced : float
        Brightness and the like are multiplied by 1 less or 1 plus this.
    bits : int
        Bits of a colour that posterising takes away.
    """

    shear: float
    shift: tuple[float, float]
    turn: float
    enhanced: float
    bits: int


WIDE = Most(0.99, (32, 32), 135, 0.99, 6)
"""Of TrivialAugment."""


def narrow(width: int, height: int) -> Most:
    """Of RandAugment, for pictures of this size."""
    return Most(0.3, (150 / 331 * width, 150 / 331 * height), 30, 0.9, 4)


@dataclass(frozen=True)
class Colours:
    """Changes a picture in RGB; for training only.

    Attributes
    ----------
    colour_jitter : float
        Brightness, contrast and saturation are multiplied by factors between 1 less and 1 plus this.
    hue_jitter : float
        The hue turns by at most this share of a full turn.
    trivial_augment : bool
        One operation of `OPERATIONS` with a strength by chance (S. Müller and F. Hutter, "TrivialAugment: Tuning-free
        Yet State-of-the-Art Data Augmentation", 2021).
    rand_augment : int
        So many operations, one after the other, which may repeat (E. Cubuk et al., "RandAugment: Practical Automated
        Data Augmentation with a Reduced Search Space", 2020).
    rand_magnitude : int
        Their strength, from 0 to ``LEVELS - 1``.
    """

    colour_jitter: float = 0.0
    hue_jitter: float = 0.0
    trivial_augment: bool = False
    rand_augment: int = 0
    rand_magnitude: int = 9

    @property
    def none(self) -> bool:
        """Whether nothing is changed."""
        return not (self.colour_jitter or self.hue_jitter or self.trivial_augment or self.rand_augment)

    def __call__(self, picture: Picture, draws: NDArray[np.float64]) -> Picture:
        """The picture, changed by the random numbers of the sample, (DRAWS,)."""
        if self.trivial_augment:
            generator = generator_of(draws, TRIVIAL)
            name, level = OPERATIONS[generator.integers(len(OPERATIONS))], int(generator.integers(LEVELS))
            picture = operation(picture, name, level, negative=bool(generator.random() < 0.5))
        if self.rand_augment:
            generator, most = generator_of(draws, RANDOM), narrow(*picture.size)
            for _ in range(self.rand_augment):
                name, negative = OPERATIONS[generator.integers(len(OPERATIONS))], bool(generator.random() < 0.5)
                picture = operation(picture, name, self.rand_magnitude, negative, most)
        if self.colour_jitter or self.hue_jitter:
            picture = self._jittered(picture, generator_of(draws, JITTER))
        return picture

    def _jittered(self, picture: Picture, generator: np.random.Generator) -> Picture:
        from PIL import ImageEnhance

        amounts, order = generator.uniform(-1, 1, 4), generator.permutation(4)
        for step in order:
            if step < 3 and self.colour_jitter:
                enhance = getattr(ImageEnhance, _ENHANCED[step])
                picture = enhance(picture).enhance(float(1 + self.colour_jitter * amounts[step]))
            elif step == 3 and self.hue_jitter:
                picture = _turned(picture, round(256 * self.hue_jitter * float(amounts[3])))
        return picture


def operation(picture: Picture, name: str, level: int, negative: bool = False, most: Most = WIDE) -> Picture:
    """An operation of `OPERATIONS` with a strength of 0 to ``LEVELS - 1``.

    The strengths are those of the usual implementation (torchvision's ``TrivialAugmentWide``, and ``RandAugment`` with
    what `narrow` gives); what moves in is black.
    """
    from PIL import ImageEnhance, ImageOps
    from PIL.Image import Resampling, Transform

    strength, sign = level / (LEVELS - 1), -1.0 if negative else 1.0
    shear, (across, down) = most.shear * strength * sign, (strength * sign * pixels for pixels in most.shift)
    affine = {
        "ShearX": (1, shear, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, shear, 1, 0),
        "TranslateX": (1, 0, int(across), 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, int(down)),
    }
    if name in affine:
        return picture.transform(picture.size, Transform.AFFINE, affine[name], Resampling.NEAREST)
    if name == "Rotate":
        return picture.rotate(most.turn * strength * sign, Resampling.NEAREST)
    if name in _ENHANCED:
        enhanced: Picture = getattr(ImageEnhance, name)(picture).enhance(1 + most.enhanced * strength * sign)
        return enhanced
    if name == "Posterize":
        return ImageOps.posterize(picture, 8 - round(most.bits * strength))
    if name == "Solarize":
        return ImageOps.solarize(picture, 256 - round(256 * strength))
    if name == "AutoContrast":
        return ImageOps.autocontrast(picture)
    return ImageOps.equalize(picture) if name == "Equalize" else picture


def _turned(picture: Picture, steps: int) -> Picture:
    """With every hue turned by so many of 256 steps."""
    from PIL import Image

    hue, saturation, value = picture.convert("HSV").split()
    moved = Image.fromarray((np.asarray(hue).astype(np.int64) + steps).astype(np.uint8))
    return Image.merge("HSV", (moved, saturation, value)).convert("RGB")
