"""Whole runs: all time steps of some samples, from the first to the rates, as few compiled calls."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.plan import Compiled, Plan, Train, Written
from dsr.ops import Values, prepared
from dsr.ops.prepared import Call


class WholeRun:
    """A plan of all T steps with what reads its output; its memory is used again by each call.

    Parameters
    ----------
    compiled : Compiled
        The program.
    timesteps, batch : int
        How many.
    held : bool
        Samples are static: given once, and the same at all steps.

    Notes
    -----
    Rates have the bits of `Stream.rates` after as many steps.
    """

    def __init__(self, compiled: Compiled, timesteps: int, batch: int, held: bool) -> None:
        self.plan = Plan(compiled, timesteps, batch, held, None)
        self._input = self.plan.input.transpose(3, 4, 0, 1, 2)
        mean = np.empty((*compiled.program.steps[-1].shape, batch), np.float32)
        self._reader = prepared.join(_reader(compiled, self.plan, mean))
        self._rates, self._features = mean.transpose(3, 0, 1, 2), compiled.program.output_features

    def __call__(self, array: NDArray[Any]) -> Values:
        """Rates of static samples ``(B, *features)``, or of frames ``(T, B, *features)``; in memory of their own."""
        np.copyto(self._input, array.reshape(self._input.shape))
        self.plan.run()
        for call in self._reader:
            call()
        return self._rates.copy().reshape(-1, *self._features)


def _reader(compiled: Compiled, plan: Plan, mean: Values) -> list[Call]:
    """From the output of a plan to its mean over time."""
    (term,) = plan.output.terms
    total, steps = np.empty_like(mean), np.float32(plan.timesteps)
    shape = *mean.shape[:3], plan.timesteps, plan.batch
    if isinstance(term, Train):
        values = np.empty(shape, np.float32)
        weights = compiled.program.time_weights(plan.timesteps)
        return [
            *term.unpack(values),
            prepared.weighted_sum(values, weights, total),
            partial(np.divide, total, steps, out=mean),
        ]
    assert isinstance(term, Written)
    scale, shift = plan.output.scale, plan.output.shift
    scale = np.ones(len(mean), np.float32) if scale is None else scale
    shift = np.zeros(len(mean), np.float32) if shift is None else shift
    calls: list[Call] = []
    values = term.array
    if values.shape != shape:  # of one step that stands for all
        values = np.empty(shape, np.float32)
        calls.append(partial(np.copyto, values, term.array))
    return [
        *calls,
        prepared.weighted_sum(values, np.ones(plan.timesteps, np.float32), total),
        prepared.affine(total, scale / steps, shift, mean),
    ]
