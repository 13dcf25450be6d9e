"""How signals are evaluated: currents through neurons to spikes, convolutions, and the gradients of both.

Every choice between a general way and a faster one is made here, by what a signal consists of; layers say what they
compute, not how. Each choice is noted in the pass (`dsr.nn.run.Run`), so that `dsr.inspect.plan` and the tests see it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import (
    Computed,
    ConvolvedSpikes,
    Current,
    Dense,
    PooledSpikes,
    Signal,
    Spikes,
    Term,
    as_current,
    counts_of,
    needs_gradient,
    signal_values,
    trains_of,
    unit_of,
)
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.rounding import DATA_BITS, rounded
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape, uniform_weights
from dsr.ops import NeuronModel, Sums, Values, Words

COUNTED_FROM = 8
"""Least T from which a current's sum over time is computed from counts of spikes, and its values of every step are not.

Below, the digits of the counts are nearly as many as the steps, and it is faster to write the values, which are dropped
as soon as the neurons have read them. Processor time of a step with either (AVX-512, one thread): `cifar_fast`, T = 4:
828 ms with counts, 723 with values; T = 8: 651 and 641; PreActResNet-18, batch 16, T = 20: 1096 and 1303.
"""


def sum_and_sample(current: Current, samples: NDArray[np.intp], path: str, run: Run) -> tuple[Values, Values]:
    """The current's sum over time, (C, H, W, B), and its values at every step for some of the samples.

    Where neurons may turn the convolution that it is into spikes, its values are not written: the sum is the
    convolution of the counts of spikes, by their binary digits. The bits of the values are those of a current of all
    samples; those of the sum are rounded in another order than those of a sum of values.

    Parameters
    ----------
    current : Current
        What is summed.
    samples : ndarray of int
        Which of the batch.
    path : str
        The layer that asks.
    run : Run
        The pass.
    """
    uniform = uniform_weights(current.timesteps)
    few = current.timesteps >= COUNTED_FROM and 2 * len(samples) <= current.batch
    if few and not current.is_written and _one_convolution(current.terms) is not None:
        total, way = _sum_over_time(current.terms, current.timesteps)
        run.note(path, f"sum over time from counts of spikes{way}")
        current.keep_sum(uniform, total)
        return total, current.of_samples(samples).values()
    run.note(path, "sum over time from values")
    total = current.weighted_sum(uniform)
    return total, np.take(current.values(), samples, axis=4)


def spikes(current: Current, neuron: NeuronModel, weights: Values, path: str, run: Run) -> Words:
    """Spikes of neurons with this input current; in training its sums over time are kept.

    Its values are kept by budget if the backward pass will read them, and are dropped otherwise.

    Parameters
    ----------
    current : Current
        The input.
    neuron : NeuronModel
        The neurons.
    weights : ndarray of float32, shape (T,)
        Weights of their representation.
    path : str
        The layer of neurons.
    run : Run
        The pass.
    """
    fused = None if current.is_written or current.is_needed else _one_convolution(current.terms)
    if fused is not None:
        run.note(path, "fused with the convolution" + (" and the shortcut" if fused.shortcut is not None else ""))
        if not run.training or current.has_sum(weights):
            return ops.conv2d_neuron_spikes(fused, neuron, current.scale, current.shift)
        words, total = ops.conv2d_neuron_spikes(fused, neuron, current.scale, current.shift, weights=weights)
        current.keep_sum(weights, total)
        return words
    run.note(path, f"from {_named(current)}")
    uniform = uniform_weights(current.timesteps)
    is_uniform = bool((weights == uniform).all())
    words, sums, weighted = ops.neuron_spikes(
        current.values(), current.timesteps, neuron, None if is_uniform else weights, current.scale, current.shift
    )
    current.keep_sum(uniform, sums)
    if weighted is not None:
        current.keep_sum(weights, weighted)
    if run.training and current.is_needed:
        run.budget.add(path, current)
    elif run.training:
        current.written.drop()
    return words


def _one_convolution(terms: tuple[Term, ...]) -> ops.SpikeConvolution | None:
    """The terms as one convolution of spikes, to which spikes may be added; None if they are anything else."""
    match terms:
        case (ConvolvedSpikes(convolutions=(convolution,)),):
            return convolution
        case (ConvolvedSpikes(convolutions=(convolution,)), Spikes(train=SpikeTrain(planes=1) as train) as added) if (
            type(added) is Spikes  # not pooled ones
        ):
            return replace(convolution, shortcut=train.words, shortcut_amplitude=train.amplitude)
    return None


def _sum_over_time(terms: tuple[Term, ...], timesteps: int) -> tuple[Values, str]:
    """The sum over time of terms that are one convolution, from the counts of spikes; and how it was computed."""
    convolved, *shortcut = terms
    assert isinstance(convolved, ConvolvedSpikes)
    (convolution,), (train,) = convolved.convolutions, convolved.trains
    counted = train.counted()
    assert counted.time_weights is not None
    # of graded spikes, that of the lowest digit
    weight = convolution.weight if train.planes == 1 else np.ascontiguousarray(convolution.weight[:, : train.channels])
    bias = None if convolution.bias is None else convolution.bias * np.float32(timesteps)
    shape = convolved.shape
    if _by_winograd((*shape[:3], shape[4]), weight, convolution.geometry):
        counts = ops.sum_words(counted.words, train.channels, counted.time_weights, convolution.amplitude)
        total = ops.conv2d_winograd(counts, weight, convolution.geometry)
        for term in shortcut:
            assert isinstance(term, Spikes)
            total += next(term.counted().sums_over_time())
        return (
            total if bias is None else np.add(total, bias.reshape(-1, 1, 1, 1), out=total)
        ), ", by Winograd's method"
    convolution = replace(
        convolution,
        words=counted.words,
        weight=weight,
        bias=bias,
        table_bits=ops.best_table_bits(counted.firing_rate(), convolution.geometry.taps),
    )
    for term in shortcut:
        assert isinstance(term, Spikes)
        added = term.counted()
        convolution = replace(convolution, shortcut=added.words, shortcut_amplitude=added.amplitude)
    return ops.conv2d_spikes_sum(convolution, counted.time_weights), ""


def _by_winograd(shape: tuple[int, ...], weight: Values, geometry: ops.Geometry) -> bool:
    """Whether the convolution of counts as values, to this shape (O, H', W', B), is faster than that of their bits.

    Weights are mirrored in each call, which of 512 channels on 4x4 pixels takes as long as the products.
    """
    tiles = ops.weight_gradient_by_winograd(geometry, weight.shape[1], shape) and max(geometry.padding) <= 2
    return tiles and weight.size <= 4 * prod(shape)


def _named(current: Current) -> str:
    """What a current is the sum of, in words."""
    counts = [len(term.convolutions) if isinstance(term, ConvolvedSpikes) else 1 for term in current.terms]
    names = [_NAMES.get(type(term), type(term).__name__) for term in current.terms]
    return " + ".join(name for name, count in zip(names, counts, strict=True) for _ in range(count))


_NAMES: dict[type[Term], str] = {
    ConvolvedSpikes: "convolved spikes",
    Spikes: "spikes",
    PooledSpikes: "pooled spikes",
    Computed: "computed values",
    Dense: "stored values",
}


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution of a signal, kept from the forward pass for the backward pass.

    Attributes
    ----------
    signal : SpikeTrain or Current
        What is convolved.
    trains : tuple of SpikeTrain
        The trains that the signal is the sum of, and that the convolution works on; none: it works on dense values.
    kernel : ndarray of float32, shape (O, C / groups, KH, KW)
        With what.
    geometry : Geometry
        Where its taps fall.
    path : str
        The layer.
    run : Run
        The pass.
    """

    signal: Signal
    trains: tuple[SpikeTrain, ...]
    kernel: Values
    geometry: ops.Geometry
    path: str
    run: Run

    @classmethod
    def of(cls, signal: Signal, kernel: Values, geometry: ops.Geometry, path: str, run: Run) -> Convolution:
        """The convolution, on bits where the signal consists of spikes and the kernel is not too large for it."""
        trains = trains_of(signal) if geometry.taps <= ops.MOST_TAPS else ()
        if geometry.groups > 1:  # planes are channels of their own, which groups would tear apart
            trains = tuple(plane for train in trains for plane in train.split())
        if run.weight_bits:
            # data are told by their gradient, which is computed only if somebody asks; spikes pass through pooling
            kernel = rounded(kernel, run.weight_bits if needs_gradient(signal) is True else DATA_BITS, unit_of(signal))
        return cls(signal, trains, kernel, geometry, path, run)

    def terms(self, bias: Values | None) -> tuple[Term, ...]:
        """What the output is the sum of."""
        if not self.trains:
            if isinstance(self.signal, SpikeTrain):
                _, height, width, *inner = self.signal.words.shape
            else:
                _, height, width, *inner = self.signal.shape
            once = inner[0] == 1 and self.signal.timesteps > 1
            self.run.note(self.path, "dense values" + (", once for all steps" if once else ""))
            shape = (len(self.kernel), *self.geometry.output_size(height, width), *inner)
            return (Computed(lambda: self._of_values(bias), shape),)
        digits = f", {len(self.trains)} trains" if len(self.trains) > 1 else ""
        planes = max(train.planes for train in self.trains)
        self.run.note(self.path, f"spikes{digits}" + (f", {planes} planes" if planes > 1 else ""))
        return (
            ConvolvedSpikes(
                tuple(
                    ops.SpikeConvolution(
                        train.words,
                        train.weigh(self.kernel),
                        None if number else bias,
                        train.common_amplitude,
                        self.geometry,
                        self._table_bits(train),
                    )
                    for number, train in enumerate(self.trains)
                ),
                self.trains,
            ),
        )

    def counts(self) -> tuple[SpikeTrain, ...]:
        """The sum over time of the signal, in binary; counted once."""
        kept = vars(self)
        if "_counts" not in kept:
            kept["_counts"] = counts_of(self.signal)
        counts: tuple[SpikeTrain, ...] = kept["_counts"]
        return counts

    def _counted_values(self) -> Values:
        """The sum over time of the signal, (C, H, W, B)."""
        counted = self.trains if self.signal.timesteps == 1 else self.counts()
        first, *others = (number for train in counted for number in train.sums_over_time())
        for other in others:
            first += other
        return first

    def _of_values(self, bias: Values | None) -> Values:
        values = signal_values(self.signal)
        flat = ops.conv2d(values.reshape(*values.shape[:3], -1), self.kernel, bias, self.geometry)
        return flat.reshape(*flat.shape[:3], *values.shape[3:])

    def _table_bits(self, train: SpikeTrain) -> int:
        return ops.best_table_bits(train.density(), self.geometry.taps)

    def kernel_gradient(self, gradient: Gradient) -> Values:
        """The kernel's, given the output's."""
        if self.trains:
            constant, slope, values = gradient.as_one_term()
            tiles = ops.weight_gradient_by_winograd(self.geometry, self.kernel.shape[1], constant.shape)
            # of one step, adding the few spikes is faster where there are many weights for each output
            if slope is None and tiles and (self.signal.timesteps > 1 or self.kernel.size <= 4 * constant.size):
                self.run.note(self.path, "weight gradient on counts of spikes, by Winograd's method")
                return ops.conv2d_weight_gradient(constant, self._counted_values(), self.geometry)
            trains, varies = self.trains, "constant gradient" if slope is None else "gradient of every step"
            if slope is None and self.signal.timesteps > 1:  # sum_t g s[t] = g sum_t s[t]
                trains, varies = self.counts(), "by their counts"
            self.run.note(self.path, f"weight gradient on spikes, {varies}")
            parts = [
                train.kernel_gradient(
                    ops.conv2d_spikes_weight_gradient(
                        constant,
                        slope,
                        values,
                        train.words,
                        train.weighed_shape(self.kernel.shape),
                        train.common_amplitude,
                        self.geometry,
                        self._table_bits(train),
                        train.time_weights if trains is not self.trains else None,
                    ),
                    self.kernel.shape,
                )
                for train in trains
            ]
            return sum(parts[1:], parts[0])
        if gradient.terms or self.signal.timesteps == 1 or as_current(self.signal).is_static:
            self.run.note(self.path, "weight gradient on dense values")
            values = signal_values(self.signal)
            steps = gradient.total() if values.shape[3] == 1 else gradient.dense()
        else:
            self.run.note(self.path, "weight gradient on the mean of dense values")
            values = as_current(self.signal).mean(uniform_weights(self.signal.timesteps))
            steps = gradient.total()
        return ops.conv2d_weight_gradient(
            steps.reshape(*steps.shape[:3], -1), values.reshape(*values.shape[:3], -1), self.geometry
        )

    def input_gradient(self, gradient: Gradient) -> SignalGradient:
        """The signal's, given the output's."""
        _, height, width = image_shape(self.signal.features)

        def function(grad: Values) -> Values:
            return ops.conv2d_input_gradient(grad, self.kernel, height, width, self.geometry)

        if self.signal.time_weights is None:
            self.run.note(self.path, "input gradient of every step" if gradient.terms else "input gradient, constant")
            return gradient.map(function)
        self.run.note(self.path, "input gradient without time")
        return function(gradient.summed(self.signal.time_weights))


def neuron_gradient(
    gradient: SignalGradient, current: Current, neuron: NeuronModel, weights: Values, path: str, run: Run
) -> tuple[SignalGradient | None, Sums]:
    """Gradients of the current and of the thresholds, given that of the spikes: arguments are those of `spikes`."""
    run.note(path, "gradient from sums" if current.has_sum(weights) else "gradient from values")
    if isinstance(gradient, Gradient):
        gradient = gradient.summed(weights)
    sums = current.weighted_sum(weights)
    grad_current, grad_threshold = ops.neuron_spikes_backward(
        gradient, sums, current.timesteps, neuron, current.scale, current.shift
    )
    below = as_wanted(current, Gradient(grad_current, current.timesteps)) if current.needs_gradient else None
    return below, grad_threshold
