"""Maximum pooling: of spikes their OR, which stays spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from dsr import ops
from dsr.nn.currents import Computed, Current, Signal, needs_gradient, signal_values
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted, map_gradient
from dsr.nn.layer import saved_state
from dsr.nn.pooling import Pooling, SignalPooling, merge_lanes
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape, uniform_weights
from dsr.ops import Values


class MaxPool2d(Pooling):
    """Largest value in windows of images; what padding adds is never the largest.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Size of a window.
    stride : int or (int, int), optional
        By default `kernel_size`.
    padding : int or (int, int)
        At most half the kernel size.

    Notes
    -----
    Of spikes of one amplitude the largest at a step is their OR: a spike where there is one in the window. They stay
    spikes. Of currents and of graded spikes it is the largest value of each step, and the gradient of each step goes to
    that value; of equal ones, to the first.

    The gradient of the OR goes to the element of the window whose representation (weighted firing rate) is the largest.
    DSR needs the representation o of the output as a function of those of the input, r_i. They do not determine it, as
    it depends on which spikes coincide, but they bound it: ``max_i r_i <= o <= min(sum_i r_i, amplitude)``, since every
    spike of each element is one of the output, and no others are. The lower bound is reached when the spikes of the
    other elements coincide with those of the largest; and, wherever one element alone fires, both bounds are the same.
    The function that is taken is this lower bound, ``o = max_i r_i``, what maximum pooling does in the ordinary twin of
    the network, and its gradient is that of the maximum. It has no time axis.
    """

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Pool every step."""
        features, windows = self.output_features(signal.features), self.windows(signal.features)
        if run.training:
            self._state = signal
        if _stays_spikes(signal):
            run.note(self.path, "OR of spikes")
            return replace(signal, words=ops.or_pool(signal.words, *windows), features=features)
        run.note(self.path, "largest values")
        if run.training and isinstance(signal, Current):
            run.budget.add(self.path, signal)  # the backward pass reads it
        steps = signal.words.shape[3:] if isinstance(signal, SpikeTrain) else signal.shape[3:]
        shape = (*image_shape(features), *steps)
        term = Computed(lambda: ops.max_pool(merge_lanes(signal_values(signal)), *windows).reshape(shape), shape)
        return Current((term,), features, signal.timesteps, needs_gradient=needs_gradient(signal))

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """To the largest."""
        signal, self._state = saved_state(self, self._state), None
        if not needs_gradient(signal):
            return None
        windows = self.windows(signal.features)
        if _stays_spikes(signal):
            weights = uniform_weights(signal.timesteps) if signal.time_weights is None else signal.time_weights
            rates = ops.weighted_sum(signal.values(), weights)
            return map_gradient(gradient, lambda grad: ops.max_pool_backward(grad, _of_steps(rates, grad), *windows))
        assert isinstance(gradient, Gradient)
        values = merge_lanes(signal_values(signal))
        if values.shape[3] == signal.batch:  # the same at every step
            below = gradient.map(lambda grad: ops.max_pool_backward(grad, _of_steps(values, grad), *windows))
        else:
            steps = ops.max_pool_backward(merge_lanes(gradient.dense()), values, *windows)
            below = Gradient.from_dense(steps.reshape(*steps.shape[:3], signal.timesteps, signal.batch))
        return as_wanted(signal, below)

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None: comparisons are free, and the spikes that are left count where they are used."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Maximum pooling, which graphs have of spikes only."""
        return writer.max_pool(self.path, wire, self.kernel_size, self.stride, self.padding)


class MaxPool1d(SignalPooling, MaxPool2d):
    """Largest value in windows of signals (C, L); of spikes their OR, see `MaxPool2d`.

    Parameters
    ----------
    kernel_size : int
        Size of a window.
    stride : int, optional
        By default `kernel_size`.
    padding : int
        At most half the kernel size; what it adds is never the largest.
    """


def _stays_spikes(signal: Signal) -> TypeGuard[SpikeTrain]:
    """Whether the largest element at a step is a spike if there is one: spikes may be given with amplitudes below 0."""
    return isinstance(signal, SpikeTrain) and signal.planes == 1 and bool(np.all(np.asarray(signal.amplitude) > 0))


def _of_steps(values: Values, grad: Values) -> Values:
    """Values (C, H, W, B) for each step of a gradient (C, H', W', B or T B)."""
    lanes, batch = grad.shape[3], values.shape[3]
    return values if lanes == batch else np.tile(values, lanes // batch)
