"""Currents of a program as sums over integer signals, with weights that are not rounded yet.

What neurons read is followed down to spikes, counts of spikes and the data: through sums, convolutions and the
averaging of currents, whose weights multiply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.deploy import program as p
from dsr.deploy.integer_checks import LARGEST_COUNT
from dsr.ops import Geometry

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Signal:
    """An integer signal.

    Attributes
    ----------
    number : int
        Of the integer step that writes it.
    unit : ndarray, shape (C,)
        What 1 is worth in each channel.
    most : int
        The largest absolute value.
    is_data : bool
        It is the data, not spikes or counts.
    """

    number: int
    unit: Doubles
    most: int
    is_data: bool = False

    @property
    def is_spikes(self) -> bool:
        """0 or 1."""
        return self.most == 1 and not self.is_data


@dataclass(frozen=True, eq=False)
class FloatTaps:
    """A convolution of an integer signal with weights (O, C / groups, KH, KW)."""

    signal: Signal
    weight: Doubles
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class FloatAdded:
    """An integer signal times a number (C,) of each channel."""

    signal: Signal
    weight: Doubles


@dataclass(frozen=True, eq=False)
class FloatCurrent:
    """The sum of its terms and a bias (C,)."""

    taps: tuple[FloatTaps, ...]
    added: tuple[FloatAdded, ...]
    bias: Doubles

    def scaled(self, factor: Doubles) -> FloatCurrent:
        """Each channel times a number."""
        taps = (replace(t, weight=t.weight * factor.reshape(-1, 1, 1, 1)) for t in self.taps)
        added = (replace(a, weight=a.weight * factor) for a in self.added)
        return FloatCurrent(tuple(taps), tuple(added), self.bias * factor)


class IntegerSignals:
    """Follows a program step by step; the steps of the integer network grow in `steps`.

    Parameters
    ----------
    program : Program
        Folded.
    """

    def __init__(self, program: p.Program) -> None:
        self.program = program
        self.steps: list[i.Step] = []
        self.signals: dict[int, Signal] = {}
        """By the number of the program's step."""

    def write(self, number: int, step: i.Step, unit: Doubles, most: int, is_data: bool = False) -> None:
        """Note the integer step that does what step `number` of the program does."""
        self.steps.append(step)
        self.signals[number] = Signal(len(self.steps) - 1, unit, most, is_data)

    def move(self, number: int) -> bool:
        """Write a step that only moves or counts integers; False if step `number` does something else."""
        step = self.program.steps[number]
        read = [self.signals.get(k) for k in step.inputs]
        signals = [signal for signal in read if signal is not None]
        if not signals or len(signals) < len(read):
            return False
        first, channels = signals[0], step.shape[0]
        sources = tuple(signal.number for signal in signals)
        path, shape = step.path, step.shape
        if isinstance(step, p.Flatten):
            unit = first.unit.repeat(channels // len(first.unit))
            self.write(
                number, i.Flatten(path=path, features=shape, source=first.number), unit, first.most, first.is_data
            )
        elif isinstance(step, p.Upsample):
            up = i.Upsample(path=path, features=shape, source=first.number, factor=step.factor)
            self.write(number, up, first.unit, first.most, first.is_data)
        elif isinstance(step, p.Concat):
            if len({signal.is_data for signal in signals}) > 1:
                raise self.refuse(step, "puts the data and spikes one behind the other")
            units = np.concatenate([signal.unit for signal in signals])
            most = max(signal.most for signal in signals)
            self.write(number, i.Concat(path=path, features=shape, sources=sources), units, most, first.is_data)
        elif isinstance(step, p.Gate):
            self.write(
                number, i.Gate(path=path, features=shape, sources=sources, negated=not step.fires), first.unit, 1
            )
        elif isinstance(step, p.Pool):
            self._pool(number, step, first)
        else:
            return False
        return True

    def _pool(self, number: int, step: p.Pool, signal: Signal) -> None:
        largest, size = isinstance(step, p.MaxPool), prod(step.kernel_size)
        if not signal.is_spikes:
            raise self.refuse(step, "pools what is not spikes")
        if size > LARGEST_COUNT:
            raise self.refuse(step, f"pools windows of more than {LARGEST_COUNT} pixels")
        unit, most = (signal.unit, 1) if largest else (signal.unit / size, size)
        self.write(number, self._pooled(step, signal, largest), unit, most)

    @staticmethod
    def _pooled(step: p.Pool, signal: Signal, largest: bool) -> i.Pool:
        return i.Pool(
            path=step.path,
            features=step.shape,
            source=signal.number,
            kernel_size=step.kernel_size,
            stride=step.stride,
            padding=step.padding,
            largest=largest,
        )

    def current(self, number: int) -> FloatCurrent:
        """What step `number` of the program gives, as a sum over integer signals.

        Raises
        ------
        ValueError
            It is no such sum; the message names the layer.
        """
        step = self.program.steps[number]
        if number in self.signals:
            signal = self.signals[number]
            return FloatCurrent((), (FloatAdded(signal, signal.unit),), np.zeros(step.shape[0]))
        below = [self.current(k) for k in step.inputs]
        if isinstance(step, p.Convolution):
            return self._convolved(step, below[0])
        if isinstance(step, p.Sum):
            total = _sum([c.scaled(f.astype(np.float64)) for c, f in zip(below, step.factors, strict=True)])
            return total if step.bias is None else replace(total, bias=total.bias + step.bias)
        if isinstance(step, p.AveragePool):
            return self._averaged(step, below[0])
        if isinstance(step, p.Flatten) and self.program.steps[step.inputs[0]].shape[1:] == (1, 1):
            return below[0]
        if isinstance(step, p.Concat):
            return self._side_by_side(step, below)
        raise self.refuse(step, f"applies {type(step).__name__} to what is not spikes")

    def refuse(self, step: p.Step, what: str) -> ValueError:
        """The error that names the layer."""
        return ValueError(f"quantize: layer '{step.path}' {what}, which an integer network cannot do")

    def _convolved(self, step: p.Convolution, below: FloatCurrent) -> FloatCurrent:
        if below.taps:
            raise self.refuse(step, "convolves what is convolved already, without neurons between them")
        weight, geometry = step.weight.astype(np.float64), step.geometry
        bias = np.zeros(step.shape[0]) if step.bias is None else step.bias.astype(np.float64)
        if below.bias.any():
            if any(geometry.padding) or geometry.spread != (1, 1):
                raise self.refuse(step, "convolves a sum with a bias, with zeros around it")
            bias = bias + _weigh(weight, below.bias, geometry.groups).sum(axis=(1, 2, 3))
        taps = (FloatTaps(a.signal, _weigh(weight, a.weight, geometry.groups), geometry) for a in below.added)
        return FloatCurrent(tuple(taps), (), bias)

    def _averaged(self, step: p.AveragePool, below: FloatCurrent) -> FloatCurrent:
        if below.bias.any() and any(step.padding):
            raise self.refuse(step, "averages a sum with a bias, with zeros around it")
        taps = tuple(self._averaged_taps(step, t) for t in below.taps)
        added = []
        for a in below.added:
            if not a.signal.is_spikes:
                raise self.refuse(step, "pools what is not spikes")
            self.steps.append(self._pooled(step, a.signal, False))
            size = prod(step.kernel_size)
            added.append(FloatAdded(Signal(len(self.steps) - 1, a.signal.unit / size, size), a.weight / size))
        return FloatCurrent(taps, tuple(added), below.bias)

    def _averaged_taps(self, step: p.AveragePool, t: FloatTaps) -> FloatTaps:
        """The mean over windows of a convolution is a convolution with the mean of shifted kernels."""
        g = t.geometry
        if any(step.padding) or g.spread != (1, 1) or g.dilation != (1, 1):
            raise self.refuse(step, "averages a convolution with zeros around it, or one with gaps between its taps")
        (kh, kw), (sh, sw) = step.kernel_size, g.stride
        high, wide = g.kernel[0] + (kh - 1) * sh, g.kernel[1] + (kw - 1) * sw
        weight = np.zeros((*t.weight.shape[:2], high, wide))
        for y, x in np.ndindex(kh, kw):
            weight[:, :, y * sh : y * sh + g.kernel[0], x * sw : x * sw + g.kernel[1]] += t.weight / (kh * kw)
        stride = sh * step.stride[0], sw * step.stride[1]
        return FloatTaps(t.signal, weight, replace(g, kernel=(high, wide), stride=stride))

    def _side_by_side(self, step: p.Concat, below: Sequence[FloatCurrent]) -> FloatCurrent:
        """Convolutions whose other output channels have weights of 0."""
        taps, first, total = [], 0, step.shape[0]
        for part in below:
            own = slice(first, first + len(part.bias))
            first = own.stop
            if part.added or any(t.geometry.groups > 1 for t in part.taps):
                raise self.refuse(step, "puts sums that are no plain convolutions one behind the other")
            for t in part.taps:
                weight = np.zeros((total, *t.weight.shape[1:]))
                weight[own] = t.weight
                taps.append(replace(t, weight=weight))
        return FloatCurrent(tuple(taps), (), np.concatenate([part.bias for part in below]))


def _sum(parts: Sequence[FloatCurrent]) -> FloatCurrent:
    return FloatCurrent(
        tuple(t for part in parts for t in part.taps),
        tuple(a for part in parts for a in part.added),
        sum((part.bias for part in parts[1:]), parts[0].bias),
    )


def _weigh(weight: Doubles, unit: Doubles, groups: int) -> Doubles:
    """Weights (O, C / groups, KH, KW) times a number (C,) of each input channel."""
    parts = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    return (parts * unit.reshape(groups, 1, weight.shape[1], 1, 1)).reshape(weight.shape)
