"""Layers between neurons: convolution, linear, pooling, flattening, dropout; batch normalisation is in norm.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import ops
from dsr.nn.currents import Backward, Current, Gradient, Signal, Store, as_wanted, needs_gradient, signal_values
from dsr.nn.layer import Layer, Parameter, Run, saved_state
from dsr.nn.spikes import SpikeTrain, image_shape
from dsr.ops import Values
from dsr.ops.arguments import as_count, as_counts, as_flag, as_number


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
    dirac : bool
        The first `in_channels` output channels start as copies of the input.

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
        dirac: bool = False,
    ) -> None:
        in_channels, out_channels, kernel_size, self.stride = as_counts(
            "Conv2d", in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride
        )
        self.padding = as_count("Conv2d", "padding", padding, 0)
        bias = as_flag(type(self).__name__, "bias", bias)
        self.dirac = as_flag("Conv2d", "dirac", dirac)
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
        if self.dirac:
            copies = min(shape[:2])
            self.weight.value[:copies] = 0
            self.weight.value[range(copies), range(copies), shape[2] // 2, shape[3] // 2] = 1

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Convolve; a held current is convolved once."""
        self.accept(signal, run)
        features = self.output_features(signal)
        if not run.training and isinstance(signal, SpikeTrain) and self._trains(signal):
            bias = None if self.bias is None else self.bias.value
            convolution = ops.SpikeConvolution(
                signal.words,
                self.kernel(),
                bias,
                signal.amplitude,
                self.stride,
                self.padding,
                self._group(signal),
            )
            shape = (*image_shape(features), signal.timesteps, signal.batch)
            store = Store.convolution(shape, convolution, lambda: self._convolve(signal))
        else:
            store = Store(self._convolve(signal), lambda: self._convolve(signal))
        return Current(store, signal.timesteps, features, owned=True)

    def kernel(self) -> Values:
        """What is convolved with: the weight."""
        return self.weight.value

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of `kernel`."""
        return self.weight.value.shape

    def weight_gradient(self, grad_kernel: Values) -> Values:
        """Gradient of the weight, given that of `kernel`."""
        return grad_kernel

    def accept(self, signal: Signal, run: Run) -> None:
        """Refuse what does not fit; keep the rest for the backward pass."""
        channels = self.kernel_shape[1]
        if len(signal.features) != 3 or signal.channels != channels:
            raise ValueError(
                f"{type(self).__name__} {self.path}: expected features ({channels}, H, W), got {signal.features}"
            )
        if run.training:
            self._input = signal

    def output_features(self, signal: Signal) -> tuple[int, ...]:
        """Shape of the output for an input, (O, H, W)."""
        out, _, kernel_h, kernel_w = self.kernel_shape
        _, height, width = signal.features
        return (
            out,
            ops.output_size(height, kernel_h, self.stride, self.padding),
            ops.output_size(width, kernel_w, self.stride, self.padding),
        )

    def add_to(self, values: Values, signal: Signal) -> Values:
        """Add the convolution of `signal` to `values` and return them."""
        return self._convolve(signal, values)

    def _convolve(self, signal: Signal, out: Values | None = None) -> Values:
        """The convolution, added to `out` (which is changed) where it is given."""
        weight, bias = self.kernel(), None if self.bias is None else self.bias.value
        trains = self._trains(signal)
        for train in trains:
            group = self._group(train)
            out = ops.conv2d_spikes(train.words, weight, bias, train.amplitude, self.stride, self.padding, group, out)
            bias = None
        if trains:
            assert out is not None
            return out
        values = signal_values(signal)
        flat = ops.conv2d(values.reshape(*values.shape[:3], -1), weight, bias, self.stride, self.padding)
        steps = flat.reshape(*flat.shape[:3], *values.shape[3:])
        return steps if out is None else np.add(out, steps, out=out)

    def _trains(self, signal: Signal) -> tuple[SpikeTrain, ...]:
        """The trains that the convolution is computed on; none if it has to be done on dense values."""
        if self.kernel_shape[2] * self.kernel_shape[3] > ops.MOST_TAPS:
            return ()
        return (signal,) if isinstance(signal, SpikeTrain) else signal.parts

    def _group(self, train: SpikeTrain) -> int:
        return ops.row_group(train.firing_rate(), self.kernel_shape[2] * self.kernel_shape[3])

    def backward(self, gradient: Backward) -> Backward | None:
        """Gradients of weight and bias; the input's is one convolution without a time axis."""
        signal, self._input = saved_state(self, self._input), None
        assert isinstance(gradient, Gradient)
        if self.bias is not None:
            self.bias.grad = gradient.total().sum(axis=(1, 2, 3))
        self.weight.grad = self.weight_gradient(self._kernel_gradient(signal, gradient))
        if not needs_gradient(signal):
            return None
        if signal.time_weights is not None:
            return self._input_gradient(gradient.summed(signal.time_weights), signal)
        dense = gradient.dense()
        below = self._input_gradient(dense.reshape(*dense.shape[:3], -1), signal)
        return Gradient.from_dense(below.reshape(*below.shape[:3], *dense.shape[3:]))

    def _kernel_gradient(self, signal: Signal, gradient: Gradient) -> Values:
        trains = self._trains(signal)
        if trains:
            constant, slope, values = gradient.as_one_term()
            shape = self.kernel_shape
            parts = [
                ops.conv2d_spikes_weight_gradient(
                    constant, slope, values, t.words, shape, t.amplitude, self.stride, self.padding, self._group(t)
                )
                for t in trains
            ]
            return sum(parts[1:], parts[0])
        values = signal_values(signal)
        steps = gradient.total() if values.shape[3] == 1 else gradient.dense()
        flat = values.reshape(*values.shape[:3], -1)
        _, _, kernel_h, kernel_w = self.kernel_shape
        return ops.conv2d_weight_gradient(
            steps.reshape(*steps.shape[:3], -1), flat, kernel_h, kernel_w, self.stride, self.padding
        )

    def _input_gradient(self, grad: Values, signal: Signal) -> Values:
        _, height, width = image_shape(signal.features)
        return ops.conv2d_input_gradient(grad, self.kernel(), height, width, self.stride, self.padding)


