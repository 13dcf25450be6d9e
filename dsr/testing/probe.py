"""Probe: a layer and an input, passed through as often as the checks need, each time by a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dsr.nn.currents import Current, Dense, Signal
from dsr.nn.gradients import Gradient, SignalGradient
from dsr.nn.layer import Layer, Parameter
from dsr.nn.network import Network
from dsr.nn.run import Budget, Run
from dsr.nn.spikes import SpikeTrain, image_shape, to_lanes
from dsr.ops import Values
from dsr.ops.arguments import as_array, require_finite


@dataclass(frozen=True)
class Input:
    """What the layer is given.

    Attributes
    ----------
    values : ndarray of float32, shape (C, H, W, T or 1, B)
        As numbers.
    features : tuple of int
        Shape of a sample.
    timesteps : int
        T.
    train : SpikeTrain or None
        The spikes, if it is some.
    """

    values: Values
    features: tuple[int, ...]
    timesteps: int
    train: SpikeTrain | None

    @classmethod
    def of(cls, given: ArrayLike | SpikeTrain, timesteps: int) -> Input:
        """Of data as `Network.forward` takes it, or of spikes."""
        if isinstance(given, SpikeTrain):
            return cls(given.values(), given.features, given.timesteps, given)
        array = as_array("check_layer", "input", given)
        if array.ndim not in (2, 3, 4, 5) or array.size == 0:
            wanted = "expected spikes, or data as for Network.forward of at least one value"
            raise ValueError(f"check_layer: argument 'input': {wanted}, got shape {array.shape}")
        require_finite("check_layer", "input", array)
        train = array[np.newaxis] if array.ndim in (2, 4) else array
        steps = timesteps if array.ndim in (2, 4) else len(array)
        return cls(to_lanes(train), train.shape[2:], steps, None)

    @property
    def time_weights(self) -> Values | None:
        """As of the signal."""
        return None if self.train is None else self.train.time_weights

    def signal(self) -> Signal:
        """The input itself."""
        return self.moved(None) if self.train is None else self.train

    def moved(self, by: Values | None) -> Current:
        """The input as numbers that are moved by an array of the gradient's shape, (C, H, W, B) or of every step."""
        values = self.values
        if by is not None:
            change = by if by.ndim == 5 else by[:, :, :, np.newaxis]
            values = values + (change if self.time_weights is None else change * self.time_weights[:, np.newaxis])
        return Current((Dense(values),), self.features, self.timesteps, time_weights=self.time_weights)


class Probe:
    """A copy of a layer, ready to be passed through.

    Its parameters are drawn as a network does it, and then moved a little, so that no weight is 0 or 1.
    """

    def __init__(self, layer: Layer, given: Input, seed: int) -> None:
        self.layer, self.input = copy.deepcopy(layer), given
        Network(self.layer, given.timesteps, seed)
        rng = np.random.default_rng(seed)
        for _, parameter in parameters(self.layer):
            value = parameter.value
            factor, shift = (rng.uniform(-size, size, value.shape) for size in (0.2, 0.1))
            value[...] = value * (1 + factor) + shift * (value == 0)

    def copy(self) -> Layer:
        """A layer that may be changed."""
        return copy.deepcopy(self.layer)

    def slopes(self, output: Signal) -> Values:
        """The gradient of the output in all checks, (C, H, W, T, B)."""
        shape = (*image_shape(output.features), self.input.timesteps, self.input.values.shape[4])
        return np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def gradient(self, output: Signal) -> SignalGradient:
        """The same in the form that the layer asks for."""
        gradient = Gradient.from_dense(self.slopes(output))
        return gradient if output.time_weights is None else gradient.summed(output.time_weights)

    def failure(self, what: str) -> AssertionError:
        """That the layer does not keep something."""
        return AssertionError(f"check_layer: {type(self.layer).__name__}: {what}")


def training(*, frozen: bool = False, keep: bool = True, choices: list[tuple[str, str]] | None = None) -> Run:
    """A pass that `backward` may follow."""
    return Run(True, budget=Budget(1 << 62 if keep else 0), frozen=frozen, choices=choices)


def parameters(layer: Layer) -> Iterator[tuple[str, Parameter]]:
    """Those of the layer and of the layers inside it, by path."""
    for path, inner in layer.walk():
        for name, parameter in inner.parameters().items():
            yield f"{path}.{name}" if path else name, parameter
