"""Teacher: a trained network whose outputs another one learns, besides the labels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import DataSet
from dsr.data.preprocessing import Preprocessing
from dsr.nn.losses import soft_cross_entropy
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.train.metrics import Loss
from dsr.train.model import load
from dsr.train.recipe import Recipe


class Teacher:
    """A network that has been trained, and the part of it in the loss of another one.

    ``(1 - share) loss(rates, targets) + share cross_entropy(rates, softmax(teacher's rates))`` (Hinton, Vinyals, Dean,
    "Distilling the knowledge in a neural network", 2015, at temperature 1).

    Parameters
    ----------
    network : Network
        What teaches; it is not changed.
    share : float
        In (0, 1].
    """

    def __init__(self, network: Network, share: float) -> None:
        self.network, self.share = network, share

    @classmethod
    def of(cls, recipe: Recipe, samples: DataSet) -> Teacher | None:
        """That of a recipe, if it has one; ValueError if it is not one for these samples."""
        if not recipe.teacher:
            return None
        if samples.task != "classification":
            raise ValueError(f"recipe: key 'teacher': expected task = classification, got {samples.task}")
        model = load(recipe.teacher)
        if list(model.classes) != list(samples.classes):
            raise ValueError(f"recipe: key 'teacher': expected one of the same classes, got {recipe.teacher} of others")
        taken, given = model.preprocessing, samples.preprocessing
        if taken is not None and (given is None or _of_network(taken) != _of_network(given)):
            raise ValueError(
                "recipe: key 'teacher': expected one of samples prepared alike (size, mean and deviation), got "
                f"{recipe.teacher} of others"
            )
        return cls(model.network, recipe.teacher_share)

    def loss(self, loss: Loss, images: Values) -> Loss:
        """A loss with this batch's outputs of the teacher in it."""
        return partial(self._taught, loss, self.network.forward(images))

    def _taught(self, loss: Loss, wanted: Values, rates: Values, targets: NDArray[Any]) -> tuple[float, Any]:
        own, own_gradient = loss(rates, targets)
        taught, gradient = soft_cross_entropy(rates, wanted)
        share = np.float32(self.share)
        return (1 - self.share) * own + self.share * taught, (1 - share) * own_gradient + share * gradient


def _of_network(preprocessing: Preprocessing) -> Preprocessing:
    """Without what makes no difference to a batch that is ready: how it was cut, and T of samples without time."""
    timesteps = preprocessing.timesteps if preprocessing.has_time else 1
    return replace(preprocessing, timesteps=timesteps, random_resized_crop=False)