class Linear(Conv2d):
    """Fully connected layer on vectors; a 1x1 convolution of an image of one pixel.

    Parameters
    ----------
    in_features, out_features : int
        N of input and output.
    bias : bool
        Whether there is a trained bias.
    std : float, optional
        Draw weights from the normal distribution of this standard deviation.

    Notes
    -----
    Without `std`, weights are drawn uniformly from ``[-1, 1] / sqrt(in_features)``; the bias is 0.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, std: float | None = None) -> None:
        in_features, out_features = as_counts("Linear", in_features=in_features, out_features=out_features)
        if std is not None:
            std = as_number("Linear", "std", std, lambda value: 0 < value < inf, "a number > 0")
        super().__init__(in_features, out_features, 1, bias=bias)
        self.std = std

    def initialise(self, rng: np.random.Generator) -> None:
        """Uniform in the inverse root of fan-in, or normal."""
        shape = self.weight.value.shape
        bound = 1 / sqrt(shape[1])
        drawn = rng.uniform(-bound, bound, shape) if self.std is None else rng.normal(0, self.std, shape)
        self.weight.value = drawn.astype(np.float32)

    def accept(self, signal: Signal, run: Run) -> None:
        """Refuse what does not fit; keep the rest for the backward pass."""
        features = self.weight.value.shape[1]
        if signal.features != (features,):
            raise ValueError(
                f"Linear {self.path}: expected features ({features},), got {signal.features}; "
                "is a Flatten missing before it?"
            )
        if run.training:
            self._input = signal

    def output_features(self, signal: Signal) -> tuple[int, ...]:
        """Shape of the output for an input, (N,)."""
        return (len(self.weight.value),)


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
        self.kernel_size, self.stride = as_counts("AvgPool2d", kernel_size=kernel_size, stride=stride)
        self.padding = as_count("AvgPool2d", "padding", padding, 0)
        if self.padding > self.kernel_size // 2:
            raise ValueError(f"AvgPool2d: argument 'padding': expected 0 to kernel_size / 2, got {self.padding}")
        self._input: Signal | None = None

    def forward(self, signal: Signal, run: Run) -> Signal:
        """Pool every step."""
        if len(signal.features) != 3 or min(signal.features[1:]) + 2 * self.padding < self.kernel_size:
            size = self.kernel_size
            raise ValueError(f"AvgPool2d {self.path}: expected images of at least {size}x{size}, got {signal.features}")
        if run.training:
            self._input = signal
        channels, height, width = signal.features
        sizes = [ops.output_size(size, self.kernel_size, self.stride, self.padding) for size in (height, width)]
        features = (channels, *sizes)
        steps = (*features, *(signal.words.shape if isinstance(signal, SpikeTrain) else signal.store.shape)[3:])

        def pool() -> Values:
            values = signal_values(signal)
            flat = values.reshape(*values.shape[:3], -1)
            return ops.avg_pool(flat, self.kernel_size, self.stride, self.padding).reshape(steps)

        return Current(
            Store.later(steps, pool),
            signal.timesteps,
            features,
            time_weights=signal.time_weights,
            needs_gradient=needs_gradient(signal),
            parts=self._parts(signal, features) if isinstance(signal, SpikeTrain) else (),
        )

    def _parts(self, train: SpikeTrain, features: tuple[int, ...]) -> tuple[SpikeTrain, ...]:
        """The pooled train as trains of amplitudes a, 2 a, 4 a, ...: the digits of the spikes counted."""
        amplitude = train.amplitude / self.kernel_size**2
        planes = ops.pool_planes(train.words, self.kernel_size, self.stride, self.padding)
        return tuple(
            SpikeTrain(words, features, amplitude * 2**k, train.time_weights) for k, words in enumerate(planes)
        )

    def backward(self, gradient: Backward) -> Backward | None:
        """Spread over the windows."""
        signal, self._input = saved_state(self, self._input), None
        if not needs_gradient(signal):
            return None
        return map_gradient(
            gradient,
            lambda grad: ops.avg_pool_backward(
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
                words = ops.pack_words(values.reshape(*features, 1, 1, *values.shape[3:]))
            return replace(signal, words=words, features=features)
        values = signal.final_values()
        store = Store(values.reshape(*features, 1, 1, *values.shape[3:]))
        return replace(signal, store=store, features=features, scale=None, shift=None, parts=())

    def backward(self, gradient: Backward) -> Backward | None:
        """Back to images."""
        signal, self._input = saved_state(self, self._input), None
        if not needs_gradient(signal):
            return None
        image = image_shape(signal.features)
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
        self.p = as_number("Dropout", "p", p, lambda value: 0 <= value < 1, "a number in [0, 1)")
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
        channels, *pixels = image_shape(signal.features)
        shape = (ops.word_count(channels), *pixels, signal.timesteps, signal.batch)
        seed = (int(self.stream[0]) << 32) | int(self.stream[1])
        self.stream[1] += np.uint32(1)
        mask = ops.dropout_words(np.full(shape, 0xFFFFFFFF, np.uint32), keep, seed)
        factors = ops.unpack_words(mask, channels, 1 / keep)
        self._state = signal, factors
        if isinstance(signal, SpikeTrain):
            return replace(signal, words=signal.words & mask, amplitude=signal.amplitude / keep, time_weights=None)
        values = signal.final_values() * factors
        return Current(Store(values), signal.timesteps, signal.features, needs_gradient=signal.needs_gradient)

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
