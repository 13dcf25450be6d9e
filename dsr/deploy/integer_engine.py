"""The steps of an integer network with their weights packed, once; `dsr.deploy.integer_binder` makes calls of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsr import ops
from dsr.deploy import integer_steps as i
from dsr.ops import Geometry, Integers, PackedWeights


@dataclass(frozen=True, eq=False)
class PackedTerm:
    """A term of a current with its weights packed.

    Attributes
    ----------
    source : int
        The step whose signal it reads.
    packed : PackedWeights
        From `dsr.ops.pack_for_values` where that signal is data, else from `dsr.ops.pack_integers`.
    shift : int
        As of `dsr.deploy.integer_steps.Taps`.
    added : ndarray of int32, shape (C,), or None
        The weights of a signal that is added without a convolution.
    """

    source: int
    packed: PackedWeights
    shift: int
    added: Integers | None


class Engine:
    """The steps of an integer network with packed weights; threads may share it.

    Parameters
    ----------
    steps : sequence of Step
        From `dsr.deploy.quantization`, in order.
    """

    def __init__(self, steps: Sequence[i.Step]) -> None:
        self.steps: list[i.Step] = []
        self.terms: list[tuple[PackedTerm, ...]] = []
        for step in steps:
            self.append(step)

    def append(self, step: i.Step) -> None:
        """Get one more step ready."""
        self.steps.append(step)
        self.terms.append(_prepare(step, self.steps))


def _prepare(step: i.Step, steps: Sequence[i.Step]) -> tuple[PackedTerm, ...]:
    """The terms of a step; none where it has no current."""
    if not isinstance(step, i.Neurons | i.ReadCurrent):
        return ()
    data = i.data_steps(steps)
    found = []
    for term in step.terms:
        channels = steps[term.source].features[0]
        pack = ops.pack_for_values if data[term.source] else ops.pack_integers
        if isinstance(term, i.Taps):
            weight = term.weight.astype(np.int64)
            found.append(PackedTerm(term.source, pack(weight, term.geometry, channels), term.shift, None))
        else:
            weight = term.weight.reshape(-1, 1, 1, 1).astype(np.int64)
            each = Geometry((1, 1), groups=channels)
            found.append(PackedTerm(term.source, pack(weight, each, channels), 0, term.weight))
    return tuple(found)
