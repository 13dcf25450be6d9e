"""Layer: an object with a forward pass, a backward pass and parameters.

There is no tape of operations. `forward(signal, run)` takes and gives a `SpikeTrain` or a `Current`; in training it
keeps what `backward(gradient)` needs, which takes the gradient of the layer's output and gives that of its input, in
the form that the input's `time_weights` ask for (see `dsr.nn.gradients`). A forward pass writes no parameter; without
training it keeps nothing and changes nothing, so threads may share a network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.currents import Signal
from dsr.nn.describe import GraphWriter, OperationCounter, Total
from dsr.nn.gradients import SignalGradient
from dsr.nn.run import Run
from dsr.ops import Values
from dsr.ops.arguments import as_array


class Parameter:
    """A trained array and its gradient.

    Parameters
    ----------
    value : array_like
        Start values.
    lower_bound : float, optional
        Optimisers raise values below it to it before they take a step.

    Attributes
    ----------
    value : ndarray of float32
        Changed in place by an optimiser.
    grad : ndarray of float32 or None
        Gradient of the loss of the last backward pass.
    rate : float
        Factor of the optimiser's learning rate; weight decay is divided by it, so that both together stay the same.
    """

    def __init__(self, value: ArrayLike, lower_bound: float | None = None) -> None:
        self.rate = 1.0
        self.lower_bound = lower_bound
        self.value: Values = np.array(as_array("Parameter", "value", value), np.float32, order="C")
        self.grad: Values | None = None

    def bounded(self) -> Values:
        """The values as a forward pass uses them: ``max(value - lower_bound, 0) + lower_bound``."""
        if self.lower_bound is None:
            return self.value
        bound = np.float32(self.lower_bound)
        return np.maximum(self.value - bound, np.float32(0)) + bound

    def __repr__(self) -> str:
        return f"Parameter(shape={self.value.shape})"


class Layer:
    """Base of all layers.

    A layer of your own defines `forward` and `backward`, and whatever of the other methods says something of it. Those
    that describe what `forward` computes (`count_operations`, `export`, and `join_ranks` of layers with buffers) are
    refused, with a sentence, where a class has a `forward` of its own but not them.
    """

    path: str = ""
    """Where the layer is in its network, such as ``block1.conv2``; set by `dsr.Network`."""

    made_with: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
    """The arguments that the layer was made with, from which `dsr.save` describes it."""

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """An object that knows its arguments."""
        layer = super().__new__(cls)
        layer.made_with = arguments, named
        return layer

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, and copied, without `_state`, which a forward pass keeps for the backward pass."""
        state = dict(vars(self))
        return state | {"_state": None} if "_state" in state else state

    input_axes: str = ""
    """Axes of a batch that the layer takes, "NC", "NCL" or "NCHW"; "any" where it keeps them; "": it does not say."""

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Output of the layer."""
        raise NotImplementedError

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
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
        """Set what follows from batches of training samples, once, before training.

        They are (N, C, H, W) each, or (T, N, C, H, W) if samples have a time axis.
        """

    def kind(self) -> str:
        """What a summary calls the layer, such as ``Conv2d 3x3, stride 2``."""
        return type(self).__name__

    def multiply_adds(self, output_features: tuple[int, ...]) -> int | None:
        """Multiply-adds for a sample and time step, if all values were dense; None: not known."""
        return None if self.parameters() else 0

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Tell what the layer itself computed in evaluation to give `output` for `signal`."""
        raise NotImplementedError

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """Write what the layer does in evaluation as nodes of a graph; the wire behind them."""
        raise NotImplementedError

    def join_ranks(self, rank: int, total: Total | None) -> None:
        """Get ready to be trained by several processes, of which this is number `rank`.

        Parameters
        ----------
        rank : int
            From 0.
        total : callable or None
            For layers that compute with the whole batch, not with this process's part of it: sums a vector over all.
        """

    def running_statistics(self) -> Mapping[str, NDArray[Any]]:
        """Of the buffers, those that processes which train together average after each step."""
        return {}

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
