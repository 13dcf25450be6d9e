"""Runs the steps of an integer network on this machine, many samples and time steps at once.

A signal is held as `Planes`, the bits of its numbers as words, or as `Data`. Weights are packed once. What is computed
is said in `dsr.deploy.integer_steps`; nothing here rounds, and no number depends on how the work is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.deploy import integer_steps as i
from dsr.ops import Geometry, Integers, PackedWeights, Potentials, Values, Words, integers
from dsr.ops.integers import NO_DECAY


@dataclass(frozen=True, eq=False)
class Planes:
    """Spikes or counts: plane k has bit k of the numbers, as words (ceil(C / 32), H, W, T, B)."""

    planes: tuple[Words, ...]
    channels: int

    def numbers(self) -> Integers:
        """Unpacked, (C, H, W, T, B)."""
        parts = [ops.unpack_words(words, self.channels, 2.0**k) for k, words in enumerate(self.planes)]
        return np.asarray(sum(parts[1:], parts[0])).astype(np.int32)

    def each(self, function: Callable[[Words], Words], channels: int | None = None) -> Planes:
        """The same done to every plane."""
        return Planes(tuple(map(function, self.planes)), self.channels if channels is None else channels)


@dataclass(frozen=True, eq=False)
class Data:
    """The data, (C, H, W, T or 1, B); of one step: the same at each."""

    array: Integers

    def numbers(self) -> Integers:
        """The array."""
        return self.array


Signal = Planes | Data


class State:
    """What is kept from one time step to the next: potentials, and what the output is read from."""

    def __init__(self) -> None:
        self.potentials: dict[int, Potentials] = {}
        self.total: NDArray[np.int64] | None = None  # (C, H, W, B)
        self.count: NDArray[np.int64] | None = None  # (B,), what `total` is divided by
        self.of_data: dict[int, tuple[tuple[Signal, ...], Integers]] = {}  # rows of a step, and the data they are of

    def selected(self, samples: NDArray[np.integer[Any]]) -> State:
        """The state of some of the samples."""
        other = State()
        other.potentials = {number: p.take(samples, 3) for number, p in self.potentials.items()}
        if self.total is not None and self.count is not None:
            other.total, other.count = self.total.take(samples, 3), self.count[samples]
        return other

    def forget(self, samples: NDArray[np.integer[Any]]) -> None:
        """Begin anew with these samples: their potentials and what was read are 0."""
        for potentials in self.potentials.values():
            potentials[:, :, :, samples] = 0
        if self.total is not None and self.count is not None:
            self.total[..., samples] = 0
            self.count[samples] = 0


class Engine:
    """The steps of an integer network, ready to run; threads may share it.

    Parameters
    ----------
    steps : sequence of Step
        From `dsr.deploy.quantization`, in order.
    """

    def __init__(self, steps: Sequence[i.Step]) -> None:
        self.steps: list[i.Step] = []
        self.terms: list[tuple[_Term, ...]] = []
        for step in steps:
            self.append(step)

    def append(self, step: i.Step) -> None:
        """Get one more step ready."""
        self.steps.append(step)
        self.terms.append(_prepare(step, self.steps))

    def run(self, data: Data, timesteps: int, state: State) -> None:
        """All steps for so many time steps, after which `state` has what `rates` reads."""
        signals: list[Signal] = [data]
        for number in range(1, len(self.steps) - 1):
            signals.append(self.signal(number, signals, timesteps, state))
        self._read(signals, timesteps, state)

    def signal(self, number: int, signals: Sequence[Signal], timesteps: int, state: State) -> Signal:
        """What a step writes, given what the earlier ones wrote."""
        step = self.steps[number]
        if isinstance(step, i.Neurons):
            return self._neurons(number, step, signals, timesteps, state)
        read = [signals[source] for source in step.reads]
        first = read[0]
        if isinstance(step, i.Pool):
            assert isinstance(first, Planes)
            return _pooled(step, first)
        if isinstance(step, i.Gate):
            spikes, by = (signal for signal in read if isinstance(signal, Planes))
            fires = ~by.planes[0] if step.negated else by.planes[0]
            return spikes.each(lambda words: words & fires)
        if isinstance(step, i.Flatten):
            return _flattened(step, first)
        if isinstance(step, i.Upsample):
            down, across = step.factor
            if isinstance(first, Planes):
                return first.each(lambda words: words.repeat(down, axis=1).repeat(across, axis=2))
            return Data(first.array.repeat(down, axis=1).repeat(across, axis=2))
        assert isinstance(step, i.Concat), type(step)
        return _joined(read)

    def _neurons(self, number: int, step: i.Neurons, signals: Sequence[Signal], timesteps: int, state: State) -> Signal:
        current = _Current(number, step.features, timesteps, state)
        shortcut = None
        for term in self.terms[number]:
            signal = signals[term.source]
            if shortcut is None and term.added is not None and isinstance(signal, Planes) and len(signal.planes) == 1:
                shortcut = signal.planes[0], term.added
            else:
                current.add(term, signal)
        words, packed, shift = current.last(signals[step.reads[0]])
        read = ops.IntegerInput(words, packed, shift, _table_bits(words, packed), *(shortcut or (None, None)))
        if number not in state.potentials:
            state.potentials[number] = self._neuron_numbers(step).new_potentials(*step.features[1:], words.shape[4])
        out = ops.integer_conv2d_neuron_spikes(
            read, self._neuron_numbers(step), current.rows(), state.potentials[number]
        )
        return Planes((out,), step.features[0])

    @staticmethod
    def _neuron_numbers(step: i.Neurons) -> ops.IntegerNeurons:
        return ops.IntegerNeurons(step.bias, step.reset, step.fire, step.decay)

    def _read(self, signals: Sequence[Signal], timesteps: int, state: State) -> None:
        step = self.steps[-1]
        if isinstance(step, i.ReadSpikes):
            values, decay = signals[step.source].numbers().astype(np.int64), step.decay
        else:
            values, decay = self.current(len(self.steps) - 1, signals, timesteps, state).astype(np.int64), NO_DECAY
        if state.total is None or state.count is None:
            state.total = np.zeros((*values.shape[:3], values.shape[4]), np.int64)
            state.count = np.zeros(values.shape[4], np.int64)
        if decay == NO_DECAY:
            state.total += values.sum(axis=3) if values.shape[3] == timesteps else values[:, :, :, 0] * timesteps
            state.count += timesteps
            return
        for t in range(timesteps):
            state.total = (state.total * decay + (1 << 14) >> 15) + (values[:, :, :, t] << 15)
            state.count = (state.count * decay + (1 << 14) >> 15) + (1 << 15)

    def current(self, number: int, signals: Sequence[Signal], timesteps: int, state: State) -> Integers:
        """The current of a step, (C, H, W, T or 1, B)."""
        step = self.steps[number]
        assert isinstance(step, i.Neurons | i.ReadCurrent)
        current = _Current(number, step.features, timesteps, state)
        for term in self.terms[number]:
            current.add(term, signals[term.source])
        return current.values(signals[step.reads[0]]) + step.bias.reshape(-1, 1, 1, 1, 1)

    def rates(self, state: State) -> NDArray[np.float32]:
        """The output so far, (B, C, H, W)."""
        step = self.steps[-1]
        assert isinstance(step, i.ReadSpikes | i.ReadCurrent) and state.total is not None and state.count is not None
        scaled = state.total.astype(np.float64) * step.unit.astype(np.float64).reshape(-1, 1, 1, 1)
        return np.ascontiguousarray(np.moveaxis(scaled / state.count.astype(np.float64), -1, 0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Term:
    """A term of a current with its weights packed."""

    source: int
    packed: PackedWeights | None  # None: it reads the data
    shift: int
    weight: Values  # of the data, as floats
    geometry: Geometry
    added: Integers | None  # weights of what is added as it is


def _prepare(step: i.Step, steps: Sequence[i.Step]) -> tuple[_Term, ...]:
    """The terms of a step; none where it has no current."""
    if not isinstance(step, i.Neurons | i.ReadCurrent):
        return ()
    data = i.data_steps(steps)
    found = []
    for term in step.terms:
        channels = steps[term.source].features[0]
        if isinstance(term, i.Taps):
            wide, geometry, shift, added = term.weight.astype(np.int64), term.geometry, term.shift, None
        else:
            wide, added = term.weight.reshape(-1, 1, 1, 1).astype(np.int64), term.weight
            geometry, shift = Geometry((1, 1), groups=channels), 0
        packed = None if data[term.source] else ops.pack_integers(wide, geometry, channels)
        found.append(_Term(term.source, packed, shift, wide.astype(np.float32), geometry, added))
    return tuple(found)


class _Current:
    """A current while it is added up: convolutions of spikes are kept back, so that neurons may do the last one."""

    def __init__(self, number: int, features: i.Shape, timesteps: int, state: State) -> None:
        self.number, self.features, self.timesteps, self.state = number, features, timesteps, state
        self._data: list[tuple[_Term, Data]] = []
        self._waiting: list[tuple[Words, PackedWeights, int]] = []

    def add(self, term: _Term, signal: Signal) -> None:
        """Add a term."""
        if isinstance(signal, Planes):
            assert term.packed is not None
            self._waiting += [(words, term.packed, term.shift + k) for k, words in enumerate(signal.planes)]
            return
        self._data.append((term, signal))

    def last(self, signal: Signal) -> tuple[Words, PackedWeights, int]:
        """A convolution that is left to the neurons; one of nothing where there is none."""
        if self._waiting:
            return self._waiting.pop()
        channels, height, width = self.features
        batch = signal.array.shape[4] if isinstance(signal, Data) else signal.planes[0].shape[4]
        nothing = np.empty((0, height, width, self.timesteps, batch), np.uint32)
        return nothing, PackedWeights.none(channels), 0

    def rows(self) -> Integers | None:
        """The sum of what was added and not left to the neurons; None: 0."""
        dense = self._of_data()
        if not self._waiting:
            return dense
        batch = self._waiting[0][0].shape[4]
        rows = integers.new_rows(*self.features, self.timesteps, batch)
        if dense is not None:
            rows += dense
        for words, packed, shift in self._waiting:
            ops.integer_conv2d_spikes(words, packed, shift, _table_bits(words, packed), rows)
        return rows

    def _of_data(self) -> Integers | None:
        """The terms that read the data, as rows; of data that are the same as at the last step they are still there."""
        if not self._data:
            return None
        signals = tuple(signal for _, signal in self._data)
        kept, rows = self.state.of_data.get(self.number, ((), None))
        if rows is None or any(a is not b for a, b in zip(kept, signals, strict=True)):
            sums = [shifted(exact_convolution(s.array, t.weight, t.geometry), t.shift) for t, s in self._data]
            rows = integers.rows_of(sum(sums[1:], sums[0]))
            self.state.of_data[self.number] = signals, rows
        return rows

    def values(self, signal: Signal) -> Integers:
        """The sum of all terms, (C, H, W, T or 1, B)."""
        rows = self.rows()
        if rows is None:
            batch = signal.numbers().shape[4]
            return np.zeros((*self.features, 1, batch), np.int32)
        return integers.values_of(rows, self.features[0])


def _table_bits(words: Words, packed: PackedWeights) -> int:
    """What is fastest; the sums are the same."""
    rate = ops.count_bits(words) / (32 * words.size) if words.size else 0.0
    return ops.best_table_bits(rate, packed.geometry.taps)


def _pooled(step: i.Pool, signal: Planes) -> Planes:
    words, windows = signal.planes[0], (step.kernel_size, step.stride, step.padding)
    if step.largest:
        return Planes((ops.or_pool(words, *windows),), signal.channels)
    return Planes(tuple(ops.pool_planes(words, *windows)), signal.channels)


def _flattened(step: i.Flatten, signal: Signal) -> Signal:
    if isinstance(signal, Data):
        return Data(signal.array.reshape(step.features[0], 1, 1, *signal.array.shape[3:]))
    if signal.planes[0].shape[1:3] == (1, 1):
        return signal

    def flat(words: Words) -> Words:
        values = ops.unpack_words(words, signal.channels)
        return ops.pack_words(values.reshape(step.features[0], 1, 1, *values.shape[3:]))

    return signal.each(flat, step.features[0])


def _joined(read: Sequence[Signal]) -> Signal:
    data = [signal.array for signal in read if isinstance(signal, Data)]
    if data:
        return Data(np.concatenate(data))
    parts = [signal for signal in read if isinstance(signal, Planes)]
    channels, planes = [part.channels for part in parts], []
    for k in range(max(len(part.planes) for part in parts)):
        words = [part.planes[k] if k < len(part.planes) else np.zeros_like(part.planes[0]) for part in parts]
        planes.append(ops.concat_words(words, channels))
    return Planes(tuple(planes), sum(channels))


def exact_convolution(values: Integers, weight: Values, geometry: Geometry) -> Integers:
    """Convolution of the data (C, H, W, T, B) with integers (as floats), by products of floats that are exact.

    The data are cut into digits so small that all partial sums, in whatever order they are taken, are integers below
    2**24, which float32 holds. Sums are modulo 2**32. EXACT.
    """
    widest = int(np.abs(weight).sum(axis=(1, 2, 3), dtype=np.float64).max(initial=1))
    bits = (2**24 // max(widest, 1)).bit_length() - 1
    if bits < 1:
        raise ValueError(f"exact_convolution: argument 'weight': expected sums below 2**23 of channels, got {widest}")
    flat, base = values.reshape(*values.shape[:3], -1), 2**bits
    if np.abs(flat).max(initial=0) < base:
        total = ops.conv2d(flat.astype(np.float32), weight, None, geometry).astype(np.int32)
    else:
        low = np.fmod(flat, base)  # of the sign of the number
        rest = exact_convolution((flat - low) // base, weight, geometry)
        total = ops.conv2d(low.astype(np.float32), weight, None, geometry).astype(np.int32) + rest * np.int32(base)
    return total.reshape(*total.shape[:3], *values.shape[3:])


def shifted(sums: Integers, shift: int) -> Integers:
    """``sums 2**shift``, rounded to the nearest, halves up; in place."""
    if shift < 0:
        sums += np.int32(1 << (-shift - 1))
        sums >>= np.int32(-shift)
    else:
        sums <<= np.int32(shift)
    return sums
