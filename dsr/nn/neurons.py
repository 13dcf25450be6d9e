"""IF and LIF neuron layers: currents in, spikes out, gradients through the mapping of representations; and ReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import functional, ops
from dsr.functional import threshold_factor
from dsr.nn.currents import Backward, Current, Gradient, Signal, Store, as_wanted, needs_gradient, signal_values
from dsr.nn.layer import Layer, Parameter, Run, saved_state
from dsr.nn.spikes import SpikeTrain, decaying_weights, uniform_weights
from dsr.ops import Values, Words
from dsr.ops.arguments import LARGEST, SMALLEST, as_flag, as_number, as_positive


class Neuron(Layer):
    """What IF and LIF share.

    The threshold is trained, or fixed: then it is a buffer, kept in checkpoints but unknown to optimisers. Before each
    forward pass it is clamped from below: ``V = max(V - bound, 0) + bound``.
    """

    def __init__(
        self,
        v_threshold: float,
        alpha: float,
        v_threshold_lower_bound: float,
        train_threshold: bool,
        threshold_gradient_scale: float,
    ) -> None:
        name = type(self).__name__
        self.alpha = as_number(name, "alpha", alpha, lambda a: 2.0**-20 <= a <= 1, "a number in [2**-20, 1]")
        self.v_threshold_lower_bound = as_positive(name, "v_threshold_lower_bound", v_threshold_lower_bound)
        self.train_threshold = as_flag(name, "train_threshold", train_threshold)
        scale = threshold_gradient_scale
        self.threshold_gradient_scale = as_number(
            name, "threshold_gradient_scale", scale, lambda value: 0 <= value <= LARGEST, "a number >= 0"
        )
        self.v_threshold = Parameter(np.array(as_positive(name, "v_threshold", v_threshold)))
        self._state: tuple[Current, float] | None = None

    def parameters(self) -> Mapping[str, Parameter]:
        """``v_threshold``, a scalar, if it is trained."""
        return {"v_threshold": self.v_threshold} if self.train_threshold else {}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``v_threshold``, a scalar, if it is fixed."""
        return {} if self.train_threshold else {"v_threshold": self.v_threshold.value}

    def effective_threshold(self) -> float:
        """The threshold that a forward pass uses: the trained one, clamped."""
        bound = np.float32(self.v_threshold_lower_bound)
        value = float(np.maximum(self.v_threshold.value - bound, np.float32(0)) + bound)
        if not np.isfinite(value):
            raise FloatingPointError(f"{type(self).__name__} {self.path}: v_threshold is {value}")
        return value

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Spikes of the current."""
        if isinstance(signal, SpikeTrain):
            values = Store(signal.values())
            signal = Current(values, signal.timesteps, signal.features, time_weights=signal.time_weights)
        threshold = self.effective_threshold()
        amplitude = self.amplitude(threshold)
        pending = None if run.training else signal.store.pending
        weights = self._weights(signal.timesteps)
        if pending is None:
            words = self._spikes(signal, threshold, weights)
        else:
            words = ops.conv2d_neuron_spikes(pending, self._model(threshold), signal.scale, signal.shift)
        if run.training:
            self.v_threshold.value[...] = threshold
            self._state = signal, threshold
            run.keeper.keep(signal.store)
        return SpikeTrain(words, signal.features, amplitude, weights)

    def backward(self, gradient: Backward) -> Backward | None:
        """The same gradient for every step of the current, and the threshold's."""
        current, threshold = saved_state(self, self._state)
        self._state = None
        weights = self._weights(current.timesteps)
        if isinstance(gradient, Gradient):
            gradient = gradient.summed(weights)
        sums = current.store.weighted_sum(weights)
        model = self._model(threshold)
        grad_current, above = ops.neuron_spikes_backward(
            gradient, sums, current.timesteps, model, current.scale, current.shift
        )
        if self.train_threshold:
            grad_threshold = above * self._threshold_factor() * self.threshold_gradient_scale
            self.v_threshold.grad = np.array(grad_threshold, np.float32)
        return as_wanted(current, Gradient(grad_current, current.timesteps)) if current.needs_gradient else None

    def _spikes(self, current: Current, threshold: float, weights: Values) -> Words:
        uniform = uniform_weights(current.timesteps)
        two = None if np.array_equal(weights, uniform) else weights
        words, sums, weighted = ops.neuron_spikes(
            current.values, current.timesteps, self._model(threshold), two, current.scale, current.shift
        )
        current.store.keep_sum(uniform, sums)
        if weighted is not None:
            current.store.keep_sum(weights, weighted)
        return words

    def _model(self, threshold: float) -> ops.NeuronModel:
        raise NotImplementedError

    def _threshold_factor(self) -> float:
        return 1.0

    def amplitude(self, threshold: float) -> float:
        """The height of a spike with this threshold."""
        raise NotImplementedError

    def _weights(self, timesteps: int) -> Values:
        raise NotImplementedError


