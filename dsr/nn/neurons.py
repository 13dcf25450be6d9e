"""IF and LIF neuron layers: currents in, spikes out, gradients through the mapping of representations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dsr import functional, ops
from dsr.nn import evaluate
from dsr.nn.currents import Current, Signal, as_current
from dsr.nn.describe import GraphWriter, OperationCounter, Total
from dsr.nn.gradients import SignalGradient
from dsr.nn.layer import Layer, Parameter, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, decaying_weights, uniform_weights
from dsr.ops import NeuronModel, PerChannel, Values
from dsr.ops.arguments import LARGEST, SMALLEST, as_flag, as_number, as_positive, as_positives, shown
from dsr.ops.neurons import as_levels

Doubles = NDArray[np.float64]
Thresholds = float | Sequence[float] | NDArray[np.floating[Any]]
"""What layers take: a number, or one for each channel."""


class Neuron(Layer):
    """Base of spiking layers: what a neuron model adds is a `NeuronModel`, its time weights, and its mapping.

    ``class MyNeuron(Neuron, kind="mine")`` gives it a name for recipes, benchmarks and the command line. There is one
    threshold, a number, or one for each channel, an array (C,). It is trained, or fixed: then it is a buffer, kept in
    checkpoints but unknown to optimisers. A forward pass uses it clamped from below:
    ``V = max(V - bound, 0) + bound``; an optimiser clamps it before each step.
    """

    input_axes = "any"

    delta_t: float | None = None
    """Length of a time step, for neurons that know one."""

    kinds: ClassVar[dict[str, type[Neuron]]] = {}
    """The models by name."""

    def __init_subclass__(cls, kind: str = "", **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if kind:
            Neuron.kinds[kind] = cls

    def __init__(
        self,
        v_threshold: Thresholds,
        alpha: float,
        v_threshold_lower_bound: float,
        train_threshold: bool,
        threshold_gradient_scale: float,
        levels: int = 1,
    ) -> None:
        name = type(self).__name__
        self.alpha = as_number(name, "alpha", alpha, lambda a: 2.0**-20 <= a <= 1, "a number in [2**-20, 1]")
        bound = as_positive(name, "v_threshold_lower_bound", v_threshold_lower_bound)
        self.train_threshold = as_flag(name, "train_threshold", train_threshold)
        scale = threshold_gradient_scale
        self.threshold_gradient_scale = as_number(
            name, "threshold_gradient_scale", scale, lambda value: 0 <= value <= LARGEST, "a number >= 0"
        )
        self.levels = as_levels(name, levels)
        self.v_threshold = Parameter(_threshold(name, v_threshold), bound)
        self._state: tuple[Current, NeuronModel, Run] | None = None

    @property
    def v_threshold_lower_bound(self) -> float:
        """The threshold is never used below it."""
        bound = self.v_threshold.lower_bound
        assert bound is not None
        return bound

    @v_threshold_lower_bound.setter
    def v_threshold_lower_bound(self, value: float) -> None:
        name = type(self).__name__
        self.v_threshold.lower_bound = as_positive(name, "v_threshold_lower_bound", value)

    def model(self, threshold: PerChannel) -> NeuronModel:
        """The neurons with this threshold, or these of the channels."""
        raise NotImplementedError

    def time_weights(self, timesteps: int) -> Values:
        """Weights (T,) of the representation, of mean 1."""
        raise NotImplementedError

    def mapping(self, mean_current: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
        """The representation that many steps approach, as a fraction of a spike's height, and where it rises."""
        raise NotImplementedError

    def threshold_for(self, activation: float) -> float:
        """The threshold at which the mapping ends where the mean current is `activation`."""
        raise NotImplementedError

    @staticmethod
    def by_channel(numbers: PerChannel) -> PerChannel:
        """Numbers of channels in the shape that goes with (C, H, W, B)."""
        return numbers.reshape(-1, 1, 1, 1) if isinstance(numbers, np.ndarray) else numbers

    def threshold_gradient_factor(self) -> float:
        """Factor of the sum of gradients over saturated neurons in the threshold's gradient."""
        return 1.0

    def parameters(self) -> Mapping[str, Parameter]:
        """``v_threshold``, a scalar or (C,), if it is trained."""
        return {"v_threshold": self.v_threshold} if self.train_threshold else {}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``v_threshold``, a scalar or (C,), if it is fixed."""
        return {} if self.train_threshold else {"v_threshold": self.v_threshold.value}

    def effective_threshold(self) -> PerChannel:
        """The threshold that a forward pass uses: the trained one, clamped; (C,) where each channel has its own."""
        value = self.v_threshold.bounded()
        bad = ~np.isfinite(value)
        if bad.any():
            channel = f" of channel {int(bad.argmax())}" if value.ndim else ""
            raise FloatingPointError(f"{type(self).__name__} {self.path}: v_threshold{channel} is {value[bad].flat[0]}")
        return value if value.ndim else float(value)

    def mean_threshold(self) -> float:
        """The effective threshold, or the mean of those of the channels: one number for tables and plots."""
        return float(np.mean(self.effective_threshold(), dtype=np.float64))

    def effective_model(self) -> NeuronModel:
        """The neurons that a forward pass uses; FloatingPointError if their threshold is beyond what float32 holds."""
        try:
            return self.model(self.effective_threshold())
        except ValueError as error:
            raise FloatingPointError(str(error)) from None

    def amplitude(self, threshold: PerChannel) -> PerChannel:
        """The height of a spike with this threshold."""
        return self.model(threshold).amplitude

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Spikes of the current."""
        thresholds = self.v_threshold.value
        if thresholds.ndim and len(thresholds) != signal.channels:
            name = f"{type(self).__name__} {self.path}"
            raise ValueError(f"{name}: expected {len(thresholds)} channels, as v_threshold has, got {signal.features}")
        current, model, weights = as_current(signal), self.effective_model(), self.time_weights(signal.timesteps)
        words = evaluate.spikes(current, model, weights, self.path, run)
        if run.training:
            self._state = current, model, run
        return SpikeTrain(words, signal.features, model.amplitude, weights, model.planes)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """The same gradient for every step of the current, and the threshold's."""
        current, model, run = saved_state(self, self._state)
        self._state = None
        weights = self.time_weights(current.timesteps)
        below, above = evaluate.neuron_gradient(gradient, current, model, weights, self.path, run)
        if self.train_threshold:
            factor = self.levels * self.threshold_gradient_factor() * self.threshold_gradient_scale
            if self.v_threshold.value.ndim == 0:
                above = above.cumsum()[-1]  # in order, unlike NumPy's sum
            self.v_threshold.grad = np.array(above * factor, np.float32)
        return below

    def kind(self) -> str:
        """The class, and the spikes of a step where there may be several."""
        return super().kind() + (f", {self.levels} levels" if self.levels > 1 else "")

    def multiply_adds(self, output_features: tuple[int, ...]) -> int:
        """None."""
        return 0

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Additions of spikes that come in as they are, and an update of each neuron and step."""
        counter.additions(self.path, signal)
        counter.updates(self.path, output, self.effective_model())

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Neurons that reset by subtraction."""
        threshold = self.effective_threshold()
        return writer.neuron(self.path, wire, self.effective_model(), threshold, self.alpha, self.leak())

    def leak(self) -> float:
        """Length of a time step in time constants; 0 for neurons that do not leak."""
        return 0.0

    def join_ranks(self, rank: int, total: Total | None) -> None:
        """All ranks have the threshold of rank 0."""


