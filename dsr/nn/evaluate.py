"""How signals are evaluated: currents through neurons to spikes, convolutions, and the gradients of both.

Every choice between a general way and a faster one is made here, by what a signal consists of; layers say what they
compute, not how. Each choice is noted in the pass (`dsr.nn.run.Run`), so that `dsr.inspect.plan` and the tests see it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    needs_gradient,
    signal_values,
    trains_of,
)
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.rounding import DATA_BITS, rounded
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape, uniform_weights
from dsr.ops import NeuronModel, Sums, Values, Words


def spikes(current: Current, neuron: NeuronModel, weights: Values, path: str, run: Run) -> Words:
    """Spikes of neurons with this input current; in training its sums over time are kept, and its values by budget.

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
    fused = None if run.training or current.is_written else _one_convolution(current.terms)
    if fused is not None:
        run.note(path, "fused with the convolution" + (" and the shortcut" if fused.shortcut is not None else ""))
        return ops.conv2d_neuron_spikes(fused, neuron, current.scale, current.shift)
    run.note(path, f"from {_named(current)}")
    uniform = uniform_weights(current.timesteps)
    is_uniform = bool((weights == uniform).all())
    words, sums, weighted = ops.neuron_spikes(
        current.values(), current.timesteps, neuron, None if is_uniform else weights, current.scale, current.shift
    )
    current.keep_sum(uniform, sums)
    if weighted is not None:
        current.keep_sum(weights, weighted)
    if run.training:
        run.budget.add(path, current)
    return words


def _one_convolution(terms: tuple[Term, ...]) -> ops.SpikeConvolution | None:
    """The terms as one convolution of spikes, to which spikes may be added; None if they are anything else."""
    match terms:
        case (ConvolvedSpikes() as convolved,):
            return convolved.convolution
        case (ConvolvedSpikes() as convolved, Spikes(train=SpikeTrain(planes=1) as train) as added) if (
            type(added) is Spikes  # not pooled ones
        ):
            return replace(convolved.convolution, shortcut=train.words, shortcut_amplitude=train.amplitude)
    return None


def _named(current: Current) -> str:
    """What a current is the sum of, in words."""
    return " + ".join(_NAMES.get(type(term), type(term).__name__) for term in current.terms)


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
            kernel = rounded(kernel, run.weight_bits if needs_gradient(signal) is True else DATA_BITS)
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
        biases = [bias, *[None] * (len(self.trains) - 1)]
        return tuple(
            ConvolvedSpikes(
                train,
                ops.SpikeConvolution(
                    train.words,
                    train.weigh(self.kernel),
                    b,
                    train.common_amplitude,
                    self.geometry,
                    self._table_bits(train),
                ),
            )
            for train, b in zip(self.trains, biases, strict=True)
        )

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
            varies = "constant gradient" if slope is None else "gradient of every step"
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
                    ),
                    self.kernel.shape,
                )
                for train in self.trains
            ]
            return sum(parts[1:], parts[0])
        self.run.note(self.path, "weight gradient on dense values")
        values = signal_values(self.signal)
        steps = gradient.total() if values.shape[3] == 1 else gradient.dense()
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
