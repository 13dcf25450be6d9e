"""The order of arithmetic in exported code: which kernels work on a pixel, one after the other.

Two walk in this order: the writer of the code, and its twin in NumPy, which has the same bits.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dsr.deploy.c import windows
from dsr.deploy.c.storage import Storage, is_spikes
from dsr.deploy.program import (
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    MaxPool,
    Neurons,
    Pool,
    Program,
    Step,
    Sum,
    Upsample,
)
from dsr.ops import Geometry, Values


class Kernels(Protocol):
    """What is done at each pixel of a step; `first` is the first channel of the current that a kernel adds to."""

    def clear(self, channels: int) -> None:
        """The current is 0."""

    def convolve(self, number: int, first: int) -> None:
        """Add the products of a convolution, without its bias."""

    def bias(self, number: int, first: int) -> None:
        """Add the bias of a step."""

    def pool(self, number: int, first: int) -> None:
        """Add the means or the largest values of windows."""

    def repeat(self, number: int, first: int) -> None:
        """Add the value of the pixel that is repeated."""

    def flatten(self, number: int, first: int) -> None:
        """Add the values of all pixels, each in its place."""

    def add(self, number: int, factor: Values | None, first: int) -> None:
        """Add what is stored of a step, times a factor."""

    def scale(self, factor: Values, first: int) -> None:
        """Multiply the current from `first` on."""

    def fire(self, number: int) -> None:
        """Neurons move by the current, and their spikes are stored."""

    def move_spikes(self, number: int, part: int, first: int) -> None:
        """Store spikes of input number `part` of a step that only moves or selects them."""


def compute(program: Program, storage: Storage, number: int, to: Kernels) -> None:
    """Compute a step that `storage` lists."""
    _Order(program, storage, to).compute(number)


class _Order:
    def __init__(self, program: Program, storage: Storage, to: Kernels) -> None:
        self.steps, self.storage, self.to = program.steps, storage, to

    def compute(self, number: int) -> None:
        step = self.steps[number]
        if isinstance(step, Neurons):
            self.to.clear(step.shape[0])
            self.read(step.inputs[0], None, 0)
            self.to.fire(number)
        elif is_spikes(step):
            first = 0
            for part, i in enumerate(step.inputs):
                if part == 0 or isinstance(step, Concat):
                    self.to.move_spikes(number, part, first)
                first += self.steps[i].shape[0]
        else:
            self.to.clear(step.shape[0])
            self.add(number, 0)

    def read(self, i: int, factor: Values | None, first: int) -> None:
        """Add what an input of a step is."""
        factor = None if factor is None or (factor == 1).all() else factor
        if i == 0 or i in self.storage.place:
            self.to.add(i, factor, first)
            return
        self.add(i, first)
        if factor is not None:
            self.to.scale(factor, first)

    def add(self, number: int, first: int) -> None:
        """Add what a step gives."""
        step = self.steps[number]
        match step:
            case Convolution():
                self.to.convolve(number, first)
            case AveragePool() | MaxPool():
                self.to.pool(number, first)
            case Upsample():
                self.to.repeat(number, first)
            case Flatten():
                self.to.flatten(number, first)
            case Concat():
                for i in step.inputs:
                    self.read(i, None, first)
                    first += self.steps[i].shape[0]
            case Sum():
                for i, factor in zip(step.inputs, step.factors, strict=True):
                    self.read(i, factor, first)
            case _:
                raise refuse(step)
        if isinstance(step, Convolution | Sum) and step.bias is not None:
            self.to.bias(number, first)


def refuse(step: Step) -> ValueError:
    """The error of a step that cannot be exported."""
    return ValueError(
        f"export_c: layer '{step.path}': expected layers of spiking networks, got {type(step).__name__}: ordinary "
        "activations are not exported; dsr.IF or dsr.LIF in its place is"
    )


def amplitudes(step: Step, factor: Values | None) -> Values:
    """What spikes of a step are worth times a factor: one number, (1,), or one for each channel, (C,)."""
    product = np.asarray(step.amplitude, np.float64) * (1 if factor is None else factor.astype(np.float64))
    rounded = np.atleast_1d(product).astype(np.float32)
    return rounded[:1] if (rounded == rounded[0]).all() else rounded


def rows(step: Convolution, source: Step) -> Values:
    """Weights as the kernels read them, [tap][input channel][output channel of the group], amplitudes included."""
    outputs, inner, *taps = step.weight.shape
    groups = step.geometry.groups
    weight = step.weight.astype(np.float64).reshape(groups, outputs // groups, inner, taps[0] * taps[1])
    if source.amplitude is not None:
        weight = weight * np.broadcast_to(source.amplitude, source.shape[0]).reshape(groups, 1, inner, 1)
    moved = weight.transpose(3, 0, 2, 1).reshape(taps[0] * taps[1], groups * inner, outputs // groups)
    return np.ascontiguousarray(moved, np.float32)


def geometry(step: Step) -> Geometry:
    """The windows of a convolution or pooling."""
    if isinstance(step, Convolution):
        return step.geometry
    assert isinstance(step, Pool)
    return windows.of_pool(*step.windows)
