"""Network: layers with an input coding and a read-out, the thing that is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.currents import Asked, Current, Signal, signal_values
from dsr.nn.gradients import Gradient, SignalGradient, as_wanted
from dsr.nn.layer import Layer, Parameter
from dsr.nn.neurons import Neuron
from dsr.nn.run import Budget, Run
from dsr.nn.spikes import SpikeTrain, from_lanes, image_shape, to_lanes, uniform_weights
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_count, as_flag, require_finite, shown


class Network:
    """A layer (usually a `Sequential`) fed with data and read out as rates.

    Parameters
    ----------
    body : Layer
        From data to the last layer, whose (weighted) firing rate, or mean current, is the output.
    timesteps : int
        T.
    seed : int
        Of the initial weights and of dropout.
    keep_bytes : int
        Training memory against time, without any effect on results. Currents that the backward pass reads, as the
        exact gradient of batch normalisation does, are kept for it as long as they fit in so many bytes together;
        beyond it the largest are dropped, and computed again, bit for bit, when they are needed. 0 drops all (least
        memory), a large number none (fastest).
    inputs : {"NC", "NCL", "NCHW"}, optional
        Axes of a batch without time: vectors, signals (C, L) or images. Data with one axis more has time first. By
        default what the first layer takes that is made for one of them; if no layer says it, (B, C, H, W), (B, N) and
        (T, B, C, H, W) are taken, and three or four axes that could mean several things are refused.
    weight_bits : int
        Evaluate, and train, with weights rounded to so many bits (2 to 8), as `dsr.quantize` rounds them: the gradients
        are those of the rounded weights, and change the ones that are not rounded. 0: without rounding.

    Examples
    --------
    >>> net = dsr.Network(dsr.Sequential(dsr.Linear(64, 10), dsr.BatchNorm(10), dsr.IF(1.0)), timesteps=5)
    >>> net.forward(images).shape
    (32, 10)
    """

    def __init__(
        self,
        body: Layer,
        timesteps: int,
        seed: int = 0,
        keep_bytes: int = 128 << 20,
        inputs: str | None = None,
        weight_bits: int = 0,
    ) -> None:
        if not isinstance(body, Layer):
            raise TypeError(f"Network: argument 'body': expected a layer, got {type(body).__name__}")
        for name, value in (("seed", seed), ("keep_bytes", keep_bytes)):
            if not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"Network: argument '{name}': expected an integer >= 0, got {shown(value)}")
        self.body, self.timesteps, self.keep_bytes = body, as_count("Network", "timesteps", timesteps), keep_bytes
        if inputs not in (None, *_AXES):
            raise ValueError(f"Network: argument 'inputs': expected one of {', '.join(_AXES)}, got {shown(inputs)}")
        self.inputs = inputs or _first_axes(body)
        self.weight_bits = as_count("Network", "weight_bits", weight_bits, 0)
        if self.weight_bits not in (0, *range(2, 9)):
            raise ValueError(f"Network: argument 'weight_bits': expected 0 or 2 to 8, got {weight_bits}")
        rng = np.random.default_rng(seed)
        seen: set[int] = set()
        for path, layer in body.walk():
            if id(layer) in seen:
                raise ValueError(f"Network: layer '{path}' occurs twice; each place needs a layer of its own")
            seen.add(id(layer))
            layer.path = path
            layer.initialise(rng)
        # of a pass for `backward`: shape of the data, its current, and the output
        self._passed: tuple[tuple[int, ...], Current, Signal] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, and copied, without what a forward pass keeps for `backward`, as its layers are."""
        return {**vars(self), "_passed": None}

    def forward(
        self,
        data: ArrayLike,
        *,
        training: bool = False,
        for_backward: bool = False,
        observer: Callable[[str, Layer, Signal], None] | None = None,
    ) -> Values:
        """Output rates of a batch.

        Parameters
        ----------
        data : array_like, shape (B, C, H, W), (B, C, L) or (B, N), or one of these with T before it
            Static samples, given to every step, or one frame a step; see `inputs`.
        training : bool
            Batch statistics, dropout, and state for `backward`.
        for_backward : bool
            State for `backward` without the rest of training: running statistics and no dropout, as in evaluation. For
            gradients of a trained network, such as saliency maps.
        observer : callable, optional
            Called as ``observer(path, layer, output)`` after each layer.

        Returns
        -------
        ndarray of float32, shape (B, N) or (B, C, H, W)
            In the shape of the last layer's output, such as (B, classes).

        Raises
        ------
        TypeError, ValueError
            `data` is not such an array, has a value that is not finite, or does not fit the network.
        """
        name = "Network.forward"
        training, for_backward = as_flag(name, "training", training), as_flag(name, "for_backward", for_backward)
        budget = Budget(self.keep_bytes)
        bits = self.weight_bits
        return self.evaluate(data, Run(training or for_backward, observer, budget, None, not training, bits))

    def __call__(self, data: ArrayLike) -> Values:
        """Output rates of a batch in evaluation, as `forward`."""
        return self.forward(data)

    def __repr__(self) -> str:
        """The layers, a line each: path, kind, trained numbers."""
        rows = [
            (path or "(body)", layer.kind(), sum(p.value.size for p in layer.parameters().values()))
            for path, layer in self.body.walk()
            if not layer.children()
        ]
        left = max((len(path) for path, _, _ in rows), default=0)
        right = max((len(kind) for _, kind, _ in rows), default=0)
        lines = [
            f"  {path:{left}}  {kind:{right}}  {f'{count:,}' if count else '':>12}".rstrip()
            for path, kind, count in rows
        ]
        total = sum(count for *_, count in rows)
        return "\n".join([f"Network, T = {self.timesteps}, {total:,} parameters", *lines])

    def evaluate(self, data: ArrayLike, run: Run) -> Values:
        """`forward`, with a pass of the caller's."""
        array = as_array("Network.forward", "data", data)
        current = self._current(array)
        output = self.body(current, run)
        if run.training:
            self._passed = array.shape, current, output
        return output.rate()

    @overload
    def backward(self, grad_rate: ArrayLike, *, input: Literal[False] = False) -> None: ...
    @overload
    def backward(self, grad_rate: ArrayLike, *, input: Literal[True]) -> Values: ...
    def backward(self, grad_rate: ArrayLike, *, input: bool = False) -> Values | None:
        """Gradients of all parameters, given that of the rates of the last forward pass that was made for it.

        Parameters
        ----------
        grad_rate : array_like, shape (B, N) or (B, C, H, W), or one of these with T before it
            Gradient of the loss with respect to the output rates, in their shape; or to the outputs of every step, as
            `output_steps` gives them.
        input : bool
            Whether the gradient of the data is computed, too; the first layer has no other use for it.

        Returns
        -------
        ndarray of float32 or None
            With `input`: the gradient of the data, in its shape. Static data is given to every step, so its gradient is
            the sum over the steps.

        Raises
        ------
        RuntimeError
            There was no forward pass with ``training=True`` or ``for_backward=True``, or a layer gives no gradient.
        TypeError, ValueError
            `grad_rate` is no array of finite numbers in one of these shapes; then the pass is still there.
        """
        if self._passed is None:
            raise RuntimeError(
                "Network.backward: expected a forward pass with training=True or for_backward=True before it"
            )
        shape, current, output = self._passed
        input = as_flag("Network.backward", "input", input)
        grad = as_array("Network.backward", "grad_rate", grad_rate).astype(np.float32, copy=False)
        expected = (output.batch, *output.features)
        every_step = (output.timesteps, *expected)
        if grad.shape not in (expected, every_step):
            raise ValueError(
                f"Network.backward: argument 'grad_rate': expected shape {expected}, or of every step {every_step}, "
                f"got {grad.shape}"
            )
        require_finite("Network.backward", "grad_rate", grad)
        self._passed = None
        assert isinstance(current.needs_gradient, Asked)
        current.needs_gradient.yes = input
        gradient: SignalGradient
        if grad.shape == every_step:
            gradient = as_wanted(output, Gradient.from_dense(to_lanes(grad)))
            return self._backward(gradient, current, shape, input)
        lanes = np.ascontiguousarray(np.moveaxis(grad, 0, -1)).reshape(*image_shape(output.features), output.batch)
        gradient = Gradient(lanes / np.float32(output.timesteps), output.timesteps)
        if output.time_weights is not None:
            # rate = sum_t w[t] o[t] / T, and the neuron sums with w again: sum w**2 / T, 1 for IF (method.md)
            weights = output.time_weights.astype(np.float64)
            gradient = lanes * np.float32((weights**2).sum() / len(weights))
        return self._backward(gradient, current, shape, input)

    def _backward(
        self, gradient: SignalGradient, current: Current, shape: tuple[int, ...], input: bool
    ) -> Values | None:
        below = self.body.backward(gradient)
        if not input:
            return None
        if not isinstance(below, Gradient):  # data has no time weights, for which it would be summed
            kind = type(below).__name__
            raise RuntimeError(f"Network.backward: expected a Gradient of the data from the first layer, got {kind}")
        steps = below.total()[:, :, :, np.newaxis] if current.shape[3] == 1 else below.dense()
        return from_lanes(steps, current.features).reshape(shape)

    def output_steps(self) -> tuple[Values, Values]:
        """What the last layer gave at every step of the pass that `backward` is for.

        Returns
        -------
        outputs : ndarray of float32, shape (T, B, N) or (T, B, C, H, W)
            Spikes, each of its height, or currents.
        weights : ndarray of float32, shape (T, 1, 1) or (T, 1, 1, 1, 1)
            Those of the representation: the rate is ``(weights * outputs).sum(axis=0) / weights.sum()``.

        Raises
        ------
        RuntimeError
            There was no forward pass with ``training=True`` or ``for_backward=True``.
        """
        if self._passed is None:
            raise RuntimeError(
                "Network.output_steps: expected a forward pass with training=True or for_backward=True before it"
            )
        output = self._passed[2]
        steps = from_lanes(signal_values(output), output.features)
        outputs = np.broadcast_to(steps, (output.timesteps, *steps.shape[1:]))
        weights = uniform_weights(output.timesteps) if output.time_weights is None else output.time_weights
        return outputs, weights.reshape(-1, *[1] * (outputs.ndim - 1))

    def predict(self, data: ArrayLike, batch_size: int = 256) -> NDArray[np.int64]:
        """Class of each sample, the one of the largest rate, shape (B,); of each pixel of an image-shaped output."""
        array = as_array("Network.predict", "data", data)
        batch_size, axis = (
            as_count("Network.predict", "batch_size", batch_size),
            self.batch_axis(array, "Network.predict"),
        )
        parts = [
            self.forward(array.take(range(i, min(i + batch_size, array.shape[axis])), axis)).argmax(axis=1)
            for i in range(0, array.shape[axis], batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All trained arrays with their paths, such as ``block1.conv1.weight``."""
        for path, layer in self.body.walk():
            for name, parameter in layer.parameters().items():
                yield _join(path, name), parameter

    def neurons(self) -> Iterator[tuple[str, Neuron]]:
        """The spiking layers with their paths, in forward order."""
        for path, layer in self.body.walk():
            if isinstance(layer, Neuron):
                yield path, layer

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers by path."""
        return {name: array.copy() for name, array in self.arrays()}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over parameters and buffers.

        Raises
        ------
        TypeError, ValueError
            A name or a shape does not fit, or something is no array of numbers; then nothing is changed.
        """
        arrays = dict(self.arrays())
        missing, unknown = sorted(arrays.keys() - state.keys()), sorted(state.keys() - arrays.keys())
        if missing or unknown:
            raise ValueError(f"Network.load_state: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
        given = {name: as_array("Network.load_state", name, state[name]) for name in arrays}
        for name, array in arrays.items():
            if array.shape != given[name].shape:
                raise ValueError(f"Network.load_state: '{name}': expected shape {array.shape}, got {given[name].shape}")
        for name, array in arrays.items():
            array[...] = given[name]

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """All parameters and buffers themselves, by path."""
        for path, layer in self.body.walk():
            for name, parameter in layer.parameters().items():
                yield _join(path, name), parameter.value
            for name, buffer in layer.buffers().items():
                yield _join(path, name), buffer

    def batch_axis(self, data: NDArray[Any], function: str = "Network.forward", name: str = "data") -> int:
        """The axis of the samples in what `forward` takes: 1 where time comes first.

        Raises
        ------
        ValueError
            `data` has another number of axes, or one that may mean several things.
        """
        if self.inputs is not None:
            axes = len(self.inputs)
            if data.ndim not in (axes, axes + 1):
                wanted = _AXES[self.inputs]
                raise ValueError(
                    f"{function}: argument '{name}': expected {wanted}, or with time (T, {wanted[1:]}, got shape "
                    f"{data.shape}"
                )
            return data.ndim - axes
        if data.ndim not in (2, 4, 5):
            hint = ', which is (T, B, N) or (B, C, L): give the network inputs="NC" or "NCL"' if data.ndim == 3 else ""
            raise ValueError(
                f"{function}: argument '{name}': expected (B, C, H, W), (B, N) or (T, B, C, H, W), got shape "
                f"{data.shape}{hint}"
            )
        return 1 if data.ndim == 5 else 0

    def _current(self, array: NDArray[Any]) -> Current:
        axis = self.batch_axis(array)
        if 0 in array.shape[axis + 1 :]:
            raise ValueError(
                f"Network.forward: argument 'data': expected samples of at least one value, got shape {array.shape}"
            )
        require_finite("Network.forward", "data", array)
        if axis == 0:
            return Current.from_static(np.require(array, np.float32, "A"), self.timesteps, Asked())
        if len(array) != self.timesteps:
            raise ValueError(
                f"Network.forward: argument 'data': expected T = {self.timesteps} steps first, got shape {array.shape}"
            )
        return Current.from_dense(np.require(array, np.float32, "A"), Asked())


_AXES = {"NC": "(B, N)", "NCL": "(B, C, L)", "NCHW": "(B, C, H, W)"}


def _first_axes(body: Layer) -> str | None:
    """What the first layer takes that is made for vectors, signals or images; None if none says it."""
    for _, layer in body.walk():
        if not layer.children() and layer.input_axes != "any":
            return layer.input_axes or None
    return None


def spike_rates(network: Network, data: ArrayLike) -> dict[str, float]:
    """Firing rate of each spiking layer on a batch: spikes per neuron and time step."""
    rates: dict[str, float] = {}

    def observe(path: str, layer: Layer, output: Signal) -> None:
        if isinstance(layer, Neuron) and isinstance(output, SpikeTrain):
            rates[path] = output.firing_rate()

    network.forward(data, observer=observe)
    return rates


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
