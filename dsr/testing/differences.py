"""Finite differences of a layer in which the mapping stands for neurons, and means for a gradient without time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dsr.nn.currents import Current, Dense, Signal, as_current, signal_values
from dsr.nn.layer import Layer
from dsr.nn.neurons import Neuron
from dsr.nn.norm import BatchNorm
from dsr.nn.run import Run
from dsr.nn.spikes import uniform_weights
from dsr.ops import PerChannel, Values
from dsr.testing.probe import Probe, parameters, training

Doubles = NDArray[np.float64]

_STEP = 2.0**-20  # of representations, and of thresholds as a share: sixteen times the spacing of float32


@dataclass(frozen=True)
class _Seen:
    """Neurons in the unchanged pass; `slope` and `threshold_slope` are those of the mapping at `represented`."""

    spikes: Values
    mean: Values
    represented: Doubles
    mapped: Doubles
    threshold: PerChannel
    slope: Doubles
    threshold_slope: Doubles


@dataclass(frozen=True)
class _Normalised:
    """Batch normalisation with a gradient without time in the unchanged pass; `within` is the variance over time."""

    output: Values
    mean: Doubles
    within: Doubles


class Differences:
    """Slopes of ``L = sum(slopes * output)`` in training, by finite differences.

    A neuron gives its spikes of the unchanged pass plus, at every step t, ``w[t] m'(z) mean(dI)`` for a change dI of
    its current, with the slope m' of its mapping at the representation z of the unchanged current, and the weights w of
    the representation; and plus ``w[t] dm(z)`` for the change dm that another parameter makes. This is what DSR is the
    gradient of. At a corner of the mapping the slope is that of the side to which `Neuron.mapping` counts it.

    A `BatchNorm` whose gradient is "rate" gives its output of the unchanged pass plus, at every step, the change of the
    mean of its output over time, with the variance over time of its unchanged input.

    Parameters
    ----------
    probe : Probe
        The layer and its input.
    frozen : bool
        As of `Run`.
    """

    def __init__(self, probe: Probe, frozen: bool) -> None:
        self._probe, self.frozen = probe, frozen
        self._seen: dict[str, _Seen] = {}
        self._normalised: dict[str, _Normalised] = {}
        layer = probe.copy()
        for path, neuron in _neurons(layer):
            neuron.forward = partial(self._unchanged, path, neuron)  # type: ignore[method-assign]
        for path, norm in _norms(layer):
            norm.forward = partial(self._normal, path, norm)  # type: ignore[method-assign]
        layer(probe.input.moved(None), training(frozen=frozen))

    def slope(self, name: str, direction: Values, step: float) -> float:
        """Along a direction of the input (``"input"``) or of a parameter."""
        above, below = (self._sum(name, direction * np.float32(size)) for size in (step, -step))
        return (above - below) / (2 * step)

    def threshold_factor(self, name: str) -> float:
        """By what a parameter's gradient is multiplied on purpose: thresholds have the factors that are published."""
        for path, neuron in _neurons(self._probe.layer):
            if name == f"{path}.v_threshold".removeprefix("."):
                return neuron.threshold_gradient_factor() * neuron.threshold_gradient_scale / _height_slope(neuron)
        return 1.0

    def _sum(self, name: str, change: Values) -> float:
        layer = self._probe.copy()
        for path, neuron in _neurons(layer):
            neuron.forward = partial(self._changed, path, neuron)  # type: ignore[method-assign]
        for path, norm in _norms(layer):
            norm.forward = partial(self._normal_again, path, norm)  # type: ignore[method-assign]
        if name != "input":
            dict(parameters(layer))[name].value[...] += change
        signal = self._probe.input.moved(change if name == "input" else None)
        output = layer(signal, training(frozen=self.frozen))
        return float((signal_values(output) * self._probe.slopes(output).astype(np.float64)).sum())

    def _unchanged(self, path: str, neuron: Neuron, signal: Signal, run: Run) -> Signal:
        current, output = as_current(signal), type(neuron).forward(neuron, signal, run)
        z = current.mean(neuron.time_weights(current.timesteps)).astype(np.float64)
        mean = current.mean(uniform_weights(current.timesteps))
        v, mapped, slope = neuron.effective_threshold(), _mapped(neuron, z), self._slope(path, neuron, z)
        self._seen[path] = _Seen(signal_values(output), mean, z, mapped, v, slope, _threshold_slope(neuron, z))
        return output

    def _slope(self, path: str, neuron: Neuron, z: Doubles) -> Doubles:
        here, above, below = (_mapped(neuron, z + step) for step in (0, _STEP, -_STEP))
        up, down = (above - here) / _STEP, (here - below) / _STEP
        rises, rises_above = neuron.mapping(z)[1], neuron.mapping(z + _STEP)[1]
        smooth = np.abs(up - down) <= 1e-6 * np.abs(up)
        wrong = smooth & (rises != (up != 0))
        if wrong.any():
            says = "rises" if rises[wrong][0] else "does not rise"
            raise self._probe.failure(
                f"the mapping of {path or 'the neurons'} says that it {says} at {z[wrong][0]:g}, where its slope is "
                f"{up[wrong][0]:g}"
            )
        return np.where(rises, np.where(smooth | rises_above, up, down), 0.0)

    def _changed(self, path: str, neuron: Neuron, signal: Signal, run: Run) -> Signal:
        seen, current, weights = self._seen[path], as_current(signal), neuron.time_weights(signal.timesteps)
        moved = current.mean(uniform_weights(current.timesteps)).astype(np.float64) - seen.mean
        change, v = seen.slope * moved, neuron.effective_threshold()
        if np.any(v != seen.threshold):
            change += seen.threshold_slope * neuron.by_channel(v - seen.threshold)
        else:
            change += _mapped(neuron, seen.represented) - seen.mapped
        values = seen.spikes + change[:, :, :, np.newaxis] * weights[:, np.newaxis]
        return Current((Dense(values.astype(np.float32)),), signal.features, signal.timesteps, time_weights=weights)

    def _normal(self, path: str, norm: BatchNorm, signal: Signal, run: Run) -> Signal:
        output = BatchNorm.forward(norm, signal, run)
        variance = norm.running_var.astype(np.float64)
        means = _means(signal)
        if not run.frozen:
            assert isinstance(output, Current) and output.scale is not None
            # scale = weight / sqrt(variance + eps)
            variance = np.square(norm.weight.value / output.scale.astype(np.float64)) - norm.eps
        within = np.zeros_like(variance) if run.frozen else variance - means.var(axis=(1, 2, 3))
        self._normalised[path] = _Normalised(signal_values(output), self._normal_mean(norm, means, within, run), within)
        return output

    def _normal_again(self, path: str, norm: BatchNorm, signal: Signal, run: Run) -> Signal:
        seen = self._normalised[path]
        change = self._normal_mean(norm, _means(signal), seen.within, run) - seen.mean
        values = seen.output + change[:, :, :, np.newaxis]
        return Current((Dense(values.astype(np.float32)),), signal.features, signal.timesteps)

    @staticmethod
    def _normal_mean(norm: BatchNorm, means: Doubles, within: Doubles, run: Run) -> Doubles:
        """The mean over time of the output."""
        mean, variance = means.mean(axis=(1, 2, 3)), means.var(axis=(1, 2, 3)) + within
        if run.frozen:
            mean, variance = (array.astype(np.float64) for array in (norm.running_mean, norm.running_var))
        mean, scale, shift = (
            numbers.reshape(-1, 1, 1, 1)
            for numbers in (mean, norm.weight.value / np.sqrt(variance + norm.eps), norm.bias.value)
        )
        return np.asarray((means - mean) * scale + shift)


