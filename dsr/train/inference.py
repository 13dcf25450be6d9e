"""Inference with trained networks: compiled where all layers say what they do, and with early exit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data import Samples
from dsr.data.samples import in_order
from dsr.data.targets import as_targets
from dsr.deploy import early_exit as exits
from dsr.deploy.early_exit import By, Point
from dsr.deploy.lowering import NotDescribedError
from dsr.deploy.session import Session, compile
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.arguments import as_count

Forward = Callable[[Values], Values]
"""A network, or its session: output rates of a batch."""


def inference(network: Network, images: Values, measured: bool = False) -> Forward:
    """The session of a network for samples such as `images`; the network itself if a layer does not say what it does.

    With `measured` the session is made for the firing rates on them, see `dsr.compile`.
    """
    try:
        return session_for(network, images, measured)
    except NotDescribedError:
        return network


def session_for(network: Network, images: Values, measured: bool = False) -> Session:
    """The session of a network for samples such as `images`, or NotDescribedError."""
    axis = network.batch_axis(images)
    few = images.take(range(min(32, images.shape[axis])), axis) if measured else None
    return compile(network, features=images.shape[axis + 1 :], samples=few)


@dataclass(frozen=True)
class ExitResult:
    """What early exit gives on some samples.

    Attributes
    ----------
    accuracy, timesteps : float
        Share of the samples that were right, and mean T.
    seconds, seconds_of_all : float
        For a sample, with early exit and with all steps, in one run.
    accuracy_of_all : float
        With all steps.
    """

    accuracy: float
    timesteps: float
    seconds: float
    accuracy_of_all: float
    seconds_of_all: float


def measure_exits(
    network: Network, samples: Samples, threshold: float, by: By = "probability", batch_size: int = 256
) -> ExitResult:
    """Accuracy, mean T and time with early exit, beside those of all steps; see `dsr.deploy.early_exit`.

    Raises
    ------
    TypeError, ValueError
        The samples are not classified, there are none, or an argument is not as described.
    """
    targets = _targets("measure_exits", samples)
    session: Session | None = None
    right = right_of_all = steps = 0
    times = np.zeros(2)
    for numbers, images in in_order(samples, as_count("measure_exits", "batch_size", batch_size)):
        if session is None:
            session = session_for(network, images, measured=True)
            exits.early_exit(session, images, threshold, by)  # memory is made
            session(images)
        start = perf_counter()
        found = exits.early_exit(session, images, threshold, by)
        between = perf_counter()
        rates = session(images)
        times += between - start, perf_counter() - between
        right += int((found.rates.argmax(axis=1) == targets[numbers]).sum())
        right_of_all += int((rates.argmax(axis=1) == targets[numbers]).sum())
        steps += int(found.timesteps.sum())
    count = len(samples)
    return ExitResult(right / count, steps / count, times[0] / count, right_of_all / count, times[1] / count)


def exit_curve(
    network: Network, samples: Samples, by: By = "probability", batch_size: int = 256, **options: Any
) -> list[Point]:
    """Accuracy against mean T for many thresholds, of samples of a data set; `options` are those of `curve`."""
    targets = _targets("exit_curve", samples)
    session: Session | None = None
    parts = []
    for _, images in in_order(samples, as_count("exit_curve", "batch_size", batch_size)):
        session = session or session_for(network, images, measured=True)
        parts.append(exits.rates_so_far(session, images))
    return exits.curve(np.concatenate(parts, axis=1), targets, by=by, **options)


def _targets(function: str, samples: Samples) -> NDArray[Any]:
    if samples.task != "classification":
        raise ValueError(f"{function}: argument 'samples': expected samples of classes, got those of {samples.task}")
    if len(samples) == 0:
        raise ValueError(f"{function}: argument 'samples': expected at least one, got none")
    return as_targets(function, "samples.labels", samples.labels, len(samples), samples.task)
