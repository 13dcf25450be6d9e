"""Inference with trained networks: compiled where all layers say what they do, and with early exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
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

    Samples are read `batch_size` at a time, and run with all steps and with early exit in turn. Reading them does not
    count.

    Raises
    ------
    TypeError, ValueError
        The samples are not classified, there are none, or an argument is not as described.
    """
    targets = _targets("measure_exits", samples)
    batches = in_order(samples, as_count("measure_exits", "batch_size", batch_size))
    first = next(batches)
    session = session_for(network, first[1], measured=True)
    exits.early_exit(session, first[1], threshold, by)  # memory is made
    session(first[1])
    right_of_all, seconds_of_all, not_counted = 0, 0.0, 0.0

    def parts() -> Iterator[Values]:
        nonlocal right_of_all, seconds_of_all, not_counted
        left = perf_counter()
        for numbers, images in chain([first], batches):
            start = perf_counter()
            rates = session(images)
            seconds_of_all += perf_counter() - start
            right_of_all += int((rates.argmax(axis=1) == targets[numbers]).sum())
            not_counted += perf_counter() - left
            yield images
            left = perf_counter()
        not_counted += perf_counter() - left

    start = perf_counter()
    found = exits.early_exit_in_parts(session, parts(), threshold, by)
    seconds, count = perf_counter() - start - not_counted, len(samples)
    right = found.rates.argmax(axis=1) == targets
    return ExitResult(
        float(right.mean()),
        float(found.timesteps.mean()),
        seconds / count,
        right_of_all / count,
        seconds_of_all / count,
    )


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
