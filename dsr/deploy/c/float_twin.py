"""What exported float code computes, in NumPy: the same arithmetic in the same order, so the same bits."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.c.float_order import amplitudes, compute, geometry, rows
from dsr.deploy.c.storage import Storage, is_spikes
from dsr.deploy.c.vector import Bits
from dsr.deploy.c.windows import seen
from dsr.deploy.program import AveragePool, Convolution, Gate, MaxPool, Neurons, Pool, Program, Step, Sum, Upsample
from dsr.ops import Values


class FloatTwin:
    """A network and its state.

    Parameters
    ----------
    program : Program
        What is exported.
    storage : Storage
        As it is exported, which decides the order of sums.

    Attributes
    ----------
    spikes : dict of int to ndarray of bool, shape (C, H, W)
        Those of the last time step, by the number of their step.
    """

    def __init__(self, program: Program, storage: Storage) -> None:
        self.program, self.storage = program, storage
        self.rows = {
            i: rows(step, program.steps[step.inputs[0]])
            for i, step in enumerate(program.steps)
            if isinstance(step, Convolution)
        }
        self.reset()

    def reset(self) -> None:
        """All potentials 0, nothing read out."""
        steps = self.program.steps
        self.potentials = {i: np.zeros(steps[i].shape, np.float32) for i in self.storage.potentials}
        self.spikes: dict[int, Bits] = {}
        self.values: dict[int, Values] = {}
        self.sums = np.zeros(steps[-1].shape, np.float32)
        self.weight = np.float32(0)

    def step(self, frame: Values) -> Values:
        """The rates after one more time step, (C, H, W), for a frame of the shape of a sample."""
        steps = self.program.steps
        self.values[0] = frame.reshape(steps[0].shape).astype(np.float32)
        for number in (*self.storage.once, *self.storage.each_step):
            self.current: Values = np.zeros(0, np.float32)
            compute(self.program, self.storage, number, self)
            if not is_spikes(steps[number]):
                self.values[number] = self.current
        last = len(steps) - 1
        output = self.spikes[last].astype(np.float32) if is_spikes(steps[last]) else self.values[last]
        if self.program.leak:
            decay = np.float32(exp(-self.program.leak))
            self.sums, self.weight = decay * self.sums + output, decay * self.weight + np.float32(1)
        else:
            self.sums, self.weight = self.sums + output, self.weight + np.float32(1)
        if is_spikes(steps[last]):
            heights = np.broadcast_to(amplitudes(steps[last], None), steps[last].shape[0])
            return heights.reshape(-1, 1, 1) * self.sums / self.weight
        return self.sums / self.weight

    @property
    def fired(self) -> dict[int, Bits]:
        """Spikes of the layers of neurons at the last time step."""
        return {i: self.spikes[i] for i in self.potentials}

    # ---- kernels

    def clear(self, channels: int) -> None:
        """See `Kernels`, as for the others."""
        self._channels = channels

    def _part(self, number: int, first: int) -> Values:
        """The current of the channels of a step, made where there is none."""
        step = self.program.steps[number]
        if not self.current.size:
            self.current = np.zeros((self._channels, *step.shape[1:]), np.float32)
        return self.current[first : first + step.shape[0]]

    def convolve(self, number: int, first: int) -> None:
        """Tap by tap, channel by channel."""
        step, current = self.program.steps[number], self._part(number, first)
        assert isinstance(step, Convolution)
        source = step.inputs[0]
        spiking = is_spikes(self.program.steps[source])
        image = self.spikes[source] if spiking else self.values[source]
        inner, outer = step.weight.shape[1], len(step.weight) // step.geometry.groups
        weight = self.rows[number]
        for tap in range(step.geometry.taps):
            values, valid = seen(image, geometry(step), step.shape[1:], tap)
            for c in range(len(image)):
                part = current[c // inner * outer : (c // inner + 1) * outer]
                row = weight[tap, c].reshape(-1, 1, 1)
                if spiking:
                    np.add(part, row, out=part, where=values[c] & valid)
                else:
                    np.add(part, values[c] * row, out=part, where=(values[c] != 0) & valid)

    def bias(self, number: int, first: int) -> None:
        """By channel."""
        step, current = self.program.steps[number], self._part(number, first)
        assert isinstance(step, Convolution | Sum) and step.bias is not None
        current += step.bias.reshape(-1, 1, 1)

    def pool(self, number: int, first: int) -> None:
        """Tap by tap."""
        step, current = self.program.steps[number], self._part(number, first)
        assert isinstance(step, Pool)
        source = self.program.steps[step.inputs[0]]
        taps = np.float32(step.kernel_size[0] * step.kernel_size[1])
        if is_spikes(source):
            count = sum(found & valid for found, valid in self._windows(step, self.spikes[step.inputs[0]]))
            heights = np.broadcast_to(amplitudes(source, None), source.shape[0]).reshape(-1, 1, 1)
            current += np.asarray(count, np.float32) * heights / taps
            return
        windows = list(self._windows(step, self.values[step.inputs[0]]))
        if isinstance(step, AveragePool):
            total = np.zeros(step.shape, np.float32)
            for found, valid in windows:
                np.add(total, found, out=total, where=np.broadcast_to(valid, total.shape))
            current += total / taps
        else:
            current += np.max([np.where(valid, found, -np.inf) for found, valid in windows], axis=0).astype(np.float32)

    def _windows(self, step: Pool, image: NDArray[Any]) -> Any:
        kernel_h, kernel_w = step.kernel_size
        for tap in range(kernel_h * kernel_w):
            yield seen(image, geometry(step), step.shape[1:], tap)

    def repeat(self, number: int, first: int) -> None:
        """Repeated pixels."""
        step, current = self.program.steps[number], self._part(number, first)
        current += _repeated(step, self.values[step.inputs[0]])

    def flatten(self, number: int, first: int) -> None:
        """As the array lies."""
        step, current = self.program.steps[number], self._part(number, first)
        current += self.values[step.inputs[0]].reshape(step.shape)

    def add(self, number: int, factor: Values | None, first: int) -> None:
        """Spikes or values."""
        step, current = self.program.steps[number], self._part(number, first)
        if is_spikes(step):
            heights = np.broadcast_to(amplitudes(step, factor), step.shape[0]).reshape(-1, 1, 1)
            np.add(current, heights, out=current, where=self.spikes[number])
        else:
            values = self.values[number]
            current += values if factor is None else factor.reshape(-1, 1, 1) * values

    def scale(self, factor: Values, first: int) -> None:
        """By channel."""
        self.current[first : first + len(factor)] *= factor.reshape(-1, 1, 1)

    def fire(self, number: int) -> None:
        """A step."""
        step = self.program.steps[number]
        assert isinstance(step, Neurons)
        model, v, x = step.model, self.potentials[number], self.current
        fire, threshold = (np.float32(n).reshape(-1, 1, 1) for n in (model.fire, model.v_threshold))
        leaky = model.decay != 1 or model.gain != 1
        u = np.float32(model.decay) * v + np.float32(model.gain) * x if leaky else v + x
        self.spikes[number] = u >= fire
        self.potentials[number] = np.where(self.spikes[number], u - threshold, u)

    def move_spikes(self, number: int, part: int, first: int) -> None:
        """Spikes of an input, at their new places."""
        step = self.program.steps[number]
        spikes = self.spikes[step.inputs[part]]
        if part == 0:
            self.spikes[number] = np.zeros(step.shape, bool)
        match step:
            case MaxPool():
                moved = np.any([found & valid for found, valid in self._windows(step, spikes)], axis=0)
            case Upsample():
                moved = _repeated(step, spikes)
            case Gate():
                moved = spikes & (self.spikes[step.inputs[1]] == step.fires)
            case _:  # Concat and Flatten
                moved = spikes.reshape(-1, *step.shape[1:])
        self.spikes[number][first : first + len(moved)] = moved


def _repeated(step: Step, array: NDArray[Any]) -> NDArray[Any]:
    assert isinstance(step, Upsample)
    return array.repeat(step.factor[0], axis=1).repeat(step.factor[1], axis=2)
