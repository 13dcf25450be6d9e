"""Output rates so far, of samples each of which is at a time step of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.deploy.plan import Plan, Signal, Train, Written
from dsr.deploy.program import Program
from dsr.ops import Values, prepared
from dsr.ops.prepared import Call


class OutputSoFar:
    """The output so far, as spikes of each step or as a sum of values; and how many steps each sample has seen.

    Parameters
    ----------
    program : Program
        Whose output it is.
    timesteps : int
        T, the most steps of a sample.
    output : Signal
        Of a plan for one step of all samples.

    Attributes
    ----------
    times : ndarray of int64, shape (B,)
        Steps that each sample has seen.
    """

    def __init__(self, program: Program, timesteps: int, output: Signal) -> None:
        self._program, self._output = program, output
        self._readers: dict[int, tuple[list[Call], Values]] = {}
        self._together: int | None = 0  # what all times are, if they are the same
        (term,) = output.terms
        if isinstance(term, Train):
            *shape, _, batch = term.words.shape
            self._words = np.zeros((*shape, timesteps, batch), np.uint32)
        else:
            assert isinstance(term, Written)
            *shape, _, batch = term.array.shape
            self._total = np.zeros((*shape, batch), np.float32)
        self._all_samples = np.arange(batch)
        self.times = np.zeros(batch, np.int64)

    def restart(self) -> None:
        """Begin anew with all samples."""
        self.times[:] = 0
        self._together = 0
        if not self._output.spikes:
            self._total[...] = 0

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Begin anew with these samples."""
        self.times[numbers] = 0
        self._together = int(self.times[0]) if (self.times == self.times[0]).all() else None
        if not self._output.spikes:
            self._total[..., numbers] = 0

    def go_on_from(self, other: OutputSoFar, numbers: NDArray[np.int64]) -> None:
        """Take over the output so far of these samples of `other`, as many as there are here."""
        self.times[:] = other.times[numbers]
        self._together = other._together
        if self._output.spikes:
            self._words[...] = other._words[..., numbers]
        else:
            self._total[...] = other._total[..., numbers]

    def note(self, plan: Plan) -> None:
        """Add the output of a run of `plan`, of one time step or of several."""
        (term,) = plan.output.terms
        first, steps = self._together, plan.timesteps
        if isinstance(term, Train):
            if first is not None:
                self._words[:, :, :, first : first + steps] = term.words
            else:
                for t in range(steps):
                    self._words[:, :, :, self.times + t, self._all_samples] = term.words[:, :, :, t]
        else:
            assert isinstance(term, Written)
            for t in range(steps):
                self._total += term.array[:, :, :, t % term.array.shape[3]]
        self.times += steps
        self._together = None if first is None else first + steps

    def rates(self) -> Values:
        """Output rates so far, ``(B, *output_features)``; 0 of samples that have seen no step."""
        if self._together:
            return self._rates_of(slice(None), self._together)
        rates = np.zeros((len(self.times), *self._program.output_features), np.float32)
        for time in set(self.times.tolist()) - {0}:
            numbers = np.flatnonzero(self.times == time)
            rates[numbers] = self._rates_of(numbers, time)
        return rates

    def _rates_of(self, numbers: slice | NDArray[np.int64], time: int) -> Values:
        """The rates of some samples, all of which have seen `time` steps; ``slice(None)`` are all samples."""
        output = self._output
        if not output.spikes:
            total = np.ascontiguousarray(self._total[..., numbers])
            scale = np.ones(len(total), np.float32) if output.scale is None else output.scale
            shift = np.zeros(len(total), np.float32) if output.shift is None else output.shift
            mean = ops.affine(total, scale / np.float32(time), shift)
        elif isinstance(numbers, slice):
            mean = self._mean_of(time)
        else:
            mean = self._mean_of(time)[..., numbers]
        return np.ascontiguousarray(mean.transpose(3, 0, 1, 2)).reshape(-1, *self._program.output_features)

    def _mean_of(self, time: int) -> Values:
        """The mean of the output's spikes over the first steps of all samples, as `SpikeTrain.rate` has it."""
        if time not in self._readers:
            (train,) = self._output.terms
            assert isinstance(train, Train)
            channels, *pixels = self._program.steps[-1].shape
            *shape, _, batch = self._words.shape
            words = np.empty((*shape, time, batch), np.uint32)
            values = np.empty((channels, *pixels, time, batch), np.float32)
            total = np.empty((channels, *pixels, batch), np.float32)
            calls: Sequence[Call] = (
                partial(np.copyto, words, self._words[:, :, :, :time]),
                *replace(train, words=words).unpack(values),
                prepared.weighted_sum(values, self._program.time_weights(time), total),
            )
            self._readers[time] = prepared.join(calls), total
        reader, total = self._readers[time]
        for call in reader:
            call()
        return total / np.float32(time)
