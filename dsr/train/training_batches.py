"""The batches of an epoch; their order and their augmentation depend on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import Samples
from dsr.data.mixing import Mixing
from dsr.data.samples import Numbers, epoch_draws
from dsr.ops import Values
from dsr.train import image_sizes
from dsr.train.build import Augment
from dsr.train.recipe import Recipe


@dataclass(frozen=True)
class TrainingBatches:
    """The batches of a run, epoch by epoch.

    Attributes
    ----------
    recipe : Recipe
        Sizes of batches and images, and the seed.
    samples : Samples
        Those that are trained on.
    augment, mixing : callable or None
        Augmentation of a batch, and mixing of its samples and targets.
    ranks : int
        The ranks that share a batch.
    """

    recipe: Recipe
    samples: Samples
    augment: Augment | None
    mixing: Mixing | None
    ranks: int

    def of_epoch(self, epoch: int) -> list[Numbers]:
        """Sample numbers of each batch of an epoch, which is counted from 0."""
        order = np.random.default_rng([self.recipe.seed, 0, epoch]).permutation(len(self.samples))
        size = self.recipe.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) < self._least else batches

    @property
    def _least(self) -> int:
        """Samples that a batch must have: 2 in each part, since one sample has no variance to normalise by."""
        return 2 * self.ranks * self.recipe.accumulate

    def require_enough(self) -> None:
        """Raise ValueError if a batch has less than two samples for each rank and part."""
        samples, parts = min(self.recipe.batch_size, len(self.samples)), self.recipe.accumulate
        if samples >= self._least:
            return
        ranks = f" of {self.ranks} ranks" if self.ranks > 1 else ""
        if parts > 1:
            each = f", 2 for each of {parts} parts (accumulate){ranks}"
        else:
            each = f", 2 for each{ranks}" if ranks else ""
        what = "batch_size" if self.recipe.batch_size < self._least else "data"
        raise ValueError(
            f"recipe: key '{what}': expected at least {self._least} samples in a batch{each}, got {samples}"
        )

    def images(self, epoch: int, batches: Sequence[Numbers]) -> Iterator[tuple[Values, NDArray[Any]]]:
        """These batches of an epoch: the samples, augmented and mixed, and their targets."""
        recipe = self.recipe
        draws = epoch_draws(len(self.samples), recipe.seed, epoch, recipe.flip and recipe.alternate_flip)
        images = image_sizes.of_epoch(recipe, self.samples, epoch).batches((batch, draws[batch]) for batch in batches)
        for batch, image in zip(batches, images, strict=True):
            changed = image if self.augment is None else self.augment(image, draws[batch])
            labels = self.samples.labels[batch]
            yield (changed, labels) if self.mixing is None else self.mixing(changed, labels, draws[batch])
