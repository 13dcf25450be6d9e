"""An integer network as plain steps: integers in, integers out, the same on every machine.

Each step writes one signal and names the earlier ones that it reads by their numbers. Signals have the shape (C, H, W)
at a time step, and are values (integers of 16 bits, the data), spikes (0 or 1) or counts of spikes.

Currents. In a channel c, ``x = bias[c] + sum over terms of shifted(sum of the term)``, in units of the channel's own: a
threshold has `reset` of them. A convolution's sum is multiplied with ``2**shift``, or divided and rounded to the
nearest, halves up, where `shift` is below 0.

Neurons. ``u = v + x``, or with a leak ``u = (v decay + 2**14 >> 15) + x``, cut off at +-32767; a spike where
``u >= fire``, then ``v = u - reset``, else ``v = u``. Potentials begin at 0 and have 16 bits.

Read-out after t steps. Of a current, ``unit[c] (x(1) + ... + x(t)) / t``. Of spikes without a leak the same with their
number; with one, ``unit[c] a / n``, where ``a = (a decay + 2**14 >> 15) + 2**15 spike`` at each step from 0, and n is
what a would be with a spike at each step. Both in double, rounded to float32 once.

No sum of a current leaves the range of +-2**30, which is proved when a network is quantised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops import Geometry, Integers, Values

VERSION = 1
"""Of what is written here, which files name."""
LARGEST_CURRENT = 2**30
Shape = tuple[int, int, int]
Weights = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Taps:
    """A convolution of a signal; a linear layer is one of images of one pixel.

    Attributes
    ----------
    source : int
        Number of the step that is read.
    weight : ndarray of int8, shape (O, C / groups, KH, KW)
        What it is convolved with.
    geometry : Geometry
        Where the taps fall; beyond the image there are zeros.
    shift : int
        The sums are multiplied with ``2**shift``.
    """

    source: int
    weight: NDArray[np.int8]
    geometry: Geometry
    shift: int


@dataclass(frozen=True, eq=False)
class Added:
    """A signal of the output's shape, each channel times an integer of at most 15 bits and a sign.

    Attributes
    ----------
    source : int
        Number of the step that is read.
    weight : ndarray of int32, shape (C,)
        What one is worth.
    """

    source: int
    weight: Integers


Term = Taps | Added


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """What all steps have.

    Attributes
    ----------
    path : str
        The layer that it is from.
    features : (int, int, int)
        ``(C, H, W)`` of what it writes.
    """

    path: str
    features: Shape

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the steps that it reads."""
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Step):
    """The data: ``rint(x 2**shift)``, halves to even, cut off at +-`most`, which is at most 32767."""

    shift: int
    most: int


@dataclass(frozen=True, eq=False, kw_only=True)
class _OneSource(Step):
    source: int

    @property
    def reads(self) -> tuple[int, ...]:
        """The source."""
        return (self.source,)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Sources(Step):
    sources: tuple[int, ...]

    @property
    def reads(self) -> tuple[int, ...]:
        """The sources."""
        return self.sources


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(_OneSource):
    """Of spikes in windows their number, or with `largest` whether there is one; padding counts as none."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    largest: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(_OneSource):
    """Images as vectors: channel c of pixel (y, x) becomes number ``(c H + y) W + x``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Upsample(_OneSource):
    """Each pixel is repeated `factor` times, vertically and horizontally."""

    factor: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(_Sources):
    """The channels of all sources, one behind the other."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gate(_Sources):
    """The spikes of the first source where the second one fires, or with `negated` where it does not."""

    negated: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class _Current(Step):
    terms: tuple[Term, ...]
    bias: Integers

    @property
    def reads(self) -> tuple[int, ...]:
        """The sources of the terms."""
        return tuple(term.source for term in self.terms)


@dataclass(frozen=True, eq=False, kw_only=True)
class Neurons(_Current):
    """Spikes of a current; `bias`, `reset` and `fire` are int32 (C,), `decay` is ``2**15`` where there is no leak."""

    reset: Integers
    fire: Integers
    decay: int


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadCurrent(_Current):
    """The mean of a current over time is the output; `unit` is float32 (C,)."""

    unit: Values


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadSpikes(_OneSource):
    """The rate of spikes is the output; `unit` is float32 (C,), `decay` that by which past steps count less."""

    unit: Values
    decay: int


def data_steps(steps: Sequence[Step]) -> list[bool]:
    """Of each step whether it writes data, not spikes or counts."""
    found: list[bool] = []
    for step in steps:
        moved = isinstance(step, Flatten | Upsample | Concat) and found[step.reads[0]]
        found.append(isinstance(step, Input) or moved)
    return found
