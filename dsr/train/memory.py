"""Memory of a training step, before it is made: from a step of a few samples, whose arrays are followed.

Everything that a pass keeps grows with the batch, but for weights, gradients and the optimiser's arrays. So a copy of
the network makes steps of few samples, with ``keep_bytes`` scaled to them, while Python (`tracemalloc`) follows the
arrays; a line through their largest sums gives that of the batch. On top comes what Python does not see: holes between
arrays in the memory of the C library, and what the compiled part works in.
"""

from __future__ import annotations

import copy
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dsr import data, system
from dsr.data import Samples
from dsr.nn.network import Network
from dsr.nn.run import Budget, Run
from dsr.ops.arguments import as_count
from dsr.optim.optimizers import Optimizer
from dsr.train import image_sizes
from dsr.train.recipe import Recipe

if TYPE_CHECKING:
    from dsr.train.trainer import Trainer

LEAST = 2
"""Samples of the smaller step; batch normalisation wants two."""
PROBE = 32 << 20
"""Bytes that the largest of these steps may need, but for those of `FEW` samples."""
FEW = 8
HOLES = 0.1
"""Share of the passes that is lost between arrays: 3 to 17 % in steps of 100 to 600 MB of four networks (glibc)."""
WORK = 18_000_000
"""Bytes that the compiled part, BLAS and OpenMP work in: 11 to 25 MB of small steps, with 1 to 8 threads."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step needs at most, without the data set and the program.

    Attributes
    ----------
    samples : int
        Of the passes: of a batch, or of a part of it.
    weights : int
        Parameters and buffers; of a teacher, too.
    optimizer : int
        Gradients and the arrays of the optimiser.
    passes : int
        What a step takes on top, at its largest: currents, spikes and gradients of all samples.
    fixed : int
        Of these, what smaller parts of a batch would need as well: currents that fill ``keep_bytes``, and `WORK`.
    """

    samples: int
    weights: int
    optimizer: int
    passes: int
    fixed: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.optimizer + self.passes

    def parts_within(self, size: int) -> int:
        """In how many parts the samples fit `size` bytes; 0: not even in parts of two samples."""
        room = 0.9 * size - self.weights - self.optimizer - self.fixed  # predictions of parts differ by up to 6 %
        room -= self.weights  # for the sums of gradients
        parts = max(ceil((self.passes - self.fixed) / room), 1) if room > 0 else self.samples
        return parts if self.samples // parts >= LEAST else 0

    def require(self, limit: float, used: float = 0.0, accumulate: int = 1) -> None:
        """Raise ValueError unless the step fits a process.

        Parameters
        ----------
        limit : float
            Bytes that the process can have; NaN: not known.
        used : float
            Bytes that it has already, besides what a step needs.
        accumulate : int
            In how many parts a batch is computed now.
        """
        if not self.total + used > limit:
            return
        parts = accumulate * self.parts_within(int(limit - used))
        raise ValueError(
            f"memory: a training step of {self.samples} samples needs about {_mb(self.total)} MB besides {_mb(used)} "
            f"MB for the program and its data, but the machine has {_mb(limit)} MB for this process: "
            + (
                f"accumulate = {parts} computes the batch in so many parts, one after the other, and fits; so does a "
                f"batch_size that is as much smaller"
                if parts
                else "neither a smaller batch_size nor accumulate is enough; a smaller width, image_size, timesteps or "
                "keep_mb needs less"
            )
        )

    def text(self) -> str:
        """A line for people."""
        weights, optimizer, passes = (_mb(n) for n in (self.weights, self.optimizer, self.passes))
        return (
            f"memory of a training step of {self.samples} samples: {_mb(self.total)} MB (weights {weights}, gradients "
            f"and optimiser {optimizer}, passes {passes})"
        )


def step_memory(
    network: Network,
    optimizer: Optimizer,
    features: Sequence[int],
    samples: int,
    *,
    has_time: bool = False,
    accumulate: int = 1,
    average: bool = False,
    teacher: Network | None = None,
) -> StepMemory:
    """Predict the memory of a training step.

    Parameters
    ----------
    network : Network
        It is not changed.
    optimizer : Optimizer
        Of its parameters; it is not changed.
    features : sequence of int
        Shape of a sample (of one time step): ``(N,)``, ``(C, L)`` or ``(C, H, W)``.
    samples : int
        Of a batch.
    has_time : bool
        Whether samples have a frame for each step.
    accumulate : int
        In how many parts the batch is computed.
    average : bool
        Whether a mean of the weights is kept, too.
    teacher : Network, optional
        Whose outputs on the same samples are in the loss; it is not changed.

    Raises
    ------
    TypeError, ValueError
        The features do not fit the network, `samples` or `accumulate` is not an integer >= 1, or the network or the
        optimiser cannot be copied.
    """
    samples = as_count("step_memory", "samples", samples)
    accumulate = as_count("step_memory", "accumulate", accumulate)
    part = max(ceil(samples / accumulate), LEAST)
    try:
        twin, its, teacher = copy.deepcopy((network, optimizer, teacher))
    except (TypeError, copy.Error) as error:
        raise TypeError(f"memory of a training step: not known, since the network cannot be copied ({error})") from None
    weights = sum(array.nbytes for _, array in twin.arrays())
    taught = sum(array.nbytes for _, array in teacher.arrays()) if teacher is not None else 0
    gradients = sum(parameter.value.nbytes for parameter in its.parameters.values())
    with _followed():
        for parameter in its.parameters.values():
            parameter.grad = np.zeros_like(parameter.value)
        state = gradients + _largest(its.step).left
        step = _largest(its.step)  # only now it has arrays that it copies
        passes, kept = _of_part(lambda count: _passes(twin, features, has_time, count, part), part)
        if teacher is not None:  # its pass is over when the other one begins
            known = teacher
            passes = max(passes, _of_part(lambda count: _forward(known, features, has_time, count), part)[0])
    if accumulate > 1:
        state += gradients  # their sum over the parts
    passes = max(passes, step.peak)
    whole = int(passes * (1 + HOLES)) + WORK
    return StepMemory(part, weights * (1 + average) + taught, state, whole, int(min(kept, passes)) + WORK)


