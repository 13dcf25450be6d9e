"""The training step of a network in plain PyTorch, to measure beside: the same layers, weights and gradients.

It is what one writes with PyTorch who knows it: time and batch on one axis, channels last, what is the same at every
step computed once, neurons as one function whose backward pass is that of DSR, and no reference to this package's
kernels. Batch normalisation has the exact gradient of every step, as PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr import _core
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.dropout import Dropout
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.neurons import Neuron
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d, GlobalAvgPool2d
from dsr.nn.spikes import uniform_weights
from dsr.ops import Values

Signal = Any
"""A tensor (T B, C, H, W) or (T B, N), or (B, ...) while it is the same at every step."""


class Step:
    """A training step of a network's twin.

    Parameters
    ----------
    network : Network
        Whose layers and weights are taken over; it is not changed.
    learning_rate, momentum, weight_decay : float
        Of SGD.

    Raises
    ------
    ImportError
        PyTorch is not installed.
    ValueError
        The network has a layer that this twin does not know.
    """

    def __init__(
        self, network: Network, learning_rate: float = 0.05, momentum: float = 0.9, weight_decay: float = 5e-4
    ) -> None:
        if find_spec("torch") is None:
            raise ImportError(
                "bench: --beside torch: expected PyTorch, which is not installed; pip install torch --index-url "
                "https://download.pytorch.org/whl/cpu"
            )
        self.torch: Any = import_module("torch")
        self.torch.set_num_threads(_core.threads())
        self.timesteps = network.timesteps
        self.parameters: dict[str, Any] = {}
        self._batch = 0
        self._read_out: Callable[[int], Values] = uniform_weights  # of the last neurons
        self._spikes = _spiking(self.torch)
        self._forward = self._twin(network.body)
        self._optimizer = self.torch.optim.SGD(
            list(self.parameters.values()), learning_rate, momentum=momentum, weight_decay=weight_decay
        )

    def __call__(self, images: Values, labels: NDArray[Any]) -> float:
        """One step; the loss."""
        loss = self.gradients(images, labels)
        self._optimizer.step()
        return loss

    def gradients(self, images: Values, labels: NDArray[Any]) -> float:
        """A forward and a backward pass on static images (B, C, H, W); the loss."""
        torch = self.torch
        self._batch = len(images)
        self._optimizer.zero_grad(set_to_none=True)
        signal = self._forward(torch.from_numpy(images).contiguous(memory_format=torch.channels_last))
        rates = signal.reshape(-1, self._batch, signal.shape[1])
        rates = (rates * self._weights(rates)).mean(0)
        loss = torch.nn.functional.cross_entropy(rates, torch.from_numpy(np.asarray(labels, np.int64)))
        loss.backward()
        return float(loss.detach())

    def _weights(self, train: Any) -> Any:
        """Time weights of the last neurons, in a shape that goes with the train."""
        weights = self._read_out(self.timesteps) if len(train) == self.timesteps else np.ones(1, np.float32)
        return self.torch.from_numpy(weights).reshape(-1, *[1] * (train.ndim - 1))

    def _parameter(self, layer: Layer, name: str, value: Values) -> Any:
        tensor = self.torch.from_numpy(value.copy())
        if tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=self.torch.channels_last)
        self.parameters[f"{layer.path}.{name}"] = tensor.requires_grad_()
        return tensor

    def _twin(self, layer: Layer) -> Callable[[Signal], Signal]:
        """What a layer does, by PyTorch."""
        functional = self.torch.nn.functional
        if type(layer) is Sequential:
            parts = [self._twin(inner) for inner in layer.layers.values()]
            return lambda x: _chain(parts, x)
        if type(layer) is Residual:
            body, shortcut = self._twin(layer.body), self._twin(layer.shortcut) if layer.shortcut else None
            return lambda x: body(x) + (x if shortcut is None else shortcut(x))
        if type(layer) in (Conv2d, Linear):
            assert isinstance(layer, Conv2d)
            weight = self._parameter(layer, "weight", layer.weight.value)
            bias = None if layer.bias is None else self._parameter(layer, "bias", layer.bias.value)
            if type(layer) is Linear:
                return lambda x: functional.linear(x, weight.reshape(weight.shape[:2]), bias)
            g = layer.geometry
            if (g.padding[0], g.padding[2]) == (g.padding[1], g.padding[3]):
                around = g.padding[0], g.padding[2]
                return lambda x: functional.conv2d(x, weight, bias, g.stride, around, g.dilation, g.groups)
        if type(layer) is BatchNorm and layer.gain:
            weight = self._parameter(layer, "weight", layer.weight.value)
            bias = self._parameter(layer, "bias", layer.bias.value)
            mean, variance = (self.torch.from_numpy(array.copy()) for array in layer.buffers().values())
            return lambda x: functional.batch_norm(x, mean, variance, weight, bias, True, layer.momentum, layer.eps)
        if isinstance(layer, Neuron) and layer.v_threshold.value.ndim == 0:
            threshold = self._parameter(layer, "v_threshold", layer.v_threshold.value)
            self._read_out = layer.time_weights
            return partial(self._neurons, layer, threshold)
        if type(layer) is AvgPool2d:
            return lambda x: functional.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
        if type(layer) is GlobalAvgPool2d:
            return lambda x: x.mean((2, 3))
        if type(layer) is Flatten:
            return lambda x: x.flatten(1)
        if type(layer) is Dropout:
            return lambda x: functional.dropout(x, layer.p)
        raise ValueError(
            "bench: --beside torch: expected a model of layers that its PyTorch twin has, such as preact_resnet18, got "
            f"{layer.kind()} at '{layer.path}'"
        )

    def _neurons(self, neuron: Neuron, threshold: Any, current: Signal) -> Signal:
        bound = neuron.v_threshold_lower_bound
        effective = (threshold - bound).clamp(min=0) + bound
        weights = self.torch.from_numpy(neuron.time_weights(self.timesteps))
        return self._spikes.apply(current, effective, weights, self._batch, neuron)


def _chain(parts: list[Callable[[Signal], Signal]], x: Signal) -> Signal:
    for part in parts:
        x = part(x)
    return x


def _spiking(torch: Any) -> Any:
    """Neurons as a function of PyTorch: simulated step by step, differentiated through their representations."""

    def forward(ctx: Any, current: Any, threshold: Any, weights: Any, batch: int, neuron: Neuron) -> Any:
        timesteps, model = len(weights), neuron.model(float(threshold))
        assert isinstance(model.v_threshold, float) and isinstance(model.fire, float)
        steps = current.reshape(-1, batch, *current.shape[1:])
        shape = (timesteps * batch, *current.shape[1:])
        layout = torch.channels_last if current.ndim == 4 else torch.contiguous_format
        train = torch.empty(shape, memory_format=layout)
        out = train.view(timesteps, batch, *current.shape[1:])
        v, total = torch.zeros_like(steps[0]), torch.zeros_like(steps[0])
        for t, x in enumerate(_steps(steps, timesteps)):
            v = v + x if model.decay == model.gain == 1 else v.mul(model.decay).add_(x, alpha=model.gain)
            fires = (v >= model.fire).to(v.dtype)
            v.sub_(fires, alpha=model.v_threshold)
            torch.mul(fires, model.amplitude, out=out[t])
            total.add_(x, alpha=float(weights[t]) / timesteps)
        ctx.save_for_backward(total, weights)
        ctx.model, ctx.factor, ctx.one_step = model, neuron.threshold_gradient_factor(), len(steps) == 1 < timesteps
        return train

    def backward(ctx: Any, grad: Any) -> Any:
        mean, weights = ctx.saved_tensors
        model, timesteps = ctx.model, len(weights)
        steps = grad.reshape(timesteps, *mean.shape)
        total = steps.sum(0) if bool((weights == 1).all()) else torch.einsum("t,t...->...", weights, steps)
        rises = (mean >= 0) & (mean <= model.top) if model.closed else (mean > 0) & (mean < model.top)
        below = total * rises / model.divisor
        if not ctx.one_step:
            below = (below / timesteps).expand(steps.shape).reshape(grad.shape)
        above = (total * (mean > model.top)).sum() * ctx.factor
        return below, above, None, None, None

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Spikes", (torch.autograd.Function,), members)


def _steps(steps: Any, timesteps: int) -> Iterator[Any]:
    for t in range(timesteps):
        yield steps[t if len(steps) > 1 else 0]
