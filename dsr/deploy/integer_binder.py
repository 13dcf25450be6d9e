"""Binds the steps of an integer network to compiled calls on memory of their own, many samples and steps at once.

What is computed is said in `dsr.deploy.integer_steps`; nothing here rounds, and no number depends on how the work is
cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from dsr import ops
from dsr.deploy import integer_steps as i
from dsr.deploy.integer_engine import Engine, PackedTerm
from dsr.deploy.integer_signals import Data, Planes, Signal, batch_of
from dsr.ops import Geometry, Integers, PackedWeights, Potentials, Words, integers, prepared, prepared_integers
from dsr.ops.prepared import Call

WORTH_A_TABLE = 512
"""Outputs of a tile of 4x4 pixels from which on it is worth the time to make a table of sums of its weights."""


class Adding:
    """A convolution of spikes; whether weights are added one by one or looked up in tables of sums is chosen later.

    The sums are the same either way.

    Parameters
    ----------
    words : ndarray of uint32
        The spikes.
    geometry : Geometry
        Its taps.
    bind : callable
        From table bits to the calls.
    """

    def __init__(self, words: Words, geometry: Geometry, bind: Callable[[int], list[Call]]) -> None:
        self.words, self.geometry, self.bind = words, geometry, bind

    def chosen(self) -> list[Call]:
        """The calls that are fastest at the rate of the spikes that are in memory now."""
        _, height, width, timesteps, batch = self.words.shape
        if min(height * width, 16) * timesteps * batch < WORTH_A_TABLE:
            return self.bind(1)
        rate = ops.count_bits(self.words) / (32 * self.words.size) if self.words.size else 0.0
        return self.bind(ops.best_table_bits(rate, self.geometry.taps))


@dataclass(frozen=True, eq=False)
class Bound:
    """Calls in order: those `of_data` are made only when the data have changed, those `of_steps` in every run."""

    of_data: list[Call]
    of_steps: list[Call | Adding]

    def run(self) -> Bound:
        """Make all calls for the first time, and return the same joined to few calls, for all other runs."""
        for call in self.of_data:
            call()
        made: list[Call] = []
        for each in self.of_steps:
            calls = each.chosen() if isinstance(each, Adding) else [each]
            for call in calls:
                call()
            made += calls
        return Bound(prepared.join(self.of_data), [*prepared.join(made)])

    def again(self, changed: bool) -> None:
        """Make all calls, or, where the data have not changed, those of steps only."""
        for call in [*self.of_data, *self.of_steps] if changed else self.of_steps:
            assert not isinstance(call, Adding)
            call()


@dataclass(frozen=True, eq=False)
class _Convolved:
    """A term of a current: the convolution of a plane of spikes, times ``2**shift``."""

    words: Words
    packed: PackedWeights
    shift: int


class Binder:
    """Makes the calls of steps, and the memory of what they write.

    Parameters
    ----------
    engine : Engine
        The steps.
    timesteps : int
        How many.
    potentials : dict or None
        Of the neurons by their step; those that are missing are added, as 0. None: they begin at 0 in each call, and
        are not kept.
    bound : Bound
        Where the calls go.
    """

    def __init__(self, engine: Engine, timesteps: int, potentials: dict[int, Potentials] | None, bound: Bound) -> None:
        self.engine, self.timesteps, self.potentials, self.bound = engine, timesteps, potentials, bound

    def signal(self, number: int, signals: Sequence[Signal]) -> Signal:
        """What a step writes, given what the earlier ones write."""
        step = self.engine.steps[number]
        if isinstance(step, i.Neurons):
            return self._neurons(number, step, signals)
        read = [signals[source] for source in step.reads]
        first = read[0]
        if isinstance(step, i.Concat):
            return self._concat(read)
        if isinstance(first, Data):
            return self._moved_data(step, first)
        if isinstance(step, i.Pool):
            return self._pool(step, first)
        if isinstance(step, i.Flatten):
            return self._flatten(step, first)
        if isinstance(step, i.Upsample):
            return self._each(first, first.channels, partial(self._upsample, step))
        assert isinstance(step, i.Gate), type(step)
        gate = read[1]
        assert isinstance(gate, Planes)
        return self._each(first, first.channels, partial(self._gate, step, gate.planes[0]))

    def rows(self, number: int, signals: Sequence[Signal]) -> Integers:
        """The current of a step without its bias, as rows (ceil(O / 64), H, W, T or 1, B, 64)."""
        step = self.engine.steps[number]
        found, values, _ = self._terms(number, signals, shortcuts=False)
        rows = self._sum(step.features, found, values, signals)
        return integers.new_rows(*step.features, 1, batch_of(signals[0])) if rows is None else rows

    def _do(self, call: Call | Adding) -> None:
        self.bound.of_steps.append(call)

    # ---- neurons

    def _neurons(self, number: int, step: i.Neurons, signals: Sequence[Signal]) -> Signal:
        found, values, shortcut = self._terms(number, signals, shortcuts=True)
        (channels, height, width), batch = step.features, batch_of(signals[0])
        neurons = ops.IntegerNeurons(step.bias, step.reset, step.fire, step.decay)
        v = None
        if self.potentials is not None:
            v = self.potentials.setdefault(number, neurons.new_potentials(height, width, batch))
        out = np.empty((ops.word_count(channels), height, width, self.timesteps, batch), np.uint32)
        written = Planes((out,), channels)
        if len(values) == 1 and not found and (self.timesteps > 1 or values[0][1].shape[3] > 1):
            ((term, array),) = values
            convolved = array, term.packed, term.shift
            self._do(prepared_integers.conv2d_value_neuron_spikes(*convolved, neurons, shortcut, v, out))
            return written
        nothing = _Convolved(np.empty((0, *out.shape[1:]), np.uint32), PackedWeights.none(channels), 0)
        last = found.pop() if found else nothing
        if len(last.packed.parts) > 1:  # neurons read the sums of the last part directly
            found.append(_Convolved(last.words, last.packed.without_last(), last.shift))
        current = self._sum(step.features, found, values, signals)

        def bind(bits: int) -> list[Call]:
            read = ops.IntegerInput(last.words, last.packed, last.shift, bits, *(shortcut or (None, None)))
            return [prepared_integers.conv2d_neuron_spikes(read, neurons, current, v, out)]

        self._do(Adding(last.words, last.packed.geometry, bind))
        return written

    def _terms(
        self, number: int, signals: Sequence[Signal], shortcuts: bool
    ) -> tuple[list[_Convolved], list[tuple[PackedTerm, Integers]], tuple[Words, Integers] | None]:
        """Convolutions of spikes and of the data, and spikes that neurons add as they are, of which there is one."""
        found, values, shortcut = list[_Convolved](), list[tuple[PackedTerm, Integers]](), None
        for term in self.engine.terms[number]:
            signal = signals[term.source]
            if isinstance(signal, Data):
                values.append((term, signal.array))
            elif shortcuts and shortcut is None and term.added is not None and len(signal.planes) == 1:
                shortcut = signal.planes[0], term.added
            else:
                found += [_Convolved(words, term.packed, term.shift + k) for k, words in enumerate(signal.planes)]
        return found, values, shortcut

    def _sum(
        self,
        features: i.Shape,
        found: Sequence[_Convolved],
        values: Sequence[tuple[PackedTerm, Integers]],
        signals: Sequence[Signal],
    ) -> Integers | None:
        """Rows, as of `rows`, to which convolutions are added up; None: there is no convolution."""
        of_data = None
        if values:
            steps, batch = max(array.shape[3] for _, array in values), batch_of(signals[0])
            of_data = integers.new_rows(*features, steps, batch)
            self.bound.of_data.append(partial(of_data.fill, 0))
            for term, array in values:
                self.bound.of_data.append(prepared_integers.conv2d(array, term.packed, term.shift, of_data))
        if not found:
            return of_data
        rows = integers.new_rows(*features, *found[0].words.shape[3:])
        self._do(partial(np.copyto, rows, np.int32(0) if of_data is None else of_data))
        for each in found:
            bind = partial(_added, each, rows)
            self._do(Adding(each.words, each.packed.geometry, bind))
        return rows

    # ---- spikes and counts

    def _each(self, signal: Planes, channels: int, bind: Callable[[Words], Words]) -> Planes:
        return Planes(tuple(map(bind, signal.planes)), channels)

    def _pool(self, step: i.Pool, signal: Planes) -> Planes:
        (words,), windows = signal.planes, (step.kernel_size, step.stride, step.padding)
        shape = len(words), *step.features[1:], *words.shape[3:]
        if step.largest:
            out = np.empty(shape, np.uint32)
            self._do(prepared.or_pool(words, windows, out))
            return Planes((out,), signal.channels)
        planes = np.empty((prod(step.kernel_size).bit_length(), *shape), np.uint32)
        self._do(prepared.pool_planes(words, windows, planes))
        return Planes(tuple(planes), signal.channels)

    def _flatten(self, step: i.Flatten, signal: Planes) -> Planes:
        if signal.planes[0].shape[1:3] == (1, 1):
            return signal
        shape = signal.planes[0].shape[1:]
        values = np.empty((signal.channels, *shape), np.float32)

        def bind(words: Words) -> Words:
            out = np.empty((ops.word_count(step.features[0]), 1, 1, *shape[2:]), np.uint32)
            self._do(prepared.unpack_words(words, 1.0, values))
            self._do(prepared.pack_words(values.reshape(step.features[0], 1, 1, *shape[2:]), out))
            return out

        return self._each(signal, step.features[0], bind)

    def _upsample(self, step: i.Upsample, words: Words) -> Words:
        _, height, width, *inner = words.shape
        out = np.empty((len(words), height * step.factor[0], width * step.factor[1], *inner), np.uint32)
        self._do(prepared.repeat_pixels(words, step.factor, out))
        return out

    def _gate(self, step: i.Gate, gate: Words, words: Words) -> Words:
        out = np.empty_like(words)
        if step.negated:
            self._do(partial(np.invert, gate, out=out))
            self._do(partial(np.bitwise_and, words, out, out=out))
        else:
            self._do(partial(np.bitwise_and, words, gate, out=out))
        return out

    def _concat(self, read: Sequence[Signal]) -> Signal:
        data = [signal.array for signal in read if isinstance(signal, Data)]
        if data:
            joined = np.concatenate(data)
            self.bound.of_data.append(partial(np.concatenate, data, out=joined))
            return Data(joined)
        parts = [signal for signal in read if isinstance(signal, Planes)]
        channels, planes = [part.channels for part in parts], []
        for k in range(max(len(part.planes) for part in parts)):
            words = [part.planes[k] if k < len(part.planes) else np.zeros_like(part.planes[0]) for part in parts]
            planes.append(np.empty((ops.word_count(sum(channels)), *words[0].shape[1:]), np.uint32))
            self._do(prepared.concat_words(words, channels, planes[-1]))
        return Planes(tuple(planes), sum(channels))

    def _moved_data(self, step: i.Step, signal: Data) -> Data:
        if isinstance(step, i.Flatten):
            return Data(signal.array.reshape(step.features[0], 1, 1, *signal.array.shape[3:]))
        assert isinstance(step, i.Upsample), type(step)
        out = np.empty((*step.features, *signal.array.shape[3:]), np.int32)
        self.bound.of_data.append(prepared.repeat_pixels(signal.array, step.factor, out))
        return Data(out)


def _added(each: _Convolved, rows: Integers, bits: int) -> list[Call]:
    return prepared_integers.conv2d_spikes(each.words, each.packed, each.shift, bits, rows)


def signal_of(
    engine: Engine, number: int, signals: Sequence[Signal], timesteps: int, potentials: dict[int, Potentials]
) -> Signal:
    """Compute what a step writes, given what the earlier ones wrote; potentials that are missing begin at 0."""
    bound = Bound([], [])
    signal = Binder(engine, timesteps, potentials, bound).signal(number, signals)
    bound.run()
    return signal
