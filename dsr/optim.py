"""Optimisers: SGD and Adam, as PyTorch defines them, so that published recipes carry over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.layer import Parameter


class Optimizer:
    """Base: named parameters, a learning rate, and state that a checkpoint can hold.

    Attributes
    ----------
    learning_rate : float
        Of the next step; a schedule sets it.
    """

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], learning_rate: float, weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay)):
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"{type(self).__name__}: argument '{name}': expected a number >= 0, got {value!r}")

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._update(name, parameter, parameter.grad)

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the optimiser's arrays."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` gave."""
        raise NotImplementedError

    def _update(self, name: str, parameter: Parameter, grad: NDArray[Any]) -> None:
        raise NotImplementedError


def gradient_norm(parameters: Mapping[str, Parameter]) -> float:
    """Euclidean norm of all gradients together.

    Raises
    ------
    FloatingPointError
        A gradient is not finite; the message names the parameter.
    """
    squares = 0.0
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            flat = parameter.grad.reshape(-1)
            with np.errstate(all="ignore"):
                square = float(np.dot(flat, flat))
            if not np.isfinite(square):  # or too large for float32: then it is computed again
                square = float(np.sum(np.square(flat, dtype=np.float64)))
            if not np.isfinite(square):
                raise FloatingPointError(f"the gradient of {name} is not finite")
            squares += square
    return sqrt(squares)


def clip_gradients(parameters: Mapping[str, Parameter], norm: float, largest: float) -> None:
    """Scale gradients whose norm together is `norm` down to `largest`."""
    if norm > largest:
        for parameter in parameters.values():
            if parameter.grad is not None:
                parameter.grad *= np.float32(largest / norm)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    ``b = momentum b + (g + weight_decay p)`` (b starts as the first gradient); ``p -= lr b``, or with Nesterov
    ``p -= lr (g + momentum b)``.

    Parameters
    ----------
    parameters : iterable of (str, Parameter)
        `Network.parameters()`.
    learning_rate, momentum, weight_decay : float
        As above.
    nesterov : bool
        Nesterov's form.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"SGD: argument 'momentum': expected a number in [0, 1), got {momentum!r}")
        if nesterov and momentum == 0:
            raise ValueError("SGD: argument 'nesterov': expected a momentum > 0 with it, got 0")
        self.momentum, self.nesterov = momentum, nesterov
        self.buffers: dict[str, NDArray[Any]] = {}

    def _update(self, name: str, parameter: Parameter, grad: NDArray[Any]) -> None:
        value = parameter.value
        first = name not in self.buffers
        if first:
            self.buffers[name] = np.empty_like(value)
        _core.sgd_update(
            value.reshape(-1),
            np.ascontiguousarray(grad).reshape(-1),
            self.buffers[name].reshape(-1),
            self.learning_rate * parameter.rate,
            self.momentum,
            self.weight_decay / parameter.rate,
            self.nesterov,
            first,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Momentum by parameter."""
        return {f"momentum.{name}": buffer.copy() for name, buffer in self.buffers.items()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Momentum by parameter."""
        self.buffers = _checked("SGD", "momentum", state, self.parameters)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015) with the weight decay added to the gradient.

    Parameters
    ----------
    parameters : iterable of (str, Parameter)
        `Network.parameters()`.
    learning_rate, beta1, beta2, eps, weight_decay : float
        As in the paper.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"Adam: argument '{name}': expected a number in [0, 1), got {value!r}")
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.steps = 0
        self.first: dict[str, NDArray[Any]] = {}
        self.second: dict[str, NDArray[Any]] = {}

    def step(self) -> None:
        """Change every parameter that has a gradient."""
        self.steps += 1
        super().step()

    def _update(self, name: str, parameter: Parameter, grad: NDArray[Any]) -> None:
        value = parameter.value
        if self.weight_decay:
            grad = grad + np.float32(self.weight_decay / parameter.rate) * value
        first = self.first.setdefault(name, np.zeros_like(value))
        second = self.second.setdefault(name, np.zeros_like(value))
        first += np.float32(1 - self.beta1) * (grad - first)
        second *= np.float32(self.beta2)
        second += np.float32(1 - self.beta2) * grad * grad
        step = self.learning_rate * parameter.rate / (1 - self.beta1**self.steps)
        root = np.sqrt(second) / np.float32(np.sqrt(1 - self.beta2**self.steps))
        value -= np.float32(step) * first / (root + np.float32(self.eps))

    def state(self) -> dict[str, NDArray[Any]]:
        """Moments by parameter, and the number of steps."""
        moments = {f"first.{name}": array.copy() for name, array in self.first.items()}
        moments |= {f"second.{name}": array.copy() for name, array in self.second.items()}
        return moments | {"steps": np.array(self.steps, np.int64)}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Moments by parameter, and the number of steps."""
        if "steps" not in state:
            raise ValueError("Adam.load_state: expected 'steps', got none")
        rest = {name: array for name, array in state.items() if name != "steps"}
        first = {name: array for name, array in rest.items() if name.startswith("first.")}
        second = {name: array for name, array in rest.items() if not name.startswith("first.")}
        self.first = _checked("Adam", "first", first, self.parameters)
        self.second = _checked("Adam", "second", second, self.parameters)
        self.steps = int(state["steps"])


def _checked(
    function: str, kind: str, state: Mapping[str, NDArray[Any]], parameters: Mapping[str, Parameter]
) -> dict[str, NDArray[Any]]:
    loaded = {}
    for key, array in state.items():
        name = key.removeprefix(f"{kind}.")
        if name == key or name not in parameters or parameters[name].value.shape != array.shape:
            raise ValueError(f"{function}.load_state: '{key}' of shape {array.shape} fits no parameter")
        loaded[name] = np.array(array, np.float32)
    return loaded