def _means(signal: Signal) -> Doubles:
    """The mean over time, (C, H, W, B)."""
    return signal_values(signal).mean(axis=3, dtype=np.float64)


def _norms(layer: Layer) -> list[tuple[str, BatchNorm]]:
    """Those with a gradient without time."""
    norms = [(path, inner) for path, inner in layer.walk() if isinstance(inner, BatchNorm)]
    return [(path, norm) for path, norm in norms if norm.gradient == "rate"]


def _mapped(neuron: Neuron, represented: Doubles) -> Doubles:
    """The representation of the spikes."""
    return neuron.mapping(represented)[0] * neuron.by_channel(neuron.amplitude(neuron.effective_threshold()))


def _height_slope(neuron: Neuron) -> float:
    """How the height of a spike changes with the threshold; over a wide step, because heights are float32."""
    v = float(np.ravel(neuron.effective_threshold())[0])  # the same for all channels
    return float((neuron.amplitude(1.25 * v) - neuron.amplitude(v)) / (0.25 * v))


def _threshold_slope(neuron: Neuron, represented: Doubles) -> Doubles:
    """How the mapping changes with the threshold, that of a neuron which is no longer needed as it is."""
    v, share = neuron.effective_threshold(), neuron.mapping(represented)[0]
    height, rise = neuron.by_channel(neuron.amplitude(v)), _height_slope(neuron)
    neuron.v_threshold.value *= np.float32(1 + _STEP)
    moved = neuron.mapping(represented)[0]
    return (moved - share) / neuron.by_channel(neuron.effective_threshold() - v) * height + share * rise


def _neurons(layer: Layer) -> list[tuple[str, Neuron]]:
    return [(path, inner) for path, inner in layer.walk() if isinstance(inner, Neuron)]