@dataclass(frozen=True)
class _Found:
    """Bytes at the largest and at the end, beyond those at the start; of currents kept by the budget."""

    peak: int
    left: int
    kept: int = 0


def _largest(work: Callable[[], int | None]) -> _Found:
    """What `work` needs; it gives the bytes that are kept by the budget."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    kept = work()
    after, peak = tracemalloc.get_traced_memory()
    return _Found(peak - before, after - before, kept or 0)


@contextmanager
def _followed() -> Iterator[None]:
    """Python follows allocations, NumPy's too."""
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        yield
    finally:
        if not already:
            tracemalloc.stop()


def _of_part(passes_of: Callable[[int], _Found], part: int) -> tuple[float, float]:
    """Bytes of the passes of `part` samples, and of currents kept by the budget, by those of fewer samples."""
    first = passes_of(LEAST)
    count = min(part, max(FEW, int(PROBE * LEAST / first.peak)))
    last = first if part == LEAST else passes_of(count)
    passes, kept = float(last.peak), last.kept * part / (LEAST if part == LEAST else count)
    if count < part:
        # the slope between two large ones: at small ones, another moment of the step may be the largest, such as the
        # gradient of the largest weights (ResNet-18, rate gradients, 224 pixels: up to 3 samples)
        middle = count // 2
        lower = passes_of(middle) if middle > LEAST else first
        passes += (last.peak - lower.peak) / (count - max(middle, LEAST)) * (part - count)
    return passes, kept


def _images(network: Network, features: Sequence[int], has_time: bool, count: int) -> NDArray[np.float32]:
    shape = (network.timesteps, count, *features) if has_time else (count, *features)
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _passes(network: Network, features: Sequence[int], has_time: bool, count: int, part: int) -> _Found:
    """Forward and backward pass of `count` samples, with their share of what `part` samples may keep."""

    def work() -> int:
        images = _images(network, features, has_time, count)
        budget = Budget(network.keep_bytes * count // part)
        rates = network.evaluate(images, Run(True, budget=budget, weight_bits=network.weight_bits))
        kept = budget.total
        network.backward(np.zeros_like(rates))
        return kept

    return _largest(work)


def _forward(network: Network, features: Sequence[int], has_time: bool, count: int) -> _Found:
    """A pass of `count` samples without training."""

    def work() -> None:
        network.forward(_images(network, features, has_time, count))

    return _largest(work)


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}" if size >= 1e7 else f"{size / 1e6:.1f}"


def of_recipe(
    recipe: Recipe,
    network: Network,
    optimizer: Optimizer,
    features: Sequence[int],
    training: Samples | None = None,
    ranks: int = 1,
    teacher: Network | None = None,
) -> StepMemory:
    """`step_memory` of a recipe's training on one of `ranks`; without samples, what the recipe says of its data."""
    if training is None:
        count = recipe.batch_size
        frames = recipe.data in data.names() and "frames_by" in data.reads(recipe.data)
        has_time = frames or "T" in recipe.axes
    else:
        count = min(recipe.batch_size, len(training))
        has_time = training.batch(np.zeros(1, np.int64)).ndim > 1 + len(features)
    return step_memory(
        network,
        optimizer,
        image_sizes.largest(recipe, features),
        ceil(count / ranks),
        has_time=has_time,
        accumulate=recipe.accumulate,
        average=recipe.ema_decay > 0,
        teacher=teacher,
    )


def require_room(trainer: Trainer) -> str:
    """A line that tells the memory of a run's step; ValueError where the machine has too little for it."""
    try:
        needed = of_recipe(
            trainer.recipe,
            trainer.network,
            trainer.optimizer,
            trainer.data.features,
            trainer.training,
            trainer.group.size,
            trainer.teacher.network if trainer.teacher is not None else None,
        )
    except TypeError as error:
        return str(error)
    there = needed.weights  # of the network that is built already
    used = max(system.resident_memory() * 2**20 - there, 0.0)
    needed.require(system.memory_limit() * 2**20, used, trainer.recipe.accumulate)
    return needed.text()
