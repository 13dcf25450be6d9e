"""Layers: objects with a forward pass, a backward pass and parameters; containers wire them.

There is no tape. `forward(signal, run)` takes and gives a `SpikeTrain` or a `Current`; in training it keeps what
`backward(gradient)` needs, which takes the gradient of the layer's output and gives that of its input, in the form
that the input's `time_weights` ask for (see `dsr.currents`). A forward pass without training keeps nothing and
changes nothing, so threads may share a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import lanes
from dsr.currents import (
    Backward,
    Current,
    Gradient,
    Signal,
    add_gradients,
    as_wanted,
    needs_gradient,
    signal_values,
)
from dsr.lanes import Values
from dsr.spikes import SpikeTrain


class Parameter:
    """A trained array and its gradient.

    Attributes
    ----------
    value : ndarray of float32
        Changed in place by an optimiser.
    grad : ndarray of float32 or None
        Gradient of the loss of the last backward pass.
    """

    def __init__(self, value: NDArray[Any]) -> None:
        self.value: Values = np.asarray(value, np.float32)
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
    """

    training: bool = False
    observer: Callable[[str, Layer, Signal], None] | None = None


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
        self.body, self.shortcut = body, shortcut
        self._input: Signal | None = None

    def children(self) -> Mapping[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} if self.shortcut is None else {"body": self.body, "shortcut": self.shortcut}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Sum of the two ways."""
        body = self.body(signal, run)
        other = signal if self.shortcut is None else self.shortcut(signal, run)
        if isinstance(body, SpikeTrain) or body.features != other.features:
            given = "spikes" if isinstance(body, SpikeTrain) else f"{body.features} and {other.features}"
            raise ValueError(
                f"Residual {self.path}: expected currents of one shape from body and shortcut, got {given}"
            )
        if run.training:
            self._input = signal
        return Current(body.final_values() + signal_values(other), body.timesteps, body.features)

    def backward(self, gradient: Backward) -> Backward | None:
        """Sum of the gradients of the two ways."""
        signal, self._input = saved_state(self, self._input), None
        assert isinstance(gradient, Gradient)
        below = self.body.backward(gradient)
        other = as_wanted(signal, gradient) if self.shortcut is None else self.shortcut.backward(gradient)
        if below is None or other is None or not needs_gradient(signal):
            return None
        return add_gradients(below, other)


class Conv2d(Layer):
    """Convolution of spikes or currents.

    Parameters
    ----------
    in_channels, out_channels : int
        C of input and output.
    kernel_size : int
        Height and width of the kernel.
    stride, padding : int
        As usual; padding is with zeros.
    bias : bool
        Whether there is a trained bias.

    Notes
    -----
    Weights are drawn from the Kaiming normal distribution of fan-out, ``std = sqrt(2 / (O KH KW))``; the bias is 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        _positive("Conv2d", in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride)
        if padding < 0:
            raise ValueError(f"Conv2d: argument 'padding': expected an integer >= 0, got {padding}")
        self.stride, self.padding = stride, padding
        self.weight = Parameter(np.zeros((out_channels, in_channels, kernel_size, kernel_size)))
        self.bias = Parameter(np.zeros(out_channels)) if bias else None
        self._input: Signal | None = None

    def parameters(self) -> Mapping[str, Parameter]:
        """``weight`` (O, C, KH, KW) and ``bias`` (O,)."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    def initialise(self, rng: np.random.Generator) -> None:
        """Kaiming normal of fan-out."""
        shape = self.weight.value.shape
        self.weight.value = rng.normal(0, sqrt(2 / (shape[0] * shape[2] * shape[3])), shape).astype(np.float32)

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Convolve; a held current is convolved once."""
        weight = self.weight.value
        if len(signal.features) != 3 or signal.channels != weight.shape[1]:
            raise ValueError(
                f"{type(self).__name__} {self.path}: expected features ({weight.shape[1]}, H, W), got {signal.features}"
            )
        if run.training:
            self._input = signal
        return self._convolve(signal)

    def _convolve(self, signal: Signal) -> Current:
        values = signal_values(signal)
        out = lanes.conv2d(
            values.reshape(*values.shape[:3], -1),
            self.weight.value,
            None if self.bias is None else self.bias.value,
            self.stride,
            self.padding,
        )
        steps = out.reshape(*out.shape[:3], *values.shape[3:])
        return Current(steps, signal.timesteps, out.shape[:3])

    def backward(self, gradient: Backward) -> Backward | None:
        """Gradients of weight and bias; the input's is one convolution without a time axis."""
        signal, self._input = saved_state(self, self._input), None
        assert isinstance(gradient, Gradient)
        _, _, kernel_h, kernel_w = self.weight.value.shape
        total = gradient.total()
        if self.bias is not None:
            self.bias.grad = total.sum(axis=(1, 2, 3))
        values = signal_values(signal)
        steps = total if values.shape[3] == 1 else gradient.dense()
        self.weight.grad = lanes.conv2d_weight_gradient(
            steps.reshape(*steps.shape[:3], -1),
            values.reshape(*values.shape[:3], -1),
            kernel_h,
            kernel_w,
            self.stride,
            self.padding,
        )
        if not needs_gradient(signal):
            return None
        if signal.time_weights is not None:
            return self._input_gradient(gradient.summed(signal.time_weights), values)
        dense = gradient.dense()
        below = self._input_gradient(dense.reshape(*dense.shape[:3], -1), values)
        return Gradient.from_dense(below.reshape(*below.shape[:3], *dense.shape[3:]))

    def _input_gradient(self, grad: Values, values: Values) -> Values:
        return lanes.conv2d_input_gradient(
            grad, self.weight.value, values.shape[1], values.shape[2], self.stride, self.padding
        )


