"""Batch normalisation of currents: with the exact gradient of every step, or with one that has no time axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn import evaluate
from dsr.nn.currents import Current, Signal, needs_gradient, terms_of
from dsr.nn.describe import GraphWriter, OperationCounter, Total
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.layer import Layer, Parameter, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import uniform_weights
from dsr.ops import Sums, Values
from dsr.ops.arguments import as_count, as_flag, as_number, shown

NormGradient = Literal["exact", "rate"]
NormVariance = Literal["steps", "sampled"]

SAMPLED = 8
"""One sample in so many is taken for the variance over time."""


class BatchNorm(Layer):
    """Batch normalisation of currents, over time, batch and pixels.

    Parameters
    ----------
    channels : int
        C, or N of a vector.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the batch in the running statistics.
    gain : bool
        Whether there is a trained factor ``weight``; without it, it is 1.
    gradient : {"exact", "rate"}
        "exact": of every step, as the authors' networks have it. "rate": that of the mean current over time alone,
        which is the same at every step, so that the layers below have no time axis in their backward pass.
    variance : {"steps", "sampled"}
        "steps": over all steps, samples and pixels. "sampled", with "rate" only: the variance of the mean current over
        time, of all samples, plus the variance over time of an eighth of the samples; then no layer has to keep, or
        compute twice, a current of every step.

    Attributes
    ----------
    total : callable or None
        Sums a vector over all processes that share the batch, whose statistics are then those of all of it; the
        gradients of ``weight`` and ``bias`` remain parts, to be summed like all others. None: this process's samples.

    Notes
    -----
    The output is the input with a scale and a shift still to be applied, which the neuron above does as it reads.

    Of one channel let x[i, t] be the current of place i (a pixel of a sample) at step t, N places and T steps, m[i] its
    mean over time, and y = weight (x - mu) / s + bias. The mean is that of the m[i], and the variance is that of the
    m[i] plus the mean of the variances over time::

        mu = mean_i m[i]        s^2 = eps + B + W
        B = mean_i (m[i] - mu)^2        W = mean_i mean_t (x[i, t] - m[i])^2

    A neuron above sends back the same gradient g[i] at every step. With xhat = (x - mu) / s the gradient of x is::

        exact:  (weight / s) (g[i] - mean(g) - xhat[i, t] mean(g xhat))
        rate:   (weight / s) (g[i] - mean(g) - xhat of m[i] mean(g xhat)),   mean(g xhat) the same number as above

    So "rate" leaves out ``-(weight / s^2) mean(g xhat) (x[i, t] - m[i])``, which is the gradient through W. It is the
    exact gradient of y's mean over time if W is taken for a constant. What is left out has the mean 0 over time:

    - The gradients of ``weight`` and ``bias`` are the same, and so is the input gradient of a convolution of spikes of
      IF neurons, which want the plain sum over time. Spikes of LIF neurons want a weighted one, in which a rest stays.
    - The weight gradient of the convolution below loses the covariance over time of current and spikes. What remains is
      ``g[i] sum_t s[t]``, for which counts of spikes are enough, of LIF neurons too.

    If the gradient g[i, t] varies, as below another batch normalisation, "rate" takes its mean over time.

    "sampled" takes for W the mean over places of the samples at some positions in the batch (one in each eight, the
    first of the first eight, the second of the next, and so on; of images of fewer than 8 pixels more: of vectors all).
    With `total`, positions are those in the whole batch, which ranks share one by one, so that its statistics do not
    depend on their number.
    """

    input_axes = "any"

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        gain: bool = True,
        *,
        gradient: NormGradient = "exact",
        variance: NormVariance = "steps",
    ) -> None:
        channels = as_count("BatchNorm", "channels", channels)
        self.eps = as_number("BatchNorm", "eps", eps, lambda value: 0 < value < inf, "a number > 0")
        self.momentum = as_number(
            "BatchNorm", "momentum", momentum, lambda value: 0 <= value <= 1, "a number in [0, 1]"
        )
        self.gain = as_flag("BatchNorm", "gain", gain)
        self.weight, self.bias = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self.gradient, self.variance = _checked("BatchNorm", gradient, variance)
        self.total: Total | None = None
        self._rank, self._ranks = 0, 1
        self._state: tuple[Current, Sums, Sums, int | None] | None = None

    def take(self, gradient: NormGradient, variance: NormVariance) -> None:
        """Change both choices, as a recipe does, unless the layer was made with one of them."""
        positional, named = self.made_with
        if "gradient" in named or "variance" in named or (gradient, variance) == (self.gradient, self.variance):
            return
        self.gradient, self.variance = _checked("BatchNorm", gradient, variance)
        self.made_with = positional, {**named, "gradient": gradient, "variance": variance}

    def kind(self) -> str:
        """Class, and gradient and variance where they are not exact ones."""
        return "BatchNorm" if self.gradient == "exact" else f"BatchNorm {self.gradient}, {self.variance}"

    def parameters(self) -> Mapping[str, Parameter]:
        """``weight`` (with `gain`) and ``bias``, (C,)."""
        return {"weight": self.weight, "bias": self.bias} if self.gain else {"bias": self.bias}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``running_mean`` and ``running_var``, (C,)."""
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Statistics, and the scale and shift that follow from them."""
        if signal.channels != len(self.running_mean):
            raise ValueError(
                f"BatchNorm {self.path}: expected {len(self.running_mean)} channels, got {signal.features}"
            )
        current = signal
        if not isinstance(current, Current) or current.scale is not None:
            current = Current(
                terms_of(signal),
                signal.features,
                signal.timesteps,
                time_weights=signal.time_weights,
                needs_gradient=needs_gradient(signal),
            )
        if run.training and not run.frozen:
            mean, variance, count = self._batch_statistics(current, run)
            self._state = current, mean, 1 / np.sqrt(variance + self.eps), count
            scale, shift = self._scale_and_shift(mean, variance)
        else:
            scale, shift = self._of_running_statistics()
            if run.training:
                mean, variance = (values.astype(np.float64) for values in (self.running_mean, self.running_var))
                self._state = current, mean, 1 / np.sqrt(variance + self.eps), None
        return replace(current, scale=scale, shift=shift, time_weights=None, needs_gradient=True)  # of the parameters

    def _scale_and_shift(self, mean: Sums, variance: Sums) -> tuple[Values, Values]:
        scale = self.weight.value / np.sqrt(variance + self.eps)
        shift = self.bias.value - mean * scale
        return scale.astype(np.float32), shift.astype(np.float32)

    def _of_running_statistics(self) -> tuple[Values, Values]:
        variance = self.running_var.astype(np.float64)
        bad = ~(variance >= 0) | ~np.isfinite(self.running_mean)
        if bad.any():
            channel = int(bad.argmax())
            raise ValueError(
                f"BatchNorm {self.path}: expected finite running statistics with a variance >= 0, got mean "
                f"{self.running_mean[channel]} and variance {self.running_var[channel]} of channel {channel}"
            )
        return self._scale_and_shift(self.running_mean.astype(np.float64), variance)

    def _batch_statistics(self, current: Current, run: Run) -> tuple[Sums, Sums, int]:
        sampled = self.variance == "sampled" and current.shape[3] > 1
        numbers = self._sums_of_means(current, run) if sampled else self._sums_of_steps(current)
        if numbers[2][0] == 0:
            raise ValueError(f"BatchNorm {self.path}: expected at least one sample in training, got none")
        if self.total is not None:
            ends = np.cumsum([len(part) for part in numbers])[:-1]
            numbers = np.split(np.array(self.total(np.concatenate(numbers))), ends)
        sums, squares, (number,), *over_time = numbers
        stored = int(number)
        if stored == 1:
            raise ValueError(
                f"BatchNorm {self.path}: expected more than one value per channel in training, got one sample of one "
                "pixel: it has no variance to normalise by; give batches of at least 2 samples"
            )
        with np.errstate(invalid="ignore"):  # told below, with the layer's name
            mean = sums / stored
            variance = np.maximum(squares / stored - mean * mean, 0)
            if over_time:
                within, (places,) = over_time
                variance += np.maximum(within / places, 0)
        # a mean over time stands for T values, and so does a current of one step
        count = stored * (current.timesteps if sampled or current.is_static else 1)
        unbiased = variance * (count / max(count - 1, 1))
        bad = ~(unbiased <= np.finfo(np.float32).max)  # not finite, or so after rounding
        if bad.any():
            raise FloatingPointError(
                f"BatchNorm {self.path}: the variance of channel {bad.argmax()} of the batch is not finite in float32"
            )
        self.running_mean += self.momentum * (mean - self.running_mean).astype(np.float32)
        self.running_var += self.momentum * (unbiased - self.running_var).astype(np.float32)
        return mean, variance, count

    def _sums_of_steps(self, current: Current) -> list[Sums]:
        """Per channel, the sums of values and of their squares; and how many these are."""
        if self.gradient == "exact":
            current.need()
        sums, squares = ops.moments(current.values())
        if self.gradient == "rate":
            current.weighted_sum(uniform_weights(current.timesteps))  # while the values are there: for `backward`
        return [sums, squares, np.array([prod(current.shape[1:])], np.float64)]

    def _sums_of_means(self, current: Current, run: Run) -> list[Sums]:
        """The same of means over time; then the sums of variances over time of some samples, and how many these are."""
        samples, steps = self._sampled(current), current.timesteps
        total, values = evaluate.sum_and_sample(current, samples, self.path, run)
        sums, squares = ops.moments(total)
        _, of_values = ops.moments(values)
        _, of_sums = ops.moments(np.take(total, samples, axis=3))
        numbers = [[prod(total.shape[1:])], [prod(total.shape[1:3]) * len(samples)]]
        stored, places = (np.array(number, np.float64) for number in numbers)
        return [sums / steps, squares / steps**2, stored, of_values / steps - of_sums / steps**2, places]

    def _sampled(self, current: Current) -> NDArray[np.intp]:
        """Which of this process's samples the variance over time is taken of."""
        every = min(SAMPLED, prod(current.shape[1:3]))
        position = self._rank + self._ranks * np.arange(current.batch)
        return np.flatnonzero(position % every == position // every % every)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """``(weight / sigma) (g - mean(g) - xhat mean(g xhat))``, exactly, at every step, or of the mean over time.

        Where the statistics are not those of the batch it is ``(weight / sigma) g``.
        """
        current, mean, inverse, count = saved_state(self, self._state)
        self._state = None
        assert isinstance(gradient, Gradient)
        if self.gradient == "rate":
            gradient = gradient.mean_over_time()
        sums, products = self._sums(gradient, current)
        self.bias.grad = sums.astype(np.float32)
        centred = (products - mean * sums) * inverse  # sum of g xhat
        self.weight.grad = centred.astype(np.float32)
        if self.total is not None:
            sums, centred = np.split(self.total(np.concatenate([sums, centred])), 2)
        factor = self.weight.value * inverse
        terms = [((factor * s).astype(np.float32), x) for s, x in gradient.terms]
        slope, offset = np.zeros_like(factor), np.zeros_like(factor)
        if count is not None:
            slope = -factor * inverse * centred / count
            offset = -factor * sums / count - slope * mean
        if count is None:
            constant = ops.affine(gradient.constant, factor, offset)
        elif self.gradient == "rate":
            total = current.weighted_sum(uniform_weights(current.timesteps))
            constant = ops.affine(gradient.constant, factor, offset, total, slope / current.timesteps)
        elif current.is_static:
            values = np.ascontiguousarray(current.values()[:, :, :, 0])
            constant = ops.affine(gradient.constant, factor, offset, values, slope)
        else:
            constant = ops.affine(gradient.constant, factor, offset)
            terms.append((slope.astype(np.float32), current))
        return as_wanted(current, Gradient(constant, gradient.timesteps, terms)) if current.needs_gradient else None

    def _sums(self, gradient: Gradient, current: Current) -> tuple[Sums, Sums]:
        """Per channel, the sums over pixels, steps and samples of g and of g x."""
        if gradient.terms and not current.is_static:
            return ops.product_moments(gradient.dense(), current.values())
        if current.is_static and self.gradient == "exact":
            return ops.product_moments(gradient.total(), np.ascontiguousarray(current.values()[:, :, :, 0]))
        total = current.weighted_sum(uniform_weights(current.timesteps))
        sums, products = ops.product_moments(gradient.constant, total)
        return current.timesteps * sums, products

    def multiply_adds(self, output_features: tuple[int, ...]) -> int:
        """None: scale and shift belong to the weights below."""
        return 0

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: spikes that come in go on."""
        counter.pass_on(signal, output)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A scale and a shift by the running statistics."""
        return writer.affine(wire, *self._of_running_statistics())

    def join_ranks(self, rank: int, total: Total | None) -> None:
        """Statistics of the whole batch where `total` is given, else of each rank's part of it."""
        self.total = total
        self._rank, self._ranks = (0, 1) if total is None else (rank, int(total(np.ones(1))[0]))

    def running_statistics(self) -> Mapping[str, NDArray[Any]]:
        """Mean and variance, where each rank has those of its part."""
        return self.buffers() if self.total is None else {}


def _checked(function: str, gradient: NormGradient, variance: NormVariance) -> tuple[NormGradient, NormVariance]:
    for name, value, kinds in (("gradient", gradient, NormGradient), ("variance", variance, NormVariance)):
        if value not in get_args(kinds):
            raise ValueError(
                f"{function}: argument '{name}': expected one of {', '.join(get_args(kinds))}, got {shown(value)}"
            )
    if variance == "sampled" and gradient == "exact":
        raise ValueError(
            f"{function}: argument 'variance': expected 'steps' with gradient = 'exact', which reads every step of "
            "every sample in any case, got 'sampled'"
        )
    return gradient, variance
