"""What exported integer code computes, in NumPy, written from what `dsr.deploy.integer_steps` says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.deploy.c.vector import Bits
from dsr.deploy.c.windows import of_pool, seen
from dsr.ops import Geometry, Values
from dsr.ops.integers import NO_DECAY

Longs = NDArray[np.int64]


class Int8Twin:
    """A network and its state.

    Parameters
    ----------
    steps : sequence of Step
        Of an `IntegerModel`.
    """

    def __init__(self, steps: Sequence[i.Step]) -> None:
        self.steps = steps
        self.potentials = {
            number: np.zeros(step.features, np.int64)
            for number, step in enumerate(steps)
            if isinstance(step, i.Neurons)
        }
        self.signals: list[Longs] = []
        self.sums = np.zeros(steps[-1].features, np.int64)
        self.weight = 0

    @property
    def fired(self) -> dict[int, Bits]:
        """Spikes of the layers of neurons at the last time step."""
        return {number: self.signals[number] != 0 for number in self.potentials}

    def step(self, frame: Values) -> Values:
        """The rates after one more time step, (C, H, W), for a frame of the shape of a sample."""
        self.signals = []
        for number, step in enumerate(self.steps[:-1]):
            self.signals.append(self._signal(number, step, frame))
        last = self.steps[-1]
        if isinstance(last, i.ReadSpikes) and last.decay != NO_DECAY:
            self.sums = (self.sums * last.decay + (1 << 14) >> 15) + (self.signals[last.source] << 15)
            self.weight = (self.weight * last.decay + (1 << 14) >> 15) + (1 << 15)
        else:
            self.sums += self.signals[last.source] if isinstance(last, i.ReadSpikes) else self._current(last)
            self.weight += 1
        assert isinstance(last, i.ReadSpikes | i.ReadCurrent)
        scaled = self.sums.astype(np.float64) * last.unit.astype(np.float64).reshape(-1, 1, 1)
        return (scaled / np.float64(self.weight)).astype(np.float32)

    def _signal(self, number: int, step: i.Step, frame: Values) -> Longs:
        read = [self.signals[source] for source in step.reads]
        match step:
            case i.Input():
                scaled = np.rint(np.ldexp(frame.astype(np.float64).reshape(step.features), step.shift))
                return np.clip(scaled, -step.most, step.most).astype(np.int64)
            case i.Neurons():
                return self._neurons(number, step)
            case i.Pool():
                geometry = of_pool(step.kernel_size, step.stride, step.padding)
                counts = _windowed(read[0], geometry, step.features)
                return np.minimum(counts, 1) if step.largest else counts
            case i.Flatten():
                return read[0].reshape(step.features)
            case i.Upsample():
                return read[0].repeat(step.factor[0], axis=1).repeat(step.factor[1], axis=2)
            case i.Gate():
                return read[0] * (read[1] == (0 if step.negated else 1))
        return np.concatenate(read)

    def _current(self, step: i.Step) -> Longs:
        assert isinstance(step, i.Neurons | i.ReadCurrent)
        x = np.zeros(step.features, np.int64) + step.bias.reshape(-1, 1, 1)
        for term in step.terms:
            if isinstance(term, i.Added):
                x += term.weight.astype(np.int64).reshape(-1, 1, 1) * self.signals[term.source]
            else:
                x += _shifted(_convolved(self.signals[term.source], term, step.features), term.shift)
        return x

    def _neurons(self, number: int, step: i.Neurons) -> Longs:
        v = self.potentials[number]
        u = (v if step.decay == NO_DECAY else v * step.decay + (1 << 14) >> 15) + self._current(step)
        u = np.clip(u, -32767, 32767)
        fires = u >= step.fire.reshape(-1, 1, 1)
        self.potentials[number] = u - np.where(fires, step.reset.reshape(-1, 1, 1), 0)
        return fires.astype(np.int64)


def _shifted(sums: Longs, shift: int) -> Longs:
    return sums << shift if shift >= 0 else sums + (1 << (-shift - 1)) >> -shift


def _windowed(image: Longs, geometry: Geometry, features: i.Shape) -> Longs:
    """Sums over windows."""
    parts = [seen(image, geometry, features[1:], tap) for tap in range(geometry.taps)]
    return np.sum([values * valid for values, valid in parts], axis=0)


def _convolved(image: Longs, term: i.Taps, features: i.Shape) -> Longs:
    outputs, inner, *_ = term.weight.shape
    groups = term.geometry.groups
    weight = term.weight.astype(np.int64).reshape(groups, outputs // groups, inner, -1)
    total = np.zeros((groups, outputs // groups, *features[1:]), np.int64)
    for tap in range(term.geometry.taps):
        values, valid = seen(image, term.geometry, features[1:], tap)
        by_group = (values * valid).reshape(groups, inner, *features[1:])
        total += np.einsum("goc,gchw->gohw", weight[..., tap], by_group)
    return total.reshape(features)
