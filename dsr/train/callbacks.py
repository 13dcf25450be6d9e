"""Callbacks: what a run calls after its steps and epochs, and what may stop it early."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from dsr.ops.arguments import as_count, as_number, shown

if TYPE_CHECKING:
    from dsr.train.trainer import Trainer


class Callback:
    """Base of callbacks. What is not defined does nothing.

    Both methods may look at all of the trainer, such as ``trainer.network`` and ``trainer.position``, and call
    ``trainer.stop(reason)``: the run then ends after the epoch. On several ranks they are called on each, and must do
    the same there. A callback keeps no state of its own over a resume: what it needs is in ``trainer.metrics``.
    """

    def after_step(self, trainer: Trainer, loss: float) -> None:
        """After each step of the optimiser, with the mean loss of this process's part of the batch."""

    def after_epoch(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """After each epoch, when its metrics and checkpoint are written; `metrics` are those of the epoch."""


class StopEarly(Callback):
    """Stop when a metric has not become better for some epochs.

    Parameters
    ----------
    patience : int
        Epochs without a better value after which the run stops.
    metric : str, optional
        Its name, such as ``"validation_accuracy"``; by default the one by which the best checkpoint is chosen.
    largest : bool, optional
        Whether the largest value is the best; by default as of that metric, and for another one False (a loss).
    least_change : float
        By how much a value must be better to count.
    """

    def __init__(
        self, patience: int, metric: str | None = None, largest: bool | None = None, least_change: float = 0.0
    ) -> None:
        self.patience, self.metric, self.largest = as_count("StopEarly", "patience", patience), metric, largest
        self.least_change = as_number(
            "StopEarly", "least_change", least_change, lambda x: 0 <= x < inf, "a number >= 0"
        )

    def after_epoch(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Compare this epoch with those before it."""
        name = self.metric or trainer.best_by
        if name not in metrics:
            raise ValueError(f"StopEarly: argument 'metric': expected one of {', '.join(metrics)}, got {shown(name)}")
        largest = (trainer.metric.sign > 0 and name == trainer.best_by) if self.largest is None else self.largest
        sign, best, since = 1 if largest else -1, -inf, 0
        for epoch in trainer.metrics:
            if name in epoch:
                better = sign * epoch[name] > best + self.least_change
                best, since = (sign * epoch[name], 0) if better else (best, since + 1)
        if since >= self.patience:
            trainer.stop(f"{name} has not become better than {sign * best:.6g} for {since} epochs")
