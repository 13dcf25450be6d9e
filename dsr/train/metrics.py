"""How well outputs are: one metric for each task, as a sum over samples, which processes can add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.targets import Task
from dsr.ops import Values

Loss = Callable[[Values, NDArray[Any]], tuple[float, Any]]
"""``loss(rates, targets)``: the mean over a batch, and the gradient with respect to the rates."""


@dataclass(frozen=True)
class Metric:
    """What a run measures with after each epoch.

    Attributes
    ----------
    name : str
        In metrics, behind the name of the samples: ``test_accuracy``.
    total : callable
        ``total(outputs, targets)``: the sum over the samples of a batch.
    sign : int
        1: the largest is the best; -1: the smallest.
    share : bool
        Whether it is a share, which people read in percent.
    """

    name: str
    total: Callable[[Values, NDArray[Any]], float]
    sign: int = 1
    share: bool = False

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ")

    def text(self, value: float) -> str:
        """A value for people, with its unit."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.6g}"


def _correct(outputs: Values, targets: NDArray[Any]) -> float:
    classes = targets if targets.ndim == 1 else targets.argmax(axis=1)  # of mixed samples: the one that prevails
    return int((outputs.argmax(axis=1) == classes).sum())


def _among_five(outputs: Values, targets: NDArray[Any]) -> float:
    own = np.take_along_axis(outputs, targets[:, np.newaxis], axis=1)
    before = np.arange(outputs.shape[1]) < targets[:, np.newaxis]  # of equal outputs the first counts
    return int((((outputs > own) | ((outputs == own) & before)).sum(axis=1) < 5).sum())


def _correct_labels(outputs: Values, targets: NDArray[Any]) -> float:
    return float(((outputs > 0) == targets).mean(axis=1).sum())


def _squares(outputs: Values, targets: NDArray[Any]) -> float:
    rows = (outputs.reshape(len(outputs), -1) - targets.reshape(len(targets), -1)).astype(np.float64)
    return float(np.square(rows).mean(axis=1).sum())


ACCURACY = Metric("accuracy", _correct, share=True)
"""Share of samples whose class has the largest output."""
TOP5_ACCURACY = Metric("top5_accuracy", _among_five, share=True)
"""Share of samples whose class is among those of the five largest outputs."""
LABEL_ACCURACY = Metric("label_accuracy", _correct_labels, share=True)
"""Share of labels that are right; a label is there where its output, a logit, is > 0."""
MSE = Metric("mse", _squares, sign=-1)
"""Mean squared error, over the values of a sample and over samples."""


def beside(metric: Metric, classes: int) -> tuple[Metric, ...]:
    """What is measured beside the metric of a run: with more than 10 classes also `TOP5_ACCURACY`."""
    return (TOP5_ACCURACY,) if metric is ACCURACY and classes > 10 else ()


def metric_of(task: Task, loss: Loss | None = None) -> Metric:
    """The metric of a task; of a task of your own the loss itself."""
    if task == "other":
        if loss is None:
            raise ValueError("metric_of: argument 'loss': expected the loss of a task of your own, got None")
        return Metric("loss", lambda outputs, targets: loss(outputs, targets)[0] * len(targets), sign=-1)
    return {"classification": ACCURACY, "multilabel": LABEL_ACCURACY, "regression": MSE}[task]
