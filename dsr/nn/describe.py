"""What layers say of themselves, and to whom: who counts operations, who writes graphs.

A layer describes what its `forward` does. A class that defines a `forward` of its own therefore needs descriptions of
its own too: those that it inherits are of another layer, and `description` refuses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsr.nn.currents import Signal
from dsr.ops import Geometry, NeuronModel, PerChannel, Values

if TYPE_CHECKING:
    from dsr.nn.layer import Layer

Counts = NDArray[np.int64]
Total = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Sums a vector over all processes that train together."""


class OperationCounter(Protocol):
    """Counts what a network computes, see `dsr.inspect.energy`."""

    def connections(self, path: str, signal: Signal, kernel_shape: tuple[int, ...], geometry: Geometry) -> None:
        """A weight for each connection between `signal` and an output, as a convolution has them."""

    def additions(self, path: str, signal: Signal) -> None:
        """Spikes that are added to a current as they are."""

    def output_of(self, path: str) -> Signal:
        """What the layer at `path` gave."""

    def updates(self, path: str, output: Signal, neuron: NeuronModel) -> None:
        """A step of every neuron of a layer."""

    def pass_on(self, signal: Signal, output: Signal, function: Callable[[Counts], Counts] | None = None) -> None:
        """The output consists of the input's spikes: `function` maps numbers by pixel, (C, H, W), to those of it."""

    def merge(self, signals: Sequence[Signal], output: Signal, function: Callable[[Sequence[Counts]], Counts]) -> bool:
        """As `pass_on`, of several inputs; False where one of them does not consist of spikes."""


class GraphWriter(Protocol):
    """Writes a network as a graph, see `dsr.nir` and `dsr.deploy`; a wire is what goes from one layer to the next."""

    def layer(self, layer: Layer, wire: Any) -> Any:
        """The wire behind a layer inside this one."""

    def fork(self, path: str, wire: Any) -> Any:
        """The wire, to be read more than once."""

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two wires."""

    def concatenate(self, path: str, wires: Sequence[Any]) -> Any:
        """The channels of all wires, one behind the other."""

    def convolution(self, path: str, wire: Any, weight: Values, bias: Values | None, geometry: Geometry) -> Any:
        """A convolution with weights (O, C / groups, KH, KW), of images or of signals (C, L)."""

    def linear(self, path: str, wire: Any, weight: Values, bias: Values | None) -> Any:
        """An affine map with weights (O, N, 1, 1)."""

    def affine(self, wire: Any, scale: Values, shift: Values) -> Any:
        """A scale and a shift of each channel."""

    def average_pool(
        self, path: str, wire: Any, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> Any:
        """The mean over windows."""

    def global_average_pool(self, path: str, wire: Any) -> Any:
        """The mean over all pixels, as a vector."""

    def max_pool(
        self, path: str, wire: Any, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> Any:
        """The largest value of windows; of spikes, which all have heights above 0, their OR."""

    def upsample(self, path: str, wire: Any, factor: tuple[int, int]) -> Any:
        """Each pixel repeated, vertically and horizontally."""

    def gate(self, path: str, wire: Any, by: Any, fires: bool) -> Any:
        """The spikes of one wire where those of another one are there (`fires`), or are not."""

    def rectify(self, path: str, wire: Any) -> Any:
        """The positive part."""

    def flatten(self, path: str, wire: Any) -> Any:
        """An image as a vector."""

    def neuron(
        self, path: str, wire: Any, neuron: NeuronModel, v_threshold: PerChannel, alpha: float, leak: float
    ) -> Any:
        """Neurons that reset by subtraction; `leak` is the length of a time step in time constants, 0: no leak."""


def description(function: str, layer: Layer, method: str, missing: str, of: tuple[str, ...] = ("forward",)) -> Any:
    """A describing method of a layer.

    Raises
    ------
    ValueError
        One of the methods `of` that it describes is of a class that does not have it; the message is that of
        `function`, and ends in `missing`.
    """
    order = type(layer).__mro__

    def first(name: str) -> int:
        return next((i for i, c in enumerate(order) if name in vars(c)), len(order))

    does = min(map(first, of))
    if first(method) > does:
        name = order[does].__name__
        raise ValueError(f"{function}: layer '{layer.path or type(layer).__name__}': {missing.format(name)}")
    return getattr(layer, method)
