"""Layer: an object with a forward pass, a backward pass and parameters; and the containers that wire layers.

There is no tape. `forward(signal, run)` takes and gives a `SpikeTrain` or a `Current`; in training it keeps what
`backward(gradient)` needs, which takes the gradient of the layer's output and gives that of its input, in the form
that the input's `time_weights` ask for (see `dsr.nn.currents`). A forward pass without training keeps nothing and
changes nothing, so threads may share a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr import ops
from dsr.nn.currents import (
    Backward,
    Current,
    Gradient,
    Keeper,
    Signal,
    Store,
    add_gradients,
    as_wanted,
    needs_gradient,
    signal_values,
)
from dsr.nn.spikes import SpikeTrain
from dsr.ops import Values
from dsr.ops.arguments import as_array


class Parameter:
    """A trained array and its gradient.

    Attributes
    ----------
    value : ndarray of float32
        Changed in place by an optimiser.
    grad : ndarray of float32 or None
        Gradient of the loss of the last backward pass.
    rate : float
        Factor of the optimiser's learning rate; weight decay is divided by it, so that both together stay the same.
    """

    def __init__(self, value: ArrayLike) -> None:
        self.rate = 1.0
        self.value: Values = np.array(as_array("Parameter", "value", value), np.float32, order="C")
        self.grad: Values | None = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.value.shape})"


@dataclass(frozen=True)
class Run:
    """What a pass through a network is for.

    Attributes
    ----------
    training : bool
        Batch statistics, dropout, and state for `backward`; else running statistics and nothing kept.
    observer : callable or None
        Called as ``observer(path, layer, output)`` after each layer's forward pass.
    keeper : Keeper
        In training: which currents are kept for the backward pass.
    """

    training: bool = False
    observer: Callable[[str, Layer, Signal], None] | None = None
    keeper: Keeper = field(default_factory=lambda: Keeper(0))


class Layer:
    """Base of all layers."""

    path: str = ""
    """Where the layer is in its network, such as ``block1.conv2``; set by `dsr.Network`."""

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Output of the layer."""
        raise NotImplementedError

    def backward(self, gradient: Backward) -> Backward | None:
        """Gradient of the input, after `forward` in training; gradients of parameters go to their `grad`."""
        raise NotImplementedError

    def __call__(self, signal: Signal, run: Run) -> Signal:
        """`forward`, seen by the run's observer."""
        output = self.forward(signal, run)
        if run.observer is not None:
            run.observer(self.path, self, output)
        return output

    def children(self) -> Mapping[str, Layer]:
        """Layers inside this one, by name."""
        return {}

    def parameters(self) -> Mapping[str, Parameter]:
        """The layer's own trained arrays, by name."""
        return {}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """The layer's own arrays that are state but not trained, by name."""
        return {}

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the layer's own parameters."""

    def calibrate(self, batches: Iterable[Values]) -> None:
        """Set what follows from batches of training images, (N, C, H, W) each, once, before training."""

    def walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """This layer and all inside it with their paths, outside first, in forward order."""
        yield path, self
        for name, child in self.children().items():
            yield from child.walk(f"{path}.{name}" if path else name)


def saved_state(layer: Layer, state: Any) -> Any:
    """What the forward pass kept, or an error that says that there was none."""
    if state is None:
        raise RuntimeError(
            f"{type(layer).__name__} {layer.path}: backward without a forward pass in training before it"
        )
    return state


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

    def backward(self, gradient: Backward) -> Backward | None:
        """All layers in reverse; stops where nothing below needs a gradient."""
        below: Backward | None = gradient
        for layer in reversed(self.layers.values()):
            if below is None:
                break
            below = layer.backward(below)
        return below


@runtime_checkable
class AddsInPlace(Protocol):
    """A layer that can add its output to values that are there already, as convolutions can."""

    def output_features(self, signal: Signal) -> tuple[int, ...]:
        """Shape of the output for an input."""

    def accept(self, signal: Signal, run: Run) -> None:
        """Check the input and keep what the backward pass needs."""

    def add_to(self, values: Values, signal: Signal) -> Values:
        """Add the output to `values` and return them."""


class Residual(Layer):
    """``body(x) + shortcut(x)``.

    Parameters
    ----------
    body : Layer
        Gives a current.
    shortcut : Layer, optional
        By default x itself.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        for name, layer in [("body", body), *([] if shortcut is None else [("shortcut", shortcut)])]:
            if not isinstance(layer, Layer):
                raise TypeError(f"Residual: argument '{name}': expected a layer, got {type(layer).__name__}")
        self.body, self.shortcut = body, shortcut
        self._input: Signal | None = None

    def children(self) -> Mapping[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} if self.shortcut is None else {"body": self.body, "shortcut": self.shortcut}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Sum of the two ways."""
        body = self.body(signal, run)
        if run.training:
            self._input = signal
        if isinstance(body, Current) and body.owned and run.observer is None:
            add = self._adder(body, signal, run)
            pending = body.store.pending
            if add is not None and pending is not None and self.shortcut is None and isinstance(signal, SpikeTrain):
                both = replace(pending, shortcut=signal.words, shortcut_amplitude=signal.amplitude)
                return replace(body, store=Store.convolution(body.store.shape, both, lambda: add(body.values)))
            if add is not None:
                again = body.store.again
                store = Store(add(body.values), None if again is None else lambda: add(again()))
                return replace(body, store=store)
        other = signal if self.shortcut is None else self.shortcut(signal, run)
        if isinstance(body, SpikeTrain) or body.features != other.features:
            given = "spikes" if isinstance(body, SpikeTrain) else f"{body.features} and {other.features}"
            raise ValueError(
                f"Residual {self.path}: expected currents of one shape from body and shortcut, got {given}"
            )
        store = Store(body.final_values() + signal_values(other))
        return Current(store, body.timesteps, body.features, owned=True)

    def _adder(self, body: Current, signal: Signal, run: Run) -> Callable[[Values], Values] | None:
        """What adds the shortcut of spikes to the body's values in place; None where that is not possible."""
        if not isinstance(signal, SpikeTrain) or body.held:
            return None
        shortcut = self.shortcut
        if shortcut is None and body.features == signal.features:
            return lambda values: ops.add_words(signal.words, values, signal.amplitude)
        if isinstance(shortcut, AddsInPlace):
            shortcut.accept(signal, run)
            if body.features == shortcut.output_features(signal):
                return lambda values: shortcut.add_to(values, signal)
        return None

    def backward(self, gradient: Backward) -> Backward | None:
        """Sum of the gradients of the two ways."""
        signal, self._input = saved_state(self, self._input), None
        assert isinstance(gradient, Gradient)
        below = self.body.backward(gradient)
        other = as_wanted(signal, gradient) if self.shortcut is None else self.shortcut.backward(gradient)
        if below is None or other is None or not needs_gradient(signal):
            return None
        return add_gradients(below, other)
