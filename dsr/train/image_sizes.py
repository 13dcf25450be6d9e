"""Training at image sizes that change from epoch to epoch: smaller ones first cost less time (Tan and Le 2021).

M. Tan and Q. Le, "EfficientNetV2: Smaller Models and Faster Training", 2021; fast.ai calls it progressive resizing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsr.data import Samples
from dsr.nn.network import Network
from dsr.train.recipe import Recipe


def of_epoch(recipe: Recipe, training: Samples, epoch: int) -> Samples:
    """The training samples of an epoch, at its size; `epoch` is the number of epochs done."""
    side = next((side for start, side in reversed(recipe.image_sizes.items()) if start <= epoch), None)
    return training if side is None else training.at_size(side)


def largest(recipe: Recipe, features: Sequence[int]) -> tuple[int, ...]:
    """Shape of the largest training samples, of samples that are measured with `features`."""
    if not recipe.image_sizes or len(features) != 3:
        return tuple(features)
    before = () if 0 in recipe.image_sizes else features[1:]
    side = max([*recipe.image_sizes.values(), *before])
    return features[0], side, side


def require_fit(recipe: Recipe, networks: Sequence[Network], training: Samples, features: Sequence[int]) -> None:
    """Raise ValueError unless samples can have all sizes of a recipe, and networks take an image of zeros of each."""
    key = "recipe: key 'image_sizes'"
    for side in sorted(set(recipe.image_sizes.values())):
        try:
            training.at_size(side)
        except ValueError:
            raise ValueError(
                f"{key}: expected none with data = {recipe.data}: only image files are resized, these samples have the "
                f"shape {tuple(features)}"
            ) from None
        image = np.zeros((1, features[0], side, side), np.float32)
        for network in networks:
            try:
                network.forward(image)
            except ValueError as error:
                raise ValueError(
                    f"{key}: expected sizes that the network (and its teacher) take, got {side} ({error}); networks "
                    "that end with GlobalAvgPool2d take any that is large enough"
                ) from None
