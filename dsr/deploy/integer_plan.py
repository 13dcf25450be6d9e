"""The compiled calls that do all steps of an integer network, for so many time steps and samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.deploy.integer_binder import Binder, Bound
from dsr.deploy.integer_engine import Engine
from dsr.deploy.integer_signals import Data, Planes, Signal, write_data
from dsr.ops import Integers, Potentials, Values, prepared
from dsr.ops.integers import NO_DECAY


class Sums:
    """The output of samples so far: sums over time, int64 (C, H, W, B), and what they are divided by, int64 (B,)."""

    def __init__(self, step: i.Step, batch: int) -> None:
        assert isinstance(step, i.ReadSpikes | i.ReadCurrent)
        self._unit = step.unit.astype(np.float64).reshape(-1, 1, 1, 1)
        self.total, self.count = np.zeros((*step.features, batch), np.int64), np.zeros(batch, np.int64)

    def rates(self) -> Values:
        """The output so far, (B, C, H, W); 0 of samples that have seen no step."""
        rates = self.total * self._unit / np.maximum(self.count, 1)
        return rates.transpose(3, 0, 1, 2).astype(np.float32, order="C")


class IntegerPlan:
    """The calls for `timesteps` steps of `batch` samples, on memory of their own, which is made once.

    Parameters
    ----------
    engine : Engine
        The network.
    timesteps, batch : int
        How many.
    held : bool
        The data are the same at all these steps, and are given once.
    potentials : dict or None
        Of the neurons, see `Binder`.
    """

    def __init__(
        self, engine: Engine, timesteps: int, batch: int, held: bool, potentials: dict[int, Potentials] | None
    ) -> None:
        source, last = engine.steps[0], engine.steps[-1]
        assert isinstance(source, i.Input) and isinstance(last, i.ReadSpikes | i.ReadCurrent)
        self.timesteps, self._source, self._last = timesteps, source, last
        self._values = np.empty((1 if held else timesteps, batch, *source.features), np.float32)
        self._data = np.zeros((*source.features, len(self._values), batch), np.int32)
        self._bound = Bound([], [])
        self._joined: Bound | None = None
        self._output: Values | Integers
        binder = Binder(engine, timesteps, potentials, self._bound)
        signals: list[Signal] = [Data(self._data)]
        for number in range(1, len(engine.steps) - 1):
            signals.append(binder.signal(number, signals))
        if isinstance(last, i.ReadSpikes):
            self._output = _unpacked(signals[last.source], self._bound)
        else:
            self._output = binder.rows(len(engine.steps) - 1, signals)

    def run(self, array: NDArray[Any], changed: bool) -> None:
        """Do all steps of data ``(B, *features)`` or ``(T, B, *features)``; if not `changed`, those of the last run."""
        if changed:
            write_data(array, self._source, self._values, self._data)
        if self._joined is None:
            self._joined = self._bound.run()
        else:
            self._joined.again(changed)

    def read(self, sums: Sums) -> None:
        """Add the output of the last run to the sums."""
        total, count = sums.total, sums.count
        if not isinstance(self._last, i.ReadSpikes):
            total += self._current()
            count += self.timesteps
        elif self._last.decay == NO_DECAY:
            total += self._output.sum(axis=3, dtype=np.float64).astype(np.int64)
            count += self.timesteps
        else:
            for t in range(self.timesteps):
                np.copyto(total, _next(total, self._last.decay) + (self._output[:, :, :, t].astype(np.int64) << 15))
                np.copyto(count, _next(count, self._last.decay) + (1 << 15))

    def _current(self) -> NDArray[np.int64]:
        """Summed over time."""
        channels, steps = self._last.features[0], self._output.shape[3]
        rows = self._output.sum(axis=3, dtype=np.int64) * (self.timesteps // steps)  # (ceil(C / 64), H, W, B, 64)
        values = rows.transpose(0, 4, 1, 2, 3).reshape(-1, *rows.shape[1:-1])[:channels]
        assert isinstance(self._last, i.ReadCurrent)
        return np.asarray(values + self.timesteps * self._last.bias.astype(np.int64).reshape(-1, 1, 1, 1))


def _next(sums: NDArray[np.int64], decay: int) -> NDArray[np.int64]:
    return sums * decay + (1 << 14) >> 15


def _unpacked(signal: Signal, bound: Bound) -> Values:
    """Memory for the numbers of a signal, (C, H, W, T, B), which the calls fill."""
    assert isinstance(signal, Planes)
    lowest, *others = signal.planes
    values = np.empty((signal.channels, *lowest.shape[1:]), np.float32)
    bound.of_steps.append(prepared.unpack_words(lowest, 1.0, values))
    bound.of_steps.extend(prepared.add_words(words, 2.0**k, values) for k, words in enumerate(others, 1))
    return values
