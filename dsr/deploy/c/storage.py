"""What an exported network stores: the outputs of which steps, for how long, and where.

All that is pixelwise on the way from stored arrays to neurons is computed pixel by pixel and stored nowhere: the
current of a layer exists for one pixel at a time. Spikes are stored, and values that are read more than once or at
other pixels. Arrays that are not needed at the same time share their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dsr.deploy.program import Concat, Gate, Neurons, Program, Step, Sum

PIXELWISE = (Sum, Concat, Gate, Neurons)
"""Steps of which a pixel needs the same pixel of its inputs alone."""


def words(channels: int) -> int:
    """32-bit words of a pixel of spikes."""
    return (channels + 31) // 32


def is_spikes(step: Step) -> bool:
    """Whether the output is stored as bits."""
    return step.amplitude is not None


def length(step: Step) -> int:
    """Words, or values, of the stored output of a step."""
    channels, *pixels = step.shape
    return prod(pixels) * (words(channels) if is_spikes(step) else channels)


@dataclass(frozen=True)
class Storage:
    """Where things are; steps by their numbers.

    Attributes
    ----------
    once, each_step : tuple of int
        What is computed as a whole, in this order: of a static frame once, and at each time step. The last one of
        `each_step` is the output, which need not be stored.
    place : mapping of int to int
        Where a stored output begins in its array: of words if it is spikes, of values otherwise.
    potentials : mapping of int to int
        The same for the potentials of neurons, in an array of their own.
    words, values, potential_count : int
        Lengths of the three arrays.
    current : int
        Channels of the widest pixel that is stored nowhere.
    """

    once: tuple[int, ...]
    each_step: tuple[int, ...]
    place: Mapping[int, int]
    potentials: Mapping[int, int]
    words: int
    values: int
    potential_count: int
    current: int


def plan(program: Program, static: bool) -> Storage:
    """The storage of a program; `static`: a sample is one frame, which all time steps get."""
    steps, last = program.steps, len(program.steps) - 1
    steady = program.steady() if static else (False,) * len(steps)
    stored = _stored(program, steady)
    once = [i for i in stored if steady[i]]
    each_step = [i for i in stored if not steady[i]]
    if last not in stored:
        each_step.append(last)
    lengths = {i: length(steps[i]) for i in stored}
    reads = {i: _stored_inputs(program, i, stored) for i in each_step}
    spikes = [i for i in each_step if i in stored and is_spikes(steps[i])]
    values = [i for i in each_step if i in stored and not is_spikes(steps[i])]
    place, kept = one_behind_the_other(once, lengths)
    spike_place, word_count = shared(spikes, each_step, reads, lengths, 0)
    value_place, value_count = shared(values, each_step, reads, lengths, kept)
    neurons = [i for i, step in enumerate(steps) if isinstance(step, Neurons)]
    potentials, potential_count = one_behind_the_other(neurons, {i: prod(steps[i].shape) for i in neurons})
    return Storage(
        tuple(once),
        tuple(each_step),
        place | spike_place | value_place,
        potentials,
        word_count,
        value_count,
        potential_count,
        max([steps[i].shape[0] for i in each_step if i not in stored or isinstance(steps[i], Neurons)]),
    )


def _stored(program: Program, steady: Sequence[bool]) -> list[int]:
    steps, readers = program.steps, program.readers()
    stored = {i for i, step in enumerate(steps) if is_spikes(step) or len(readers[i]) > 1}
    for number, step in enumerate(steps):
        for k, i in enumerate(step.inputs):
            # factors multiply all that a pixel has got so far: what may have some comes first, or has an array
            late = isinstance(step, Sum) and k > 0
            scaled = isinstance(step, Sum) and bool((step.factors[k] != 1).any())
            own = scaled or isinstance(steps[i], Sum | Concat)
            if not isinstance(step, PIXELWISE) or (late and own) or (steady[i] and not steady[number]):
                stored.add(i)
    return sorted(stored - {0})


def _stored_inputs(program: Program, number: int, stored: Sequence[int]) -> list[int]:
    """What is read to compute a step."""
    found, left = [], list(program.steps[number].inputs)
    while left:
        i = left.pop()
        if i in stored:
            found.append(i)
        else:
            left.extend(program.steps[i].inputs)
    return found


def one_behind_the_other(numbers: Sequence[int], lengths: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """Places of things that are never given up, and where the last one ends."""
    ends = np.cumsum([0, *(lengths[i] for i in numbers)]).tolist()
    return dict(zip(numbers, ends, strict=False)), ends[-1]


def shared(
    numbers: Sequence[int],
    order: Sequence[int],
    reads: Mapping[int, Sequence[int]],
    lengths: Mapping[int, int],
    start: int,
) -> tuple[dict[int, int], int]:
    """Places from `start` on, the first that is free from a step to its last reader; and where the last one ends."""
    place: dict[int, int] = {}
    last = {i: max([reader for reader in order if i in reads[reader]], default=i) for i in numbers}
    end = start
    for i in numbers:
        at = start
        for other in sorted((other for other in place if last[other] >= i), key=place.__getitem__):
            if place[other] - at >= lengths[i]:
                break
            at = max(at, place[other] + lengths[other])
        place[i] = at
        end = max(end, at + lengths[i])
    return place, end