def _threshold(name: str, v_threshold: Thresholds) -> NDArray[Any]:
    """One threshold, or those of the channels."""
    if isinstance(v_threshold, Sequence | np.ndarray) and not isinstance(v_threshold, str) and np.ndim(v_threshold) > 0:
        if len(v_threshold) == 0:
            raise ValueError(f"{name}: argument 'v_threshold': expected a number or one for each channel, got none")
        return as_positives(name, "v_threshold", v_threshold)
    number: Any = v_threshold
    return np.array(as_positive(name, "v_threshold", number))


class IF(Neuron, kind="if"):
    """Integrate-and-fire neurons with a trained threshold.

    Parameters
    ----------
    v_threshold : float or array_like, shape (C,)
        Initial threshold and height of a spike, > 0; of all neurons, or of those of each channel.
    alpha : float
        Fraction of the threshold at which a neuron fires, in [2**-20, 1].
    v_threshold_lower_bound : float
        The threshold never falls below it.
    train_threshold : bool
        Whether the threshold is trained.
    threshold_gradient_scale : float
        Factor of the threshold's gradient, >= 0; 0.001 in the published ImageNet recipe.
    levels : int
        Spikes that a neuron emits at a step at most, 1 to 255: graded spikes, see `dsr.functional.if_forward`.

    Notes
    -----
    Meng et al. 2022; see `dsr.functional.if_forward` and `dsr.functional.if_backward`.
    """

    def __init__(
        self,
        v_threshold: Thresholds = 6.0,
        alpha: float = 0.5,
        v_threshold_lower_bound: float = 0.01,
        *,
        train_threshold: bool = True,
        threshold_gradient_scale: float = 1.0,
        levels: int = 1,
    ) -> None:
        super().__init__(v_threshold, alpha, v_threshold_lower_bound, train_threshold, threshold_gradient_scale, levels)

    def model(self, threshold: PerChannel) -> NeuronModel:
        """Decay and gain are 1, a spike is worth the threshold."""
        return ops.if_model(threshold, self.alpha, levels=self.levels, function=f"IF {self.path}".rstrip())

    export = Neuron.export

    def time_weights(self, timesteps: int) -> Values:
        """All one."""
        return uniform_weights(timesteps)

    def mapping(self, mean_current: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
        """``clip(z, 0, levels V) / V``."""
        relative = mean_current / self.by_channel(self.effective_threshold())
        slope, _ = functional.if_rate_backward(np.ones_like(relative), relative, 1.0, levels=self.levels)
        return functional.if_rate(relative, 1.0, levels=self.levels), slope != 0

    def threshold_for(self, activation: float) -> float:
        """``clip(z, 0, levels V)`` ends at ``z = levels V``."""
        return activation / self.levels


class LIF(Neuron, kind="lif"):
    """Leaky integrate-and-fire neurons with a trained threshold.

    Parameters
    ----------
    v_threshold : float or array_like, shape (C,)
        Initial threshold, > 0, of all neurons, or of those of each channel; a spike is worth ``v_threshold / delta_t``.
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
    levels : int
        Spikes that a neuron emits at a step at most, 1 to 255: graded spikes, see `dsr.functional.if_forward`.

    Notes
    -----
    Meng et al. 2022; see `dsr.functional.lif_forward` and `dsr.functional.lif_backward`.
    """

    def __init__(
        self,
        v_threshold: Thresholds = 0.3,
        tau: float = 1.0,
        delta_t: float = 0.05,
        alpha: float = 0.3,
        v_threshold_lower_bound: float = 0.0005,
        gradient: functional.ThresholdGradient = "published",
        *,
        train_threshold: bool = True,
        threshold_gradient_scale: float = 1.0,
        levels: int = 1,
    ) -> None:
        super().__init__(v_threshold, alpha, v_threshold_lower_bound, train_threshold, threshold_gradient_scale, levels)
        self.tau, self.delta_t = as_positive("LIF", "tau", tau), as_positive("LIF", "delta_t", delta_t)
        heights = self.v_threshold.value.astype(np.float64) / self.delta_t
        if not ((heights >= SMALLEST) & (heights <= LARGEST)).all():
            raise ValueError(
                "LIF: expected v_threshold / delta_t, the height of a spike, in [2**-126, 2**126], got "
                f"{shown(v_threshold)} / {delta_t}"
            )
        functional.threshold_factor("LIF", self.delta_t, gradient)  # refuses an unknown name
        self.gradient = gradient

    delta_t: float

    def model(self, threshold: PerChannel) -> NeuronModel:
        """``decay = exp(-delta_t / tau)``, ``gain = 1 - decay``; a spike is worth ``threshold / delta_t``."""
        numbers = threshold, self.tau, self.delta_t, self.alpha
        return ops.lif_model(*numbers, levels=self.levels, function=f"LIF {self.path}".rstrip())

    export = Neuron.export

    def time_weights(self, timesteps: int) -> Values:
        """``exp(-(delta_t / tau) (T - 1 - t))``, scaled to mean 1."""
        return decaying_weights(timesteps, self.tau, self.delta_t)

    def mapping(self, mean_current: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
        """``clip(z / tau, 0, levels V / delta_t)`` in units of ``V / delta_t``."""
        relative = mean_current / self.by_channel(self.effective_threshold())
        numbers = 1.0, self.tau, self.delta_t
        slope, _ = functional.lif_rate_backward(np.ones_like(relative), relative, *numbers, levels=self.levels)
        return functional.lif_rate(relative, *numbers, levels=self.levels) * self.delta_t, slope != 0

    def threshold_for(self, activation: float) -> float:
        """``clip(z / tau, 0, levels V / delta_t)`` ends at ``z = levels tau V / delta_t``."""
        return activation * self.delta_t / self.tau / self.levels

    def threshold_gradient_factor(self) -> float:
        """`delta_t`, or its inverse with the exact gradient."""
        return functional.threshold_factor("LIF", self.delta_t, self.gradient)

    def leak(self) -> float:
        """``delta_t / tau``."""
        return self.delta_t / self.tau