class Linear(Conv2d):
    """Fully connected layer on vectors; a 1x1 convolution of an image of one pixel.

    Parameters
    ----------
    in_features, out_features : int
        N of input and output.
    bias : bool
        Whether there is a trained bias.

    Notes
    -----
    Weights are drawn uniformly from ``[-1, 1] / sqrt(in_features)``; the bias is 0.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        _positive("Linear", in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, 1, bias=bias)

    def initialise(self, rng: np.random.Generator) -> None:
        """Uniform in the inverse root of fan-in."""
        shape = self.weight.value.shape
        bound = 1 / sqrt(shape[1])
        self.weight.value = rng.uniform(-bound, bound, shape).astype(np.float32)

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Multiply; a held current is multiplied once."""
        if signal.features != (self.weight.value.shape[1],):
            raise ValueError(
                f"Linear {self.path}: expected features ({self.weight.value.shape[1]},), got {signal.features}; "
                "is a Flatten missing before it?"
            )
        if run.training:
            self._input = signal
        output = self._convolve(signal)
        return replace(output, features=(output.channels,))


class BatchNorm(Layer):
    """Batch normalisation of currents, over time, batch and pixels.

    Parameters
    ----------
    channels : int
        C, or N of a vector.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the batch in the running statistics.

    Notes
    -----
    The output is the input with a scale and a shift still to be applied, which the neuron above does as it reads. The
    gradient is exact: of every step's deviation from the mean, as a slope on the input current.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        _positive("BatchNorm", channels=channels)
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self._state: tuple[Current, NDArray[np.float64], NDArray[np.float64]] | None = None

    def parameters(self) -> Mapping[str, Parameter]:
        """``weight`` and ``bias``, (C,)."""
        return {"weight": self.weight, "bias": self.bias}

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``running_mean`` and ``running_var``, (C,)."""
        return {"running_mean": self.running_mean, "running_var": self.running_var}

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Statistics, and the scale and shift that follow from them."""
        if signal.channels != len(self.running_mean):
            raise ValueError(
                f"BatchNorm {self.path}: expected {len(self.running_mean)} channels, got {signal.features}"
            )
        current = Current(
            signal_values(signal),
            signal.timesteps,
            signal.features,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )
        mean: NDArray[np.float64] = self.running_mean.astype(np.float64)
        variance: NDArray[np.float64] = self.running_var.astype(np.float64)
        if run.training:
            mean, variance = self._batch_statistics(current)
            self._state = current, mean, 1 / np.sqrt(variance + self.eps)
        scale = self.weight.value / np.sqrt(variance + self.eps)
        shift = self.bias.value - mean * scale
        return replace(current, scale=scale.astype(np.float32), shift=shift.astype(np.float32), time_weights=None)

    def _batch_statistics(self, current: Current) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sums, squares = lanes.moments(current.values)
        stored = current.values[0].size
        if stored == 0:
            raise ValueError(f"BatchNorm {self.path}: expected at least one sample in training, got none")
        mean = sums / stored
        variance = np.maximum(squares / stored - mean * mean, 0)
        # a held current counts T times, as the copies it stands for would
        count = stored * (current.timesteps if current.held else 1)
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean += self.momentum * (mean - self.running_mean).astype(np.float32)
        self.running_var += self.momentum * (unbiased - self.running_var).astype(np.float32)
        return mean, variance

    def backward(self, gradient: Backward) -> Backward | None:
        """``(weight / sigma) (g - mean(g) - xhat mean(g xhat))``, exactly, at every step."""
        current, mean, inverse = saved_state(self, self._state)
        self._state = None
        assert isinstance(gradient, Gradient)
        steps = 1 if current.held else current.timesteps
        if current.held:
            gradient = Gradient(gradient.total(), 1)
        sums, products = self._sums(gradient, current.values)
        count = current.values[0].size
        self.bias.grad = sums.astype(np.float32)
        centred = (products - mean * sums) * inverse  # sum of g xhat
        self.weight.grad = centred.astype(np.float32)
        factor = self.weight.value * inverse
        slope = -factor * inverse * centred / count
        offset = -factor * sums / count - slope * mean
        constant = _channels(factor, 4) * gradient.constant + _channels(offset, 4)
        terms = [((factor * s).astype(np.float32), x) for s, x in gradient.terms]
        below = Gradient(constant, steps, [*terms, (slope.astype(np.float32), current.values)])
        if current.held:
            # the sum over the steps, spread evenly over them
            below = Gradient(below.dense()[:, :, :, 0] / np.float32(current.timesteps), current.timesteps)
        return as_wanted(current, below) if current.needs_gradient else None

    @staticmethod
    def _sums(gradient: Gradient, values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if not gradient.terms:
            return lanes.gradient_moments(gradient.constant, values)
        dense = gradient.dense()
        flat = (*values.shape[:3], 1, -1)
        return lanes.gradient_moments(dense.reshape(*values.shape[:3], -1), values.reshape(flat))


class AvgPool2d(Layer):
    """Mean over square windows; padding counts as zeros.

    Parameters
    ----------
    kernel_size : int
        Size of a window.
    stride : int, optional
        By default `kernel_size`.
    padding : int
        At most half the kernel size.
    """

    def __init__(self, kernel_size: int, stride: int | None = None, padding: int = 0) -> None:
        stride = kernel_size if stride is None else stride
        _positive("AvgPool2d", kernel_size=kernel_size, stride=stride)
        if not 0 <= padding <= kernel_size // 2:
            raise ValueError(f"AvgPool2d: argument 'padding': expected 0 to kernel_size / 2, got {padding}")
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self._input: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Pool every step."""
        if len(signal.features) != 3 or min(signal.features[1:]) + 2 * self.padding < self.kernel_size:
            size = self.kernel_size
            raise ValueError(f"AvgPool2d {self.path}: expected images of at least {size}x{size}, got {signal.features}")
        if run.training:
            self._input = signal
        values = signal_values(signal)
        flat = values.reshape(*values.shape[:3], -1)
        pooled = lanes.avg_pool(flat, self.kernel_size, self.stride, self.padding)
        steps = pooled.reshape(*pooled.shape[:3], *values.shape[3:])
        return Current(
            steps,
            signal.timesteps,
            pooled.shape[:3],
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
        )

    def backward(self, gradient: Backward) -> Backward | None:
        """Spread over the windows."""
        signal, self._input = saved_state(self, self._input), None
        if not needs_gradient(signal):
            return None
        return map_gradient(
            gradient,
            lambda grad: lanes.avg_pool_backward(
                grad, signal.features[1], signal.features[2], self.kernel_size, self.stride, self.padding
            ),
        )


