"""Layers made of layers: one after the other, and a body with a shortcut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsr.nn.branches import add_signals
from dsr.nn.currents import Signal, needs_gradient
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, add_gradients, as_wanted
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run


class Sequential(Layer):
    """Layers one after the other.

    Parameters
    ----------
    *layers : Layer
        Named ``"0"``, ``"1"``, ... in checkpoints.
    **named : Layer
        Named by their keywords.
    """

    def __init__(self, *layers: Layer, **named: Layer) -> None:
        self.layers: dict[str, Layer] = {str(i): layer for i, layer in enumerate(layers)} | named
        for name, layer in self.layers.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential: argument '{name}': expected a layer, got {type(layer).__name__}")

    def children(self) -> Mapping[str, Layer]:
        """The layers."""
        return self.layers

    def forward(self, signal: Signal, run: Run) -> Signal:
        """All layers in order."""
        for layer in self.layers.values():
            signal = layer(signal, run)
        return signal

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """All layers in reverse; stops where nothing below needs a gradient."""
        below: SignalGradient | None = gradient
        for layer in reversed(self.layers.values()):
            if below is None:
                break
            below = layer.backward(below)
        return below

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """All layers in order."""
        for layer in self.layers.values():
            wire = writer.layer(layer, wire)
        return wire


class Residual(Layer):
    """``body(x) + shortcut(x)``.

    Parameters
    ----------
    body : Layer
        One way.
    shortcut : Layer, optional
        The other way; by default x itself.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        for name, layer in [("body", body), *([] if shortcut is None else [("shortcut", shortcut)])]:
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: argument '{name}': expected a layer, got {type(layer).__name__}")
        self.body, self.shortcut = body, shortcut
        self._state: tuple[Signal, Signal, Signal] | None = None

    def children(self) -> Mapping[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} if self.shortcut is None else {"body": self.body, "shortcut": self.shortcut}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """The sum, as the terms of both ways."""
        body = self.body(signal, run)
        other = signal if self.shortcut is None else self.shortcut(signal, run)
        if body.features != other.features:
            raise ValueError(
                f"Residual {self.path}: expected outputs of one shape from body and shortcut, got {body.features} and "
                f"{other.features}"
            )
        if run.training:
            self._state = signal, body, other
        return add_signals([body, other])

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Sum of the gradients of the two ways."""
        (signal, body, other), self._state = saved_state(self, self._state), None
        assert isinstance(gradient, Gradient)
        of_body, of_other = as_wanted(body, gradient), as_wanted(other, gradient)
        below = self.body.backward(of_body)
        own = of_other if self.shortcut is None else self.shortcut.backward(of_other)
        if below is None or own is None or not needs_gradient(signal):
            return None
        return add_gradients(below, own)

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Spikes of the shortcut are added as they are; to spikes, they count where the sum is used."""
        other = signal if self.shortcut is None else counter.output_of(self.shortcut.path)
        if not counter.merge([counter.output_of(self.body.path), other], output, lambda parts: parts[0] + parts[1]):
            counter.additions(self.path, other)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A fork and a sum."""
        wire = writer.fork(self.path, wire)
        body = writer.layer(self.body, wire)
        return writer.add(body, wire if self.shortcut is None else writer.layer(self.shortcut, wire))
