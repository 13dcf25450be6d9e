"""Batch normalisation of currents, with the exact gradient of every step in two numbers a channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import Current, Signal, needs_gradient, terms_of
from dsr.nn.describe import GraphWriter, OperationCounter, Total
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.layer import Layer, Parameter, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import uniform_weights
from dsr.ops import Values
from dsr.ops.arguments import as_count, as_flag, as_number


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

    Attributes
    ----------
    total : callable or None
        Sums a vector over all processes that share the batch, whose statistics are then those of all of it; the
        gradients of ``weight`` and ``bias`` remain parts, to be summed like all others. None: this process's samples.

    Notes
    -----
    The output is the input with a scale and a shift still to be applied, which the neuron above does as it reads. The
    gradient is exact: of every step's deviation from the mean, as a slope on the input current.
    """

    input_axes = "any"

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1, gain: bool = True) -> None:
        channels = as_count("BatchNorm", "channels", channels)
        self.eps = as_number("BatchNorm", "eps", eps, lambda value: 0 < value < inf, "a number > 0")
        self.momentum = as_number(
            "BatchNorm", "momentum", momentum, lambda value: 0 <= value <= 1, "a number in [0, 1]"
        )
        self.gain = as_flag("BatchNorm", "gain", gain)
        self.weight, self.bias = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self.total: Total | None = None
        self._state: tuple[Current, NDArray[np.float64], NDArray[np.float64], int | None] | None = None

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
            mean, variance, count = self._batch_statistics(current)
            self._state = current, mean, 1 / np.sqrt(variance + self.eps), count
            scale, shift = self._scale_and_shift(mean, variance)
        else:
            scale, shift = self._of_running_statistics()
            if run.training:
                mean, variance = (values.astype(np.float64) for values in (self.running_mean, self.running_var))
                self._state = current, mean, 1 / np.sqrt(variance + self.eps), None
        return replace(current, scale=scale, shift=shift, time_weights=None, needs_gradient=True)  # of the parameters

    def _scale_and_shift(self, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> tuple[Values, Values]:
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

    def _batch_statistics(self, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        sums, squares = ops.moments(current.values())
        stored = prod(current.shape[1:])
        if stored == 0:
            raise ValueError(f"BatchNorm {self.path}: expected at least one sample in training, got none")
        if self.total is not None:
            *both, number = self.total(np.concatenate([sums, squares, [stored]]))
            (sums, squares), stored = np.split(np.array(both), 2), int(number)
        if stored == 1:
            raise ValueError(
                f"BatchNorm {self.path}: expected more than one value per channel in training, got one sample of one "
                "pixel: it has no variance to normalise by; give batches of at least 2 samples"
            )
        with np.errstate(invalid="ignore"):  # told below, with the layer's name
            mean = sums / stored
            variance = np.maximum(squares / stored - mean * mean, 0)
        # a current of one step counts T times, as the copies it stands for would
        count = stored * (current.timesteps if current.is_static else 1)
        unbiased = variance * (count / max(count - 1, 1))
        bad = ~(unbiased <= np.finfo(np.float32).max)  # not finite, or so after rounding
        if bad.any():
            raise FloatingPointError(
                f"BatchNorm {self.path}: the variance of channel {bad.argmax()} of the batch is not finite in float32"
            )
        self.running_mean += self.momentum * (mean - self.running_mean).astype(np.float32)
        self.running_var += self.momentum * (unbiased - self.running_var).astype(np.float32)
        return mean, variance, count

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """``(weight / sigma) (g - mean(g) - xhat mean(g xhat))``, exactly, at every step.

        Where the statistics are not those of the batch it is ``(weight / sigma) g``.
        """
        current, mean, inverse, count = saved_state(self, self._state)
        self._state = None
        assert isinstance(gradient, Gradient)
        sums, products = self._sums(gradient, current)
        self.bias.grad = sums.astype(np.float32)
        centred = (products - mean * sums) * inverse  # sum of g xhat
        self.weight.grad = centred.astype(np.float32)
        if self.total is not None:
            sums, centred = np.split(self.total(np.concatenate([sums, centred])), 2)
        factor = self.weight.value * inverse
        terms = [((factor * s).astype(np.float32), x) for s, x in gradient.terms]
        if count is None:
            constant = ops.affine(gradient.constant, factor, np.zeros_like(factor))
            return as_wanted(current, Gradient(constant, gradient.timesteps, terms)) if current.needs_gradient else None
        slope = -factor * inverse * centred / count
        offset = -factor * sums / count - slope * mean
        if current.is_static:
            values = np.ascontiguousarray(current.values()[:, :, :, 0])
            constant = ops.affine(gradient.constant, factor, offset, values, slope)
        else:
            constant = ops.affine(gradient.constant, factor, offset)
            terms.append((slope.astype(np.float32), current))
        return as_wanted(current, Gradient(constant, gradient.timesteps, terms)) if current.needs_gradient else None

    @staticmethod
    def _sums(gradient: Gradient, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Per channel, the sums over pixels, steps and samples of g and of g x."""
        if gradient.terms and not current.is_static:
            return ops.product_moments(gradient.dense(), current.values())
        if current.is_static:
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

    def running_statistics(self) -> Mapping[str, NDArray[Any]]:
        """Mean and variance, where each rank has those of its part."""
        return self.buffers() if self.total is None else {}
