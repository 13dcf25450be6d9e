"""Plan: the compiled calls that do the steps of a program, for so many time steps and samples, on memory of its own.

It is made once and run again and again: all choices are made and all arrays are there. What a signal consists of
decides how it is evaluated, as in `dsr.nn.evaluate`, and with the same bits: convolutions work on bits of spikes and of
pooled spikes, and go through neurons to spikes where nothing else is added but spikes. Three things are of its own.
Weights are packed once, for all plans of a session. Bits that share a table are chosen once for each convolution, not
for each batch, so that a result does not depend on the other samples. And values that are no spikes are convolved by
time steps one after the other, so that it does not matter how many come at once. Compiled operations that follow each
other are one call, whose arguments are checked when the plan is made.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from dsr import ops
from dsr.deploy import program as p
from dsr.deploy.program import Program, Shape, Step
from dsr.nn.spikes import SpikeTrain, by_channel, concatenated_units, sum_planes
from dsr.ops import PerChannel, SpikeConvolution, Values, Words, prepared
from dsr.ops.prepared import Call

Potentials = dict[int, Values]
"""Of neurons by their step, see `dsr.ops.row_potentials`."""


@dataclass(frozen=True, eq=False)
class Train:
    """Spikes: their words, and what each is worth; graded ones have several planes, as in `SpikeTrain`."""

    words: Words
    channels: int
    amplitude: PerChannel
    planes: int = 1

    def split(self) -> tuple[Train, ...]:
        """The planes, as trains of amplitudes a, 2 a, 4 a, ...."""
        parts = np.split(self.words, self.planes)
        return tuple(Train(words, self.channels, self.amplitude * 2**k) for k, words in enumerate(parts))

    def weigh(self, weight: Values) -> Values:
        """The weight of a convolution as the words want it, see `SpikeTrain.weigh`."""
        features = self.channels, *self.words.shape[1:3]
        return SpikeTrain(self.words, features, self.amplitude, None, self.planes).weigh(weight)

    def unpack(self, out: Values) -> list[Call]:
        """To values, as `SpikeTrain.values` computes them."""
        if self.planes == 1:
            return [prepared.unpack_words(self.words, self.amplitude, out)]
        lowest, *others = self.split()
        calls = [prepared.unpack_words(lowest.words, 1.0, out)]
        calls += [prepared.add_words(plane.words, 2.0**k, out) for k, plane in enumerate(others, 1)]
        return [*calls, partial(np.multiply, out, by_channel(self.amplitude), out=out)]


@dataclass(frozen=True, eq=False)
class Pooled:
    """The mean of spikes over windows."""

    train: Train
    pool: p.Pool


@dataclass(frozen=True, eq=False)
class Convolved:
    """A convolution of spikes."""

    convolution: SpikeConvolution
    shape: Shape


@dataclass(frozen=True, eq=False)
class Written:
    """Values in memory, of all time steps or of one that stands for all."""

    array: Values


Term = Train | Pooled | Convolved | Written


@dataclass(frozen=True, eq=False)
class Signal:
    """What a step gives: spikes, or the sum of terms, of which scale and shift are still to be applied."""

    terms: tuple[Term, ...]
    scale: Values | None = None
    shift: Values | None = None
    spikes: bool = False


@dataclass(eq=False)
class Compiled:
    """What all plans of a session share: the program, its packed weights, and the choices that are made once."""

    program: Program
    table_bits: dict[int, int] = field(default_factory=dict)
    """Of convolutions by their step; 1 where nothing was measured."""
    _weights: dict[tuple[int, int], tuple[Values, Values]] = field(default_factory=dict)

    def weights(self, number: int, k: int, step: p.Convolution, train: Train) -> tuple[Values, Values]:
        """Weight and packed weight of a convolution for the k-th of its trains, as the words of the train want it."""
        if (number, k) not in self._weights:
            weight = train.weigh(step.weight)
            self._weights[number, k] = weight, ops.pack_weights(weight, step.geometry)
        return self._weights[number, k]


@dataclass(frozen=True, eq=False)
class Part:
    """Some steps of a program.

    Attributes
    ----------
    steps : collection of int
        Their numbers.
    given : dict
        Signals of earlier steps that they read.
    handed_on : sequence of int
        Those of them whose signals are wanted.
    """

    steps: Collection[int]
    given: dict[int, Signal] = field(default_factory=dict)
    handed_on: Sequence[int] = ()


class Plan:
    """The calls for `timesteps` steps of `batch` samples.

    Parameters
    ----------
    compiled : Compiled
        The program.
    timesteps, batch : int
        How many.
    held : bool
        The input is the same at all these steps, and is given once.
    potentials : dict
        Of the neurons; those that are missing are added, as 0. None: they are 0 before each run, which saves memory and
        reading and writing it.
    part : Part, optional
        Only these steps of the program; by default all.

    Attributes
    ----------
    input : ndarray of float32, shape (C, H, W, T or 1, B)
        To be filled before `run`, where the part has the first step.
    output : Signal
        Of the last step; its terms are spikes, or values that are written. None of a part without the last step.
    handed_on : dict of int to Signal
        What the part is asked for; terms are spikes, or values that are written, without a scale.
    convolved : list of (int, Train)
        What is convolved by which step.
    """

    def __init__(
        self,
        compiled: Compiled,
        timesteps: int,
        batch: int,
        held: bool,
        potentials: Potentials | None,
        part: Part | None = None,
    ) -> None:
        self.compiled, self.timesteps, self.batch = compiled, timesteps, batch
        self.convolved: list[tuple[int, Train]] = []
        self._potentials = potentials
        self._held = held
        self._steady = compiled.program.steady()
        self._once: list[Call] = []  # what is the same at every step as long as the input is
        self._always: list[Call] = []
        self._signals: list[Signal] = []
        self._sums: dict[int, Values] = {}
        self._finals: dict[int, Values] = {}
        self._pooled: dict[int, tuple[Train, ...]] = {}
        self.input = self._floats(0, compiled.program.steps[0].shape)
        part = part or Part(range(len(compiled.program.steps)))
        for number, step in enumerate(compiled.program.steps):
            if number in part.steps:
                self._signals.append(self._signal(number, step))
            else:
                self._signals.append(part.given.get(number, Signal(())))
        self.handed_on = {number: self._handed_on(number) for number in part.handed_on}
        last = self._signals[-1]
        if last.terms and not last.spikes:
            last = Signal((Written(self._sum(len(self._signals) - 1)),), last.scale, last.shift)
        self.output = last
        self._once, self._always = prepared.join(self._once), prepared.join(self._always)

    def run(self, changed: bool = True) -> None:
        """Do all steps; where the input has not `changed`, what depends on it alone is still there."""
        if changed:
            for call in self._once:
                call()
        for call in self._always:
            call()

    # ---- memory

    def _steps(self, number: int) -> int:
        """Time steps of what a step gives."""
        return 1 if self._held and self._steady[number] else self.timesteps

    def _floats(self, number: int, shape: Shape) -> Values:
        return np.empty((*shape, self._steps(number), self.batch), np.float32)

    def _words(self, number: int, shape: Shape, planes: int = 1) -> Words:
        channels, *pixels = shape
        return np.empty((planes * ops.word_count(channels), *pixels, self._steps(number), self.batch), np.uint32)

    def _do(self, number: int, call: Call) -> None:
        (self._once if self._steady[number] else self._always).append(call)

    # ---- steps

    def _signal(self, number: int, step: Step) -> Signal:
        made: Signal = _PLANNED[type(step)](self, number, step)
        return made

    def _input(self, number: int, step: p.Input) -> Signal:
        return Signal((Written(self.input),))

    def _convolution(self, number: int, step: p.Convolution) -> Signal:
        (below,) = step.inputs
        trains = self._trains(below) if step.geometry.taps <= ops.MOST_TAPS else ()
        if not trains:
            return Signal((Written(self._convolve_values(number, step, self._final(below))),))
        if step.geometry.groups > 1:  # planes are channels of their own, which groups would tear apart
            trains = tuple(plane for train in trains for plane in train.split())
        bits = self.compiled.table_bits.get(number, 1)
        terms = []
        for k, train in enumerate(trains):
            weight, packed = self.compiled.weights(number, k, step, train)
            amplitude = 1.0 if isinstance(train.amplitude, np.ndarray) else train.amplitude
            bias = step.bias if k == 0 else None
            convolution = SpikeConvolution(train.words, weight, bias, amplitude, step.geometry, bits, packed=packed)
            terms.append(Convolved(convolution, step.shape))
            self.convolved.append((number, train))
        return Signal(tuple(terms))

    def _convolve_values(self, number: int, step: p.Convolution, values: Values) -> Values:
        out = self._floats(number, step.shape)
        if out.shape[3] == 1:
            flat, to = (array.reshape(*array.shape[:3], self.batch) for array in (values, out))
            self._do(number, prepared.conv2d(flat, step.weight, step.bias, step.geometry, to))
            return out
        if step.shape[1:] == (1, 1) and step.geometry.spread == (1, 1):
            self._do(number, prepared.conv2d_by_step(values, step.weight, step.bias, step.geometry, out))
            return out
        each, to = (np.empty((self.timesteps, *array.shape[:3], self.batch), np.float32) for array in (values, out))
        self._do(number, partial(np.copyto, each, np.moveaxis(values, 3, 0)))
        for t in range(self.timesteps):
            self._do(number, prepared.conv2d(each[t], step.weight, step.bias, step.geometry, to[t]))
        self._do(number, partial(np.copyto, out, np.moveaxis(to, 0, 3)))
        return out

    def _add(self, number: int, step: p.Sum) -> Signal:
        if len(step.inputs) == 1:
            (below,), (factor,) = step.inputs, step.factors
            signal = self._signals[below]
            terms = signal.terms if signal.scale is None else (Written(self._final(below)),)
            return Signal(terms, factor, np.zeros_like(factor) if step.bias is None else step.bias)
        terms = ()
        for below, factor in zip(step.inputs, step.factors, strict=True):
            signal = self._signals[below]
            if (factor != 1).any():
                terms += (Written(self._scaled(number, self._final(below), factor, None)),)
            else:
                terms += signal.terms if signal.scale is None else (Written(self._final(below)),)
        return Signal(terms) if step.bias is None else Signal(terms, np.ones_like(step.bias), step.bias)

    def _average(self, number: int, step: p.AveragePool) -> Signal:
        (below,) = step.inputs
        signal = self._signals[below]
        if signal.spikes:
            (train,) = signal.terms
            assert isinstance(train, Train)
            return Signal((Pooled(train, step),))
        out = self._floats(number, step.shape)
        self._do(number, prepared.avg_pool(self._final(below), step.windows, out))
        return Signal((Written(out),))

    def _largest(self, number: int, step: p.MaxPool) -> Signal:
        (below,) = step.inputs
        if step.amplitude is None:
            out = self._floats(number, step.shape)
            self._do(number, prepared.max_pool(self._final(below), step.windows, out))
            return Signal((Written(out),))
        words = self._words(number, step.shape)
        self._do(number, prepared.or_pool(self._words_of(below), step.windows, words))
        return self._spikes(step, words)

    def _upsample(self, number: int, step: p.Upsample) -> Signal:
        (below,) = step.inputs
        trains = self._trains(below)
        if not trains:
            out = self._floats(number, step.shape)
            self._do(number, prepared.repeat_pixels(self._final(below), step.factor, out))
            return Signal((Written(out),))
        terms = []
        for train in trains:
            words = self._words(number, step.shape, train.planes)
            self._do(number, prepared.repeat_pixels(train.words, step.factor, words))
            terms.append(replace(train, words=words))
        return Signal(tuple(terms), spikes=self._signals[below].spikes)

    def _concat(self, number: int, step: p.Concat) -> Signal:
        parts = [[plane for train in self._trains(below) for plane in train.split()] for below in step.inputs]
        if not all(parts):
            out, first = self._floats(number, step.shape), 0
            for below in step.inputs:
                values = self._final(below)
                self._do(number, partial(np.copyto, out[first : first + len(values)], values))
                first += len(values)
            return Signal((Written(out),))
        count, joined = max(map(len, parts)), []
        together = self._words(number, step.shape, count)
        for k, words in enumerate(np.split(together, count)):
            row = [trains[k] if k < len(trains) else _silent(trains[0]) for trains in parts]
            read, channels = [train.words for train in row], [train.channels for train in row]
            self._do(number, prepared.concat_words(read, channels, words))
            units = concatenated_units(channels, [train.amplitude for train in row])
            joined.append(Train(words, step.shape[0], units))
        if step.amplitude is not None:  # planes of graded spikes: amplitudes a, 2 a, 4 a, ... in each branch
            joined = [replace(joined[0], words=together, planes=count)]
        return Signal(tuple(joined), spikes=step.amplitude is not None)

    def _flatten(self, number: int, step: p.Flatten) -> Signal:
        (below,) = step.inputs
        if step.amplitude is None:
            values = self._final(below)
            return Signal((Written(values.reshape(*step.shape, *values.shape[3:])),))
        words, shape = self._words_of(below), self.compiled.program.steps[below].shape
        if shape[1:] == (1, 1):
            return self._spikes(step, words)
        values, packed = self._floats(number, shape), self._words(number, step.shape, step.planes)
        for plane, out in zip(np.split(words, step.planes), np.split(packed, step.planes), strict=True):
            self._do(number, prepared.unpack_words(plane, 1.0, values))
            self._do(number, prepared.pack_words(values.reshape(*step.shape, *values.shape[3:]), out))
        return self._spikes(step, packed)

    def _gate(self, number: int, step: p.Gate) -> Signal:
        train, gate = (self._words_of(below) for below in step.inputs)
        words = self._words(number, step.shape)
        if step.fires:
            self._do(number, partial(np.bitwise_and, train, gate, out=words))
        else:
            self._do(number, partial(np.bitwise_not, gate, out=words))
            self._do(number, partial(np.bitwise_and, train, words, out=words))
        return self._spikes(step, words)

    def _rectify(self, number: int, step: p.Rectify) -> Signal:
        (below,) = step.inputs
        values, out = self._final(below), self._floats(number, step.shape)
        self._do(number, partial(np.maximum, values, np.float32(0), out=out))
        return Signal((Written(out),))

    def _neurons(self, number: int, step: p.Neurons) -> Signal:
        (below,) = step.inputs
        signal, words = self._signals[below], self._words(number, step.shape, step.planes)
        potentials = None
        if self._potentials is not None:
            if number not in self._potentials:
                self._potentials[number] = ops.row_potentials(*step.shape, self.batch)
            potentials = self._potentials[number]
        arguments = step.model, signal.scale, signal.shift, words, potentials
        fused = None if below in self._sums else _one_convolution(signal.terms)
        if fused is not None:
            call = prepared.conv2d_neuron_spikes(fused, *arguments)
        else:
            call = prepared.neuron_steps(self._sum(below), *arguments)
        self._do(number, call)
        return self._spikes(step, words)

    @staticmethod
    def _spikes(step: Step, words: Words) -> Signal:
        assert step.amplitude is not None
        return Signal((Train(words, step.shape[0], step.amplitude, step.planes),), spikes=True)

    # ---- what a signal is made to

    def _words_of(self, number: int) -> Words:
        (train,) = self._signals[number].terms
        assert isinstance(train, Train)
        return train.words

    def _trains(self, number: int) -> tuple[Train, ...]:
        """The trains whose sum a step's signal is; none if it is anything else."""
        if number in self._pooled:
            return self._pooled[number]
        signal, trains = self._signals[number], list[Train]()
        if signal.scale is not None or not all(isinstance(term, Train | Pooled) for term in signal.terms):
            return ()
        for term in signal.terms:
            if isinstance(term, Train):
                trains.append(term)
            elif isinstance(term, Pooled):
                trains.extend(self._planes(number, term))
        self._pooled[number] = tuple(trains)
        return self._pooled[number]

    def _planes(self, number: int, term: Pooled) -> Sequence[Train]:
        """Trains of amplitudes a, 2 a, 4 a, ...: the digits of the spikes counted in each window."""
        train, size = term.train, prod(term.pool.kernel_size)
        shape = self._words(number, term.pool.shape).shape
        counts = []
        for plane in train.split():
            counts.append(np.empty((size.bit_length(), *shape), np.uint32))
            self._do(number, prepared.pool_planes(plane.words, term.pool.windows, counts[-1]))
        digits = counts[0]
        if train.planes > 1:
            digits = np.empty((((2**train.planes - 1) * size).bit_length(), *shape), np.uint32)
            self._do(number, partial(_sum_planes, counts, digits))
        amplitude = train.amplitude / size
        return [Train(words, train.channels, amplitude * 2**k) for k, words in enumerate(digits)]

    def _sum(self, number: int) -> Values:
        """The sum of the terms of a step's signal, without scale and shift."""
        if number not in self._sums:
            first, *others = self._signals[number].terms
            total = self._write(number, first, copied=bool(others))
            for term in others:
                if isinstance(term, Convolved) and total.shape[3] == self._steps(number):
                    self._do(number, prepared.conv2d_spikes(term.convolution, True, total))
                elif isinstance(term, Train) and term.planes == 1 and total.shape[3] == self._steps(number):
                    self._do(number, prepared.add_words(term.words, term.amplitude, total))
                else:
                    values = self._write(number, term)
                    out = np.empty(np.broadcast_shapes(total.shape, values.shape), np.float32)
                    self._do(number, partial(np.add, total, values, out=out))
                    total = out
            self._sums[number] = total
        return self._sums[number]

    def _write(self, number: int, term: Term, copied: bool = False) -> Values:
        """A term as values."""
        if isinstance(term, Written):
            if not copied:
                return term.array
            out = np.empty_like(term.array)
            self._do(number, partial(np.copyto, out, term.array))
        elif isinstance(term, Convolved):
            words = term.convolution.words
            out = np.empty((*term.shape, *words.shape[3:]), np.float32)
            self._do(number, prepared.conv2d_spikes(term.convolution, False, out))
        else:
            train = term.train if isinstance(term, Pooled) else term
            out = np.empty((train.channels, *train.words.shape[1:]), np.float32)
            for call in train.unpack(out):
                self._do(number, call)
            if isinstance(term, Pooled):
                values, out = out, np.empty((*term.pool.shape, *out.shape[3:]), np.float32)
                self._do(number, prepared.avg_pool(values, term.pool.windows, out))
        return out

    def _final(self, number: int) -> Values:
        """The values of a step's signal."""
        signal = self._signals[number]
        if signal.scale is None or signal.shift is None:
            return self._sum(number)
        if number not in self._finals:
            self._finals[number] = self._scaled(number, self._sum(number), signal.scale, signal.shift)
        return self._finals[number]

    def _handed_on(self, number: int) -> Signal:
        """A step's signal for other plans. Its terms stay apart, for they are added in their order."""
        signal = self._signals[number]
        return signal if signal.scale is None else Signal((Written(self._final(number)),))

    def _scaled(self, number: int, values: Values, scale: Values, shift: Values | None) -> Values:
        out = np.empty_like(values)
        self._do(number, prepared.affine(values, scale, np.zeros_like(scale) if shift is None else shift, out))
        return out


_PLANNED: dict[type[Step], Any] = {
    p.Input: Plan._input,
    p.Convolution: Plan._convolution,
    p.Sum: Plan._add,
    p.AveragePool: Plan._average,
    p.MaxPool: Plan._largest,
    p.Upsample: Plan._upsample,
    p.Concat: Plan._concat,
    p.Flatten: Plan._flatten,
    p.Gate: Plan._gate,
    p.Rectify: Plan._rectify,
    p.Neurons: Plan._neurons,
}


def _one_convolution(terms: tuple[Term, ...]) -> SpikeConvolution | None:
    """The terms as one convolution of spikes, to which spikes may be added; None if they are anything else."""
    match terms:
        case (Convolved() as convolved,):
            return convolved.convolution
        case (Convolved() as convolved, Train(planes=1) as added):
            return replace(convolved.convolution, shortcut=added.words, shortcut_amplitude=added.amplitude)
    return None


def _silent(train: Train) -> Train:
    return replace(train, words=np.zeros_like(train.words))


def _sum_planes(counts: Sequence[Words], out: Words) -> None:
    np.copyto(out, sum_planes(counts, len(out)))
