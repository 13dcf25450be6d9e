"""How far a run is."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass
class Position:
    """How far a run is; with the arrays of network and optimiser it is all that a resumed run needs.

    Attributes
    ----------
    epoch : int
        Epochs finished.
    batch : int
        Batches of the next epoch done.
    step : int
        Batches done in all.
    loss : float
        Sum over the samples of the epoch so far.
    correct : float
        Sum of the metric over the samples of the epoch so far: how many were classified correctly.
    seen : int
        These samples.
    seconds : float
        Spent on training in the epoch.
    gradient_norm : float
        Of the last step.
    best : float
        Best metric of an epoch so far, negative where the smallest is the best.
    steps_per_epoch : int
        Batches of the run's first epoch, 0 before it: a warm-up of so many steps stays the same part of the run when
        epochs get another number of steps.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    gradient_norm: float = 0.0
    best: float = -inf
    steps_per_epoch: int = 0
