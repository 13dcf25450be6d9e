"""Slots of static samples: each slot is at a time step of its own, so that the next sample can begin where one is done.

The head of a program is what depends on the sample alone, up to the first neurons. `Head` computes it for all T steps
of a sample at once; a slot keeps the spikes that it gives, which are few bytes. A time step of all slots then computes
only the steps of the program behind the head.
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

SLOTS_PER_SAMPLE = 2
"""Slots for each sample of a batch of whole runs."""
MOST_BYTES = 1 << 26
"""Of the potentials of all slots."""
NUMBERS_TURNED = 64
"""Numbers of a sample that are copied together where samples become rows: what is read stays in the first cache."""
ALL_BITS = np.uint32(0xFFFFFFFF)


def static_slots(program: Program, batch: int) -> int:
    """How many slots are worth having where whole runs are of `batch` samples: `SLOTS_PER_SAMPLE` times as many.

    A time step has one lane for each slot, so more slots use vectors and threads better (measured: 8 % less time than
    with as many as in a run; four times as many are no faster). Fewer where their potentials are above `MOST_BYTES`.
    """
    size = sum(4 * prod(step.shape) for step in program.steps if isinstance(step, Neurons))
    return max(batch, min(SLOTS_PER_SAMPLE * batch, MOST_BYTES // max(size, 1)))


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
        """Compute `handed_on` of samples (B, *features)."""
        np.copyto(self._input, samples.reshape(self._input.shape))
        self._plan.run()
        for to, array in zip(self.handed_on, self._from, strict=True):
            for first in range(0, to.shape[2], NUMBERS_TURNED):
                some = slice(first, first + NUMBERS_TURNED)
                np.copyto(to[:, :, some], array[:, :, some])

    def signals(self, other: Callable[[Array], Array]) -> dict[int, Signal]:
        """The signals that are handed on, with `other` of each of their arrays in its place, called in their order."""
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


class Slots:
    """The steps of a program behind its head, for one time step of each slot.

    Parameters
    ----------
    compiled : Compiled
        The program.
    timesteps : int
        T.
    size : int
        Number of slots.
    head : Head
        Of any number of samples; what slots keep is shaped as its `handed_on`.

    Notes
    -----
    All slots are empty at first. The rates of an empty slot have no meaning.
    """

    def __init__(self, compiled: Compiled, timesteps: int, size: int, head: Head) -> None:
        self.size = size
        self._potentials: Potentials = {}
        self._kept: list[Array] = []  # of the sample of each slot, (slots, T or 1, N)
        self._now: list[Array] = []  # the part of it that the present step reads, (N, slots)
        self._all_slots = np.arange(size)
        program = compiled.program
        steps = [number for number, of_head in enumerate(program.head()) if not of_head]
        self._plan = Plan(compiled, 1, size, True, self._potentials, Part(steps, head.signals(self._add)))
        self._so_far = OutputSoFar(program, timesteps, self._plan.output)
        self._masks = np.full((size, ROW), ALL_BITS)  # a mask for each row of potentials: 0 sets it to 0
        self._changed = True

    def _add(self, array: Array) -> Array:
        *shape, steps, _ = array.shape
        self._kept.append(np.zeros((self.size, steps, prod(shape)), array.dtype))
        now = np.zeros((*shape, 1, self.size), array.dtype)
        self._now.append(now.reshape(-1, self.size))
        return now

    def fill(self, slots: Numbers, head: Head, samples: Numbers) -> None:
        """Begin with these samples of the last call of the head, one in each of the slots."""
        for kept, array in zip(self._kept, head.handed_on, strict=True):
            kept[slots] = array[samples]
        self._so_far.forget(slots)
        self._masks[slots] = 0
        self._changed = True

    def empty(self, slots: Numbers) -> None:
        """Forget the output of these slots."""
        self._so_far.forget(slots)

    def step(self) -> Values:
        """Do the next time step of all slots; return the rates so far, (slots, *output_features)."""
        for kept, now in zip(self._kept, self._now, strict=True):
            if kept.shape[1] > 1:
                np.copyto(now, kept[self._all_slots, self._so_far.times].T)
            elif self._changed:
                np.copyto(now, kept[:, 0].T)
        if self._changed:
            self._forget()
        self._plan.run(self._changed)
        self._so_far.note(self._plan)
        self._changed = False
        return self._so_far.rates()

    def _forget(self) -> None:
        """Set the potentials of new samples to 0.

        All potentials are read in order, which takes a fifth of the time of writing row by row.
        """
        for potentials in self._potentials.values():
            bits = potentials.view(np.uint32).reshape(-1, self._masks.size)
            np.bitwise_and(bits, self._masks.reshape(-1), out=bits)
        self._masks[...] = ALL_BITS

    def go_on_from(self, other: Slots, slots: Numbers) -> None:
        """Take over the samples of these slots of `other`, as many as there are here."""
        self._so_far.go_on_from(other._so_far, slots)
        for number, potentials in self._potentials.items():
            np.take(other._potentials[number], slots, axis=3, out=potentials, mode="clip")
        for kept, before in zip(self._kept, other._kept, strict=True):
            np.take(before, slots, axis=0, out=kept, mode="clip")
        self._masks[...] = other._masks[slots]
        self._changed = True