class Flatten(Layer):
    """Images (C, H, W) to vectors (C H W,), in this order."""

    def __init__(self) -> None:
        self._input: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Nothing moves where the image is one pixel; spikes of larger images are packed anew."""
        if run.training:
            self._input = signal
        features = (int(np.prod(signal.features)),)
        if isinstance(signal, SpikeTrain):
            words = signal.words
            if words.shape[1:3] != (1, 1):
                values = signal.values()
                words = lanes.pack_words(values.reshape(*features, 1, 1, *values.shape[3:]))
            return replace(signal, words=words, features=features)
        values = signal.final_values()
        return replace(
            signal, values=values.reshape(*features, 1, 1, *values.shape[3:]), features=features, scale=None, shift=None
        )

    def backward(self, gradient: Backward) -> Backward | None:
        """Back to images."""
        signal, self._input = saved_state(self, self._input), None
        if not needs_gradient(signal):
            return None
        image = signal.features if len(signal.features) == 3 else (*signal.features, 1, 1)
        return map_gradient(gradient, lambda grad: grad.reshape(*image, -1))


class Dropout(Layer):
    """Zeros each element with probability `p` in training, independently at every step, and scales the others.

    Parameters
    ----------
    p : float
        Probability in [0, 1).

    Notes
    -----
    Masks are bits drawn by counter from the layer's seed and the number of the forward pass, so they are the same for
    any number of threads and after a resume. With batch normalisation above, the gradient varies in time and the mask
    too: the layer above then has to compute its input gradient for every step.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: argument 'p': expected a number in [0, 1), got {p}")
        self.p = p
        self.stream = np.zeros(2, np.uint32)  # seed, forward passes in training
        self._state: tuple[Signal, Values] | None = None

    def buffers(self) -> Mapping[str, NDArray[Any]]:
        """``stream``: seed and number of the pass."""
        return {"stream": self.stream}

    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the seed."""
        self.stream[:] = rng.integers(2**32, dtype=np.uint32), 0

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Mask in training; nothing otherwise."""
        if not run.training:
            return signal
        if self.p == 0:
            self._state = signal, np.empty(0, np.float32)
            return signal
        keep = 1 - self.p
        channels, *pixels = signal.features if len(signal.features) == 3 else (signal.channels, 1, 1)
        shape = (lanes.word_count(channels), *pixels, signal.timesteps, signal.batch)
        seed = (int(self.stream[0]) << 32) | int(self.stream[1])
        self.stream[1] += np.uint32(1)
        mask = lanes.dropout_words(np.full(shape, 0xFFFFFFFF, np.uint32), keep, seed)
        factors = lanes.unpack_words(mask, channels, 1 / keep)
        self._state = signal, factors
        if isinstance(signal, SpikeTrain):
            return replace(signal, words=signal.words & mask, amplitude=signal.amplitude / keep, time_weights=None)
        values = signal.final_values() * factors
        return Current(values, signal.timesteps, signal.features, needs_gradient=signal.needs_gradient)

    def backward(self, gradient: Backward) -> Backward | None:
        """Mask the gradient of every step."""
        signal, factors = saved_state(self, self._state)
        self._state = None
        if not needs_gradient(signal):
            return None
        if factors.size == 0:
            return gradient
        assert isinstance(gradient, Gradient)
        return as_wanted(signal, Gradient.from_dense(gradient.dense() * factors))


def map_gradient(gradient: Backward, function: Callable[[Values], Values]) -> Backward:
    """A linear map of (C, H, W, L) arrays applied to a gradient in either form."""
    if not isinstance(gradient, Gradient):
        return function(gradient)
    if not gradient.terms:
        return Gradient(function(gradient.constant), gradient.timesteps)
    dense = gradient.dense()
    mapped = function(dense.reshape(*dense.shape[:3], -1))
    return Gradient.from_dense(mapped.reshape(*mapped.shape[:3], *dense.shape[3:]))


def _channels(values: NDArray[Any], axes: int) -> Values:
    return values.astype(np.float32).reshape(-1, *[1] * (axes - 1))


def _positive(function: str, **arguments: int) -> None:
    for name, value in arguments.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{function}: argument '{name}': expected an integer >= 1, got {value!r}")
