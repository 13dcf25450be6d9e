"""Places: static samples at time steps of their own, side by side, so that one that is done makes room for the next.

What a program computes of the sample alone, up to its first neurons, is computed for all its steps at once, by a
`Head`, and handed to the place: spikes, which are few bytes. A step of the places then is what comes behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.plan import Compiled, Part, Plan, Potentials, Signal, Term, Train, Written
from dsr.deploy.program import Neurons, Program
from dsr.deploy.so_far import OutputSoFar
from dsr.ops import Values
from dsr.ops.spike_convolution import ROW

Array = NDArray[Any]
Numbers = NDArray[np.int64]

WIDER = 2
MOST_BYTES = 1 << 26
TURNED = 64
WHOLE = np.uint32(0xFFFFFFFF)


def most_places(program: Program, batch: int) -> int:
    """Places that are worth having where whole runs are of `batch` samples: `WIDER` times as many.

    A step has one lane of each, so more of them fill it better (measured: 8 % less time than as many as in a run; four
    times as many are no faster). Fewer where their potentials are above `MOST_BYTES`.
    """
    size = sum(4 * prod(step.shape) for step in program.steps if isinstance(step, Neurons))
    return max(batch, min(WIDER * batch, MOST_BYTES // max(size, 1)))


class Head:
    """The steps of `Program.head` for all T steps of some static samples, with the bits of a whole run of as many.

    Parameters
    ----------
    compiled : Compiled
        The program.
    timesteps, batch : int
        How many.

    Attributes
    ----------
    handed_on : list of ndarray, shape (B, T or 1, N)
        What it hands on, sample by sample, in memory that the next call uses again.
    """

    def __init__(self, compiled: Compiled, timesteps: int, batch: int) -> None:
        program = compiled.program
        steps = [number for number, of_head in enumerate(program.head()) if of_head]
        self.batch = batch
        part = Part(steps, handed_on=program.handed_on())
        self._plan = Plan(compiled, timesteps, batch, True, None, part)
        self._input = self._plan.input.transpose(3, 4, 0, 1, 2)
        self.handed_on: list[Array] = []
        self._from: list[Array] = []  # the same memory as the plan has it, (B, T or 1, N)
        self.signals(self._add)

    def _add(self, array: Array) -> Array:
        *_, steps, batch = array.shape
        self._from.append(array.reshape(-1, steps, batch).transpose(2, 1, 0))
        self.handed_on.append(np.empty(self._from[-1].shape, array.dtype))
        return array

    def __call__(self, samples: Array) -> None:
        """Of samples (B, *features)."""
        np.copyto(self._input, samples.reshape(self._input.shape))
        self._plan.run()
        for to, array in zip(self.handed_on, self._from, strict=True):
            for first in range(0, to.shape[2], TURNED):  # what is read stays in the first cache until all of it is used
                np.copyto(to[:, :, first : first + TURNED], array[:, :, first : first + TURNED])

    def signals(self, other: Callable[[Array], Array]) -> dict[int, Signal]:
        """The signals that are handed on, with another array in place of each of the plan's, in their order."""
        others: dict[int, Array] = {}

        def moved(array: Array) -> Array:
            if id(array) not in others:
                others[id(array)] = other(array)
            return others[id(array)]

        def of(term: Term) -> Term:
            if isinstance(term, Train):
                return replace(term, words=moved(term.words))
            assert isinstance(term, Written)
            return Written(moved(term.array))

        return {n: replace(s, terms=tuple(map(of, s.terms))) for n, s in self._plan.handed_on.items()}


class Places:
    """What comes behind the head, for one time step of each place.

    Parameters
    ----------
    compiled : Compiled
        The program.
    timesteps : int
        T.
    size : int
        Places.
    head : Head
        Of any number of samples.

    Notes
    -----
    Places are vacant at first, and what a vacant place gives means nothing.
    """

    def __init__(self, compiled: Compiled, timesteps: int, size: int, head: Head) -> None:
        self.size = size
        self._potentials: Potentials = {}
        self._kept: list[Array] = []  # of the samples that are here, (places, T or 1, N)
        self._now: list[Array] = []  # what the step at hand reads of it, (N, places)
        self._all_places = np.arange(size)
        program = compiled.program
        steps = [number for number, of_head in enumerate(program.head()) if not of_head]
        self._plan = Plan(compiled, 1, size, True, self._potentials, Part(steps, head.signals(self._add)))
        self._so_far = OutputSoFar(program, timesteps, self._plan.output)
        self._stays = np.full((size, ROW), WHOLE)  # for each number of a row of potentials: 0 where it is forgotten
        self._changed = True

    def _add(self, array: Array) -> Array:
        *shape, steps, _ = array.shape
        self._kept.append(np.zeros((self.size, steps, prod(shape)), array.dtype))
        now = np.zeros((*shape, 1, self.size), array.dtype)
        self._now.append(now.reshape(-1, self.size))
        return now

    def admit(self, places: Numbers, head: Head, samples: Numbers) -> None:
        """Give these places to as many of the samples that the head has seen."""
        for kept, array in zip(self._kept, head.handed_on, strict=True):
            kept[places] = array[samples]
        self._so_far.forget(places)
        self._stays[places] = 0
        self._changed = True

    def vacate(self, places: Numbers) -> None:
        """The samples at these places have left."""
        self._so_far.forget(places)

    def step(self) -> Values:
        """The next time step of all places; the rates so far."""
        for kept, now in zip(self._kept, self._now, strict=True):
            if kept.shape[1] > 1:
                np.copyto(now, kept[self._all_places, self._so_far.times].T)
            elif self._changed:
                np.copyto(now, kept[:, 0].T)
        if self._changed:
            self._forget()
        self._plan.run(self._changed)
        self._so_far.note(self._plan)
        self._changed = False
        return self._so_far.rates()

    def _forget(self) -> None:
        """Potentials of samples that are new are 0. All are read in order: row by row takes five times as long."""
        for potentials in self._potentials.values():
            bits = potentials.view(np.uint32).reshape(-1, self._stays.size)
            np.bitwise_and(bits, self._stays.reshape(-1), out=bits)
        self._stays[...] = WHOLE

    def go_on_from(self, other: Places, places: Numbers) -> None:
        """Take over the samples that are at these places of others."""
        self._so_far.go_on_from(other._so_far, places)
        for number, potentials in self._potentials.items():
            np.take(other._potentials[number], places, axis=3, out=potentials, mode="clip")
        for kept, before in zip(self._kept, other._kept, strict=True):
            np.take(before, places, axis=0, out=kept, mode="clip")
        self._stays[...] = other._stays[places]
        self._changed = True