class IF(Neuron):
    """Integrate-and-fire neurons with a trained threshold.

    Parameters
    ----------
    v_threshold : float
        Initial threshold and height of a spike, > 0.
    alpha : float
        Fraction of the threshold at which a neuron fires, in [2**-20, 1].
    v_threshold_lower_bound : float
        The threshold never falls below it.
    train_threshold : bool
        Whether the threshold is trained.
    threshold_gradient_scale : float
        Factor of the threshold's gradient, >= 0; 0.001 in the published ImageNet recipe.

    Notes
    -----
    Meng et al. 2022; see `dsr.functional.if_forward` and `dsr.functional.if_backward`.
    """

    def __init__(
        self,
        v_threshold: float = 6.0,
        alpha: float = 0.5,
        v_threshold_lower_bound: float = 0.01,
        *,
        train_threshold: bool = True,
        threshold_gradient_scale: float = 1.0,
    ) -> None:
        super().__init__(v_threshold, alpha, v_threshold_lower_bound, train_threshold, threshold_gradient_scale)

    def _model(self, threshold: float) -> ops.NeuronModel:
        return ops.if_model(threshold, self.alpha, function="IF")

    def amplitude(self, threshold: float) -> float:
        """The threshold."""
        return threshold

    def _weights(self, timesteps: int) -> Values:
        return uniform_weights(timesteps)


class LIF(Neuron):
    """Leaky integrate-and-fire neurons with a trained threshold.

    Parameters
    ----------
    v_threshold : float
        Initial threshold, > 0; a spike is worth ``v_threshold / delta_t``.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    alpha : float
        Fraction of the threshold at which a neuron fires, in [2**-20, 1].
    v_threshold_lower_bound : float
        The threshold never falls below it.
    gradient : {"published", "exact"}
        Factor of the threshold's gradient, see `dsr.functional.lif_backward`.
    train_threshold : bool
        Whether the threshold is trained.
    threshold_gradient_scale : float
        Another factor of the threshold's gradient, >= 0.

    Notes
    -----
    Meng et al. 2022; see `dsr.functional.lif_forward` and `dsr.functional.lif_backward`.
    """

    def __init__(
        self,
        v_threshold: float = 0.3,
        tau: float = 1.0,
        delta_t: float = 0.05,
        alpha: float = 0.3,
        v_threshold_lower_bound: float = 0.0005,
        gradient: functional.ThresholdGradient = "published",
        *,
        train_threshold: bool = True,
        threshold_gradient_scale: float = 1.0,
    ) -> None:
        super().__init__(v_threshold, alpha, v_threshold_lower_bound, train_threshold, threshold_gradient_scale)
        self.tau, self.delta_t = as_positive("LIF", "tau", tau), as_positive("LIF", "delta_t", delta_t)
        if not SMALLEST <= float(self.v_threshold.value) / self.delta_t <= LARGEST:
            raise ValueError(
                "LIF: expected v_threshold / delta_t, the height of a spike, in [2**-126, 2**126], got "
                f"{v_threshold} / {delta_t}"
            )
        threshold_factor("LIF", self.delta_t, gradient)  # refuses an unknown name
        self.gradient = gradient

    def _model(self, threshold: float) -> ops.NeuronModel:
        return ops.lif_model(threshold, self.tau, self.delta_t, self.alpha, function="LIF")

    def _threshold_factor(self) -> float:
        return threshold_factor("LIF", self.delta_t, self.gradient)

    def amplitude(self, threshold: float) -> float:
        """The threshold by `delta_t`, in float32."""
        with np.errstate(over="ignore"):
            height = float(np.float32(threshold) / np.float32(self.delta_t))
        if not np.isfinite(height):
            raise FloatingPointError(f"LIF {self.path}: v_threshold / delta_t is {threshold} / {self.delta_t}")
        return height

    def _weights(self, timesteps: int) -> Values:
        return decaying_weights(timesteps, self.tau, self.delta_t)


class ReLU(Layer):
    """``max(z, 0)``, in the place of neurons: the ordinary twin of a spiking network, without time (T = 1).

    It is what IF and LIF approach with many steps and a high threshold, so weights and thresholds of a spiking network
    may start from a trained ReLU network, see `dsr.train.hybrid`. The gradient at 0 is 0.
    """

    def __init__(self) -> None:
        self._state: tuple[Signal, Values] | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """The positive part of the current."""
        if signal.timesteps != 1:
            raise ValueError(f"ReLU {self.path}: expected timesteps = 1, got {signal.timesteps}")
        values = np.maximum(signal_values(signal), np.float32(0))
        if run.training:
            self._state = signal, values
            if isinstance(signal, Current):
                run.keeper.keep(signal.store)
        return Current(
            Store(values),
            signal.timesteps,
            signal.features,
            time_weights=uniform_weights(1),
            needs_gradient=needs_gradient(signal),
        )

    def backward(self, gradient: Backward) -> Backward | None:
        """The gradient where the output is above 0."""
        signal, values = saved_state(self, self._state)
        self._state = None
        if not needs_gradient(signal):
            return None
        grad = gradient.total() if isinstance(gradient, Gradient) else gradient
        return as_wanted(signal, Gradient(np.where(values[:, :, :, 0] > 0, grad, np.float32(0)), 1))
