"""Residual connections between spikes, element by element."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from dsr import ops
from dsr.nn.branches import add_signals
from dsr.nn.currents import Signal, needs_gradient
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, add_gradients, as_wanted
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, uniform_weights
from dsr.ops import Values

Connection = Literal["add", "and", "iand"]


class SpikeResidual(Layer):
    """The spikes A of a body and those that came in, S, connected element by element (Fang et al. 2021, SEW-ResNet).

    Parameters
    ----------
    body : Layer
        It ends in neurons.
    connect : {"add", "and", "iand"}
        ``A + S``: both trains, each of its amplitude. ``A and S``: the spikes of S where A fires too.
        ``(not A) and S``: the spikes of S where A does not fire. The last two give one train, of the amplitude of S.
    shortcut : Layer, optional
        It ends in neurons, and gives S; by default S is what came in.

    Notes
    -----
    ``A + S`` has the exact gradient, that of a sum. For the others DSR needs the representation o of the output as a
    function of the firing rates a and s, in [0, 1], of the two trains (weighted, if their neurons weigh time). These
    bound it, ``max(0, a + s - 1) <= o <= min(a, s)`` for "and", but do not determine it, as it depends on which spikes
    coincide. The function taken is the product, which is what independent trains give on average, and always lies
    within the bounds: ``o = V a s`` for "and", ``o = V (1 - a) s`` for "iand", V being the amplitude of S. So the
    gradients by a and s are ``V s`` and ``V a``, or ``-V s`` and ``V (1 - a)``. They have no time axis.
    """

    def __init__(self, body: Layer, connect: Connection = "add", shortcut: Layer | None = None) -> None:
        for name, layer in [("body", body), *([] if shortcut is None else [("shortcut", shortcut)])]:
            if not isinstance(layer, Layer):
                raise TypeError(f"SpikeResidual: argument '{name}': expected a layer, got {type(layer).__name__}")
        if connect not in get_args(Connection):
            given = repr(connect) if isinstance(connect, str) else type(connect).__name__
            wanted = f"one of {', '.join(get_args(Connection))}"
            raise ValueError(f"SpikeResidual: argument 'connect': expected {wanted}, got {given}")
        self.body, self.connect, self.shortcut = body, connect, shortcut
        self._state: tuple[Signal, SpikeTrain, SpikeTrain] | None = None

    def children(self) -> dict[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} if self.shortcut is None else {"body": self.body, "shortcut": self.shortcut}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Connect the spikes."""
        trains = self.body(signal, run), signal if self.shortcut is None else self.shortcut(signal, run)
        for name, train in zip(("the body", "the shortcut"), trains, strict=True):
            if not isinstance(train, SpikeTrain):
                raise ValueError(f"SpikeResidual {self.path}: expected spikes from {name}, got {train}")
        body, other = trains
        assert isinstance(body, SpikeTrain) and isinstance(other, SpikeTrain)
        if body.features != other.features:
            raise ValueError(
                f"SpikeResidual {self.path}: expected outputs of one shape from body and shortcut, got {body.features} "
                f"and {other.features}"
            )
        if run.training:
            self._state = signal, body, other
        if self.connect == "add":
            return add_signals(trains)
        if body.planes > 1 or other.planes > 1:
            raise ValueError(
                f'SpikeResidual {self.path}: expected neurons of one level for connect="{self.connect}", got graded '
                'spikes: a step has several of them; connect="add" takes them'
            )
        gate = body.words if self.connect == "and" else ~body.words
        a, b = body.time_weights, other.time_weights
        weights = a if a is not None and b is not None and np.array_equal(a, b) else None
        return replace(other, words=gate & other.words, time_weights=weights)

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Sum of the gradients of the two ways."""
        (signal, body, other), self._state = saved_state(self, self._state), None
        if self.connect == "add":
            assert isinstance(gradient, Gradient)
            of_body, of_other = as_wanted(body, gradient), as_wanted(other, gradient)
        else:
            a, s, height = _rates(body), _rates(other), _by_channel(other.amplitude)
            sign = 1 if self.connect == "and" else -1
            # by representations, V a: the body's is A times its rate, the shortcut's V times its own
            of_body = _scaled(gradient, np.float32(sign) * s * height / _by_channel(body.amplitude), body)
            of_other = _scaled(gradient, a if self.connect == "and" else 1 - a, other)
        below = self.body.backward(of_body)
        own = of_other if self.shortcut is None else self.shortcut.backward(of_other)
        if below is None or own is None or not needs_gradient(signal):
            return None
        return add_gradients(below, own)

    def kind(self) -> str:
        """Class and connection."""
        return f"SpikeResidual {self.connect.upper()}"

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: what is left of the spikes counts where it is used."""
        if self.connect == "add":
            other = signal if self.shortcut is None else counter.output_of(self.shortcut.path)
            counter.merge([counter.output_of(self.body.path), other], output, lambda parts: parts[0] + parts[1])

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A fork, and a sum or a gate."""
        wire = writer.fork(self.path, wire)
        body = writer.layer(self.body, wire)
        other = wire if self.shortcut is None else writer.layer(self.shortcut, wire)
        return (
            writer.add(body, other)
            if self.connect == "add"
            else writer.gate(self.path, other, body, self.connect == "and")
        )


def _rates(train: SpikeTrain) -> Values:
    """Firing rates, (C, H, W, B), in the weights of the train."""
    weights = uniform_weights(train.timesteps) if train.time_weights is None else train.time_weights
    return ops.weighted_sum(ops.unpack_words(train.words, train.channels), weights / np.float32(train.timesteps))


def _by_channel(amplitude: ops.PerChannel) -> Any:
    return amplitude.reshape(-1, 1, 1, 1) if isinstance(amplitude, np.ndarray) else np.float32(amplitude)


def _scaled(gradient: SignalGradient, factor: Values, signal: SpikeTrain) -> SignalGradient:
    """The gradient times numbers (C, H, W, B), as `signal` wants it."""
    if not isinstance(gradient, Gradient):
        return gradient * factor
    return as_wanted(
        signal, gradient.map(lambda grad: grad * np.tile(factor, grad.shape[3] // max(factor.shape[3], 1)))
    )
