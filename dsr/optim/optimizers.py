"""Optimisers: SGD and Adam, as PyTorch defines them, so that published recipes carry over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.nn.layer import Parameter
from dsr.ops.arguments import LARGEST, as_array, as_count, as_flag, as_number


class Optimizer:
    """Base: named parameters, a learning rate, and state that a checkpoint can hold.

    Attributes
    ----------
    learning_rate : float
        Of the next step; a schedule sets it.
    """

    _state: tuple[str, ...] = ()
    """Attributes that a step changes: numbers, and dicts of arrays."""

    def __init__(self, parameters: Iterable[tuple[str, Parameter]], learning_rate: float, weight_decay: float) -> None:
        self.parameters = dict(parameters)
        self.learning_rate = self._number("learning_rate", learning_rate, lambda value: value >= 0, "a number >= 0")
        self.weight_decay = self._number("weight_decay", weight_decay, lambda value: value >= 0, "a number >= 0")

    def _number(self, name: str, value: float, good: Callable[[float], bool], expected: str) -> float:
        """A number that the compiled part takes."""
        return as_number(type(self).__name__, name, value, lambda x: abs(x) <= LARGEST and good(x), expected)

    def step(self) -> None:
        """Change every parameter that has a gradient; or none, where a step raises, be it for want of memory."""
        values = [(p.value, p.value.copy()) for p in self.parameters.values() if p.grad is not None]
        state = {name: deepcopy(getattr(self, name)) for name in self._state}
        try:
            for parameter in self.parameters.values():
                if parameter.lower_bound is not None:
                    parameter.value[...] = parameter.bounded()
            self._change_all()
        except BaseException:  # and nothing from here on asks for memory
            for value, old in values:
                value[...] = old
            for name, kept in state.items():
                setattr(self, name, kept)
            raise

    def _change_all(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._update(name, parameter, parameter.grad)

    @property
    def state_arrays(self) -> int:
        """Arrays that it keeps for each parameter, at most; a checkpoint needs room for them."""
        return 2

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

    _state = ("buffers",)

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, learning_rate, weight_decay)
        momentum = self._number("momentum", momentum, lambda value: 0 <= value < 1, "a number in [0, 1)")
        nesterov = as_flag("SGD", "nesterov", nesterov)
        if nesterov and momentum == 0:
            raise ValueError("SGD: argument 'nesterov': expected a momentum > 0 with it, got 0")
        self.momentum, self.nesterov = momentum, nesterov
        self.buffers: dict[str, NDArray[Any]] = {}

    def _update(self, name: str, parameter: Parameter, grad: NDArray[Any]) -> None:
        self._descend(name, parameter, grad, self.weight_decay)

    def _descend(self, name: str, parameter: Parameter, grad: NDArray[Any], weight_decay: float) -> None:
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
            weight_decay / parameter.rate,
            self.nesterov,
            first,
        )

    @property
    def state_arrays(self) -> int:
        """One with momentum, else none."""
        return int(self.momentum > 0)

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

    _state = ("steps", "first", "second")

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
        self.beta1 = self._number("beta1", beta1, lambda value: 0 <= value < 1, "a number in [0, 1)")
        self.beta2 = self._number("beta2", beta2, lambda value: 0 <= value < 1, "a number in [0, 1)")
        self.eps = self._number("eps", eps, lambda value: value > 0, "a number > 0")
        self.steps = 0
        self.first: dict[str, NDArray[Any]] = {}
        self.second: dict[str, NDArray[Any]] = {}

    def _change_all(self) -> None:
        self.steps += 1
        super()._change_all()

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
        steps = as_array("Adam.load_state", "steps", state["steps"])
        if steps.ndim or steps.dtype.kind not in "iu":
            raise ValueError(f"Adam.load_state: 'steps': expected an integer, got {steps.dtype} of shape {steps.shape}")
        number = as_count("Adam.load_state", "steps", steps, 0)
        moments = [
            _checked("Adam", kind, part, self.parameters) for kind, part in (("first", first), ("second", second))
        ]
        (self.first, self.second), self.steps = moments, number


def _checked(
    function: str, kind: str, state: Mapping[str, NDArray[Any]], parameters: Mapping[str, Parameter]
) -> dict[str, NDArray[Any]]:
    loaded = {}
    for key, value in state.items():
        name, array = key.removeprefix(f"{kind}."), as_array(f"{function}.load_state", key, value)
        if name == key or name not in parameters or parameters[name].value.shape != array.shape:
            raise ValueError(f"{function}.load_state: '{key}' of shape {array.shape} fits no parameter")
        loaded[name] = np.array(array, np.float32)
    return loaded
