"""Batch normalisation of currents, with the exact gradient of every step in two numbers a channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import Backward, Current, Gradient, Signal, Store, as_wanted, needs_gradient, signal_values
from dsr.nn.layer import Layer, Parameter, Run, saved_state
from dsr.nn.spikes import uniform_weights
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
        self.total: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
        self._state: tuple[Current, NDArray[np.float64], NDArray[np.float64], int] | None = None

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
        plain = isinstance(signal, Current) and signal.scale is None
        current = Current(
            signal.store if isinstance(signal, Current) and plain else Store(signal_values(signal)),
            signal.timesteps,
            signal.features,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )
        mean: NDArray[np.float64] = self.running_mean.astype(np.float64)
        variance: NDArray[np.float64] = self.running_var.astype(np.float64)
        if run.training:
            mean, variance, count = self._batch_statistics(current)
            self._state = current, mean, 1 / np.sqrt(variance + self.eps), count
        scale = self.weight.value / np.sqrt(variance + self.eps)
        shift = self.bias.value - mean * scale
        return replace(current, scale=scale.astype(np.float32), shift=shift.astype(np.float32), time_weights=None)

    def _batch_statistics(self, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        sums, squares = ops.moments(current.values)
        stored = prod(current.store.shape[1:])
        if stored == 0:
            raise ValueError(f"BatchNorm {self.path}: expected at least one sample in training, got none")
        if self.total is not None:
            *both, number = self.total(np.concatenate([sums, squares, [stored]]))
            (sums, squares), stored = np.split(np.array(both), 2), int(number)
        with np.errstate(invalid="ignore"):  # told below, with the layer's name
            mean = sums / stored
            variance = np.maximum(squares / stored - mean * mean, 0)
        # a held current counts T times, as the copies it stands for would
        count = stored * (current.timesteps if current.held else 1)
        unbiased = variance * (count / max(count - 1, 1))
        bad = ~(unbiased <= np.finfo(np.float32).max)  # not finite, or so after rounding
        if bad.any():
            raise FloatingPointError(
                f"BatchNorm {self.path}: the variance of channel {bad.argmax()} of the batch is not finite in float32"
            )
        self.running_mean += self.momentum * (mean - self.running_mean).astype(np.float32)
        self.running_var += self.momentum * (unbiased - self.running_var).astype(np.float32)
        return mean, variance, count

    def backward(self, gradient: Backward) -> Backward | None:
        """``(weight / sigma) (g - mean(g) - xhat mean(g xhat))``, exactly, at every step."""
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
        slope = -factor * inverse * centred / count
        offset = -factor * sums / count - slope * mean
        terms = [((factor * s).astype(np.float32), x) for s, x in gradient.terms]
        if current.held:
            values = np.ascontiguousarray(current.values[:, :, :, 0])
            constant = ops.affine(gradient.constant, factor, offset, values, slope)
        else:
            constant = ops.affine(gradient.constant, factor, offset)
            terms.append((slope.astype(np.float32), current.store))
        return as_wanted(current, Gradient(constant, gradient.timesteps, terms)) if current.needs_gradient else None

    @staticmethod
    def _sums(gradient: Gradient, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Per channel, the sums over pixels, steps and samples of g and of g x."""
        if gradient.terms and not current.held:
            return ops.product_moments(gradient.dense(), current.values)
        if current.held:
            return ops.product_moments(gradient.total(), np.ascontiguousarray(current.values[:, :, :, 0]))
        total = current.store.weighted_sum(uniform_weights(current.timesteps))
        sums, products = ops.product_moments(gradient.constant, total)
        return current.timesteps * sums, products
