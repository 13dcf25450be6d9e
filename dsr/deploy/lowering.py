"""Network to program: each layer says what it does, as it says it to the writer of NIR graphs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from dsr.deploy.folding import fold
from dsr.deploy.program import (
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Gate,
    Input,
    MaxPool,
    Neurons,
    Pool,
    Program,
    Rectify,
    Step,
    Sum,
    Upsample,
)
from dsr.nn.currents import Current, Signal
from dsr.nn.describe import description
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.rounding import DATA_BITS, rounded
from dsr.nn.run import Run
from dsr.nn.spikes import concatenated_units, flattened_unit, image_shape, share_of
from dsr.ops import Geometry, NeuronModel, PerChannel, Values, output_size
from dsr.ops.arguments import as_count, shown


def lower(network: Network, features: Sequence[int], *, folded: bool = True) -> Program:
    """The program of a network.

    Parameters
    ----------
    network : Network
        Trained. Weights are rounded as its own passes round them (`weight_bits`).
    features : sequence of int
        Shape of a sample: ``(N,)``, ``(C, L)`` or ``(C, H, W)``.
    folded : bool
        Whether batch normalisation goes into the weights of the convolutions before it, and into the factors of the
        spikes that are added to these, wherever nothing else reads them. Weights, biases and factors are computed in
        double and rounded to float32 once, so currents differ from the network's by rounding, and a spike may differ
        where a potential comes that close to its threshold. Without it, each is a `Sum` of its own.

    Returns
    -------
    Program
        Its arrays are copies: training goes on without changing it.

    Raises
    ------
    TypeError, ValueError
        `network` is no network, samples of this shape do not fit it, or (NotDescribedError) a layer does not say what
        it does.
    FloatingPointError
        A weight or threshold is not finite.
    """
    if not isinstance(network, Network):
        raise TypeError(f"lower: argument 'network': expected a Network, got {type(network).__name__}")
    shape = _features(features)
    lowering = _Lowering(network.weight_bits)
    for _, layer in network.body.walk():
        _export_of(layer)
    output = _probe(network, shape)
    lowering.layer(network.body, lowering.input(shape))
    program = lowering.program(network.timesteps, shape, output)
    return fold(program) if folded else program


def _features(features: Any) -> tuple[int, ...]:
    if not isinstance(features, Sequence) or isinstance(features, str) or len(features) not in (1, 2, 3):
        raise ValueError(f"lower: argument 'features': expected (N,), (C, L) or (C, H, W), got {shown(features)}")
    return tuple(as_count("lower", "features", size) for size in features)


def _probe(network: Network, features: tuple[int, ...]) -> Signal:
    """The output of a pass of one sample, which finds layers that do not fit."""
    try:
        return network.body(Current.from_static(np.zeros((1, *features), np.float32), network.timesteps), Run())
    except ValueError as error:
        raise ValueError(f"lower: samples of shape {features} do not fit the network: {error}") from None


class NotDescribedError(ValueError):
    """A layer does not say what it does in evaluation."""


def _export_of(layer: Layer) -> Any:
    missing = "expected a layer that says what it does in evaluation, but {} has no export()"
    try:
        return description("lower", layer, "export", missing, ("forward", "model"))
    except ValueError as error:
        raise NotDescribedError(str(error)) from None


class _Lowering:
    """A `dsr.nn.describe.GraphWriter` that writes steps; a wire is a step's number."""

    def __init__(self, weight_bits: int) -> None:
        self.weight_bits = weight_bits
        self.steps: list[Step] = []
        self.leaks: list[float] = []  # of the time weights by which the network would read a step's spikes
        self.paths: list[str] = []

    def input(self, features: tuple[int, ...]) -> int:
        """Step 0."""
        return self._add(Input(path="", inputs=(), shape=image_shape(features)))

    def program(self, timesteps: int, features: tuple[int, ...], output: Signal) -> Program:
        """The steps, with what a pass of the network gave."""
        last = len(self.steps) - 1
        leak = self.leaks[last] if self.steps[last].amplitude is not None else 0.0
        program = Program(tuple(self.steps), timesteps, features, output.features, leak, folded=False)
        weights = None if isinstance(output, Current) else output.time_weights
        expected = program.time_weights(timesteps)
        if weights is not None and not np.array_equal(weights, expected):
            path = self.steps[last].path
            raise NotDescribedError(
                f"lower: layer '{path}': expected time weights of a leak of {leak}, {expected}, got {weights}"
            )
        return program

    def _add(self, step: Step, leak: float = 0.0) -> int:
        self.steps.append(step)
        self.leaks.append(leak)
        return len(self.steps) - 1

    # ---- what layers call

    def layer(self, layer: Layer, wire: int) -> int:
        """The step behind a layer."""
        self.paths.append(layer.path)
        behind: int = _export_of(layer)(self, wire)
        self.paths.pop()
        return behind

    def fork(self, path: str, wire: int) -> int:
        """Steps may be read more than once."""
        return wire

    def add(self, a: int, b: int) -> int:
        """The sum of two steps."""
        ones = np.ones(self.steps[a].shape[0], np.float32)
        return self._add(
            Sum(path=self.paths[-1], inputs=(a, b), shape=self.steps[a].shape, factors=(ones, ones), bias=None)
        )

    def concatenate(self, path: str, wires: Sequence[int]) -> int:
        """The channels of all, one behind the other."""
        parts = [self.steps[wire] for wire in wires]
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        heights = [
            None if part.amplitude is None else np.full(part.shape[0], part.amplitude, np.float32) for part in parts
        ]
        known = [height for height in heights if height is not None]
        amplitude = np.concatenate(known) if len(known) == len(parts) else None
        return self._add(
            Concat(
                path=path,
                inputs=tuple(wires),
                shape=shape,
                amplitude=amplitude,
                levels=1 if amplitude is None else max(part.levels for part in parts),
            ),
            self._common_leak(wires),
        )

    def convolution(self, path: str, wire: int, weight: Values, bias: Values | None, geometry: Geometry) -> int:
        """A convolution of images, or of signals as images of height 1."""
        _, height, width = self.steps[wire].shape
        if self.weight_bits:
            weight = rounded(weight, DATA_BITS if self._is_data(wire) else self.weight_bits, self._unit(wire))
        shape = (len(weight), *geometry.output_size(height, width))
        return self._add(
            Convolution(
                path=path,
                inputs=(wire,),
                shape=shape,
                weight=_finite(path, "weight", weight),
                bias=None if bias is None else _finite(path, "bias", bias),
                geometry=geometry,
            )
        )

    def _is_data(self, wire: int) -> bool:
        """Whether a step gives the data, in other places at most; what normalisation makes of them is not data."""
        step = self.steps[wire]
        if isinstance(step, Convolution | Neurons) or (isinstance(step, Sum) and len(step.inputs) == 1):
            return False
        return isinstance(step, Input) or all(self._is_data(number) for number in step.inputs)

    def _unit(self, wire: int) -> PerChannel | None:
        """What a spike of each channel is worth in a step of spikes, counts of them and their sums; else None.

        As `dsr.nn.currents.unit_of` has it, so that weights are rounded as in training.
        """
        step = self.steps[wire]
        if step.amplitude is not None:
            return step.amplitude
        if isinstance(step, Sum) and len(step.inputs) == 1:  # a normalisation
            return None
        if not isinstance(step, AveragePool | Upsample | Flatten | Concat | Sum):
            return None
        known = [unit for number in step.inputs if (unit := self._unit(number)) is not None]
        if len(known) < len(step.inputs):
            return None
        if isinstance(step, AveragePool):
            return share_of(known[0], prod(step.kernel_size))
        if isinstance(step, Concat):
            channels = [self.steps[number].shape[0] for number in step.inputs]
            return concatenated_units(channels, known)
        return flattened_unit(known[0], step.shape[0]) if isinstance(step, Flatten) else known[0]

    def linear(self, path: str, wire: int, weight: Values, bias: Values | None) -> int:
        """A convolution of images of one pixel."""
        return self.convolution(path, wire, weight, bias, Geometry((1, 1)))

    def affine(self, wire: int, scale: Values, shift: Values) -> int:
        """A scale and a shift of each channel."""
        path = self.paths[-1]
        return self._add(
            Sum(
                path=path,
                inputs=(wire,),
                shape=self.steps[wire].shape,
                factors=(_finite(path, "scale", scale),),
                bias=_finite(path, "shift", shift),
            )
        )

    def average_pool(
        self, path: str, wire: int, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> int:
        """The mean over windows."""
        return self._pool(AveragePool, path, wire, kernel_size, stride, padding)

    def global_average_pool(self, path: str, wire: int) -> int:
        """The mean over all pixels, an image of one."""
        size = self.steps[wire].shape[1:]
        return self._pool(AveragePool, path, wire, size, size, (0, 0))

    def max_pool(
        self, path: str, wire: int, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> int:
        """The largest value of windows."""
        return self._pool(MaxPool, path, wire, kernel_size, stride, padding)

    def _pool(self, kind: type[Pool], path: str, wire: int, *windows: tuple[int, int]) -> int:
        before = self.steps[wire]
        rows, columns = (output_size(*axis) for axis in zip(before.shape[1:], *windows, strict=True))
        return self._add(
            kind(
                path=path,
                inputs=(wire,),
                shape=(before.shape[0], rows, columns),
                amplitude=before.amplitude if kind is MaxPool and before.levels == 1 else None,
                kernel_size=windows[0],
                stride=windows[1],
                padding=windows[2],
            ),
            self.leaks[wire],
        )

    def upsample(self, path: str, wire: int, factor: tuple[int, int]) -> int:
        """Repeated pixels."""
        before = self.steps[wire]
        channels, height, width = before.shape
        shape = (channels, height * factor[0], width * factor[1])
        return self._add(
            Upsample(
                path=path,
                inputs=(wire,),
                shape=shape,
                amplitude=before.amplitude,
                levels=before.levels,
                factor=factor,
            ),
            self.leaks[wire],
        )

    def flatten(self, path: str, wire: int) -> int:
        """An image as a vector."""
        before = self.steps[wire]
        amplitude = before.amplitude
        if isinstance(amplitude, np.ndarray):
            amplitude = amplitude.repeat(prod(before.shape[1:]))
        shape = prod(before.shape), 1, 1
        return self._add(
            Flatten(path=path, inputs=(wire,), shape=shape, amplitude=amplitude, levels=before.levels),
            self.leaks[wire],
        )

    def gate(self, path: str, wire: int, by: int, fires: bool) -> int:
        """The spikes of one step where another one fires, or does not."""
        before = self.steps[wire]
        if before.levels > 1 or self.steps[by].levels > 1:
            raise NotDescribedError(f"lower: layer '{path}': expected spikes of one level to gate, got graded ones")
        return self._add(
            Gate(path=path, inputs=(wire, by), shape=before.shape, amplitude=before.amplitude, fires=fires),
            self._common_leak((wire, by)),
        )

    def rectify(self, path: str, wire: int) -> int:
        """The positive part."""
        return self._add(Rectify(path=path, inputs=(wire,), shape=self.steps[wire].shape))

    def neuron(
        self, path: str, wire: int, neuron: NeuronModel, v_threshold: PerChannel, alpha: float, leak: float
    ) -> int:
        """Neurons that reset by subtraction."""
        step = Neurons(
            path=path,
            inputs=(wire,),
            shape=self.steps[wire].shape,
            amplitude=neuron.amplitude,
            levels=neuron.levels,
            model=neuron,
            leak=leak,
        )
        return self._add(step, leak)

    def _common_leak(self, wires: Sequence[int]) -> float:
        """The leak of all steps' time weights; where they differ, the network takes the plain mean."""
        leaks = {self.leaks[wire] for wire in wires}
        return leaks.pop() if len(leaks) == 1 else 0.0


def _finite(path: str, name: str, array: Values) -> Values:
    """A copy, or an error that names the layer."""
    if not np.isfinite(array).all():
        raise FloatingPointError(f"lower: layer '{path}': {name} is not finite")
    return np.array(array, np.float32, order="C")
