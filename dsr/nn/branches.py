"""Layers side by side: their outputs added, or one behind the other along the channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dsr import ops
from dsr.nn.currents import (
    Computed,
    Current,
    Signal,
    Spikes,
    needs_gradient,
    signal_values,
    terms_of,
    trains_of,
    unit_of,
)
from dsr.nn.describe import GraphWriter, OperationCounter
from dsr.nn.gradients import Gradient, SignalGradient, add_gradients, as_wanted
from dsr.nn.layer import Layer, saved_state
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, concatenated_units, image_shape
from dsr.ops import Values, Words


class Identity(Layer):
    """What comes in, as a branch that does nothing."""

    def forward(self, signal: Signal, run: Run) -> Signal:
        """The signal."""
        return signal

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """The gradient."""
        return gradient

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None."""

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """The wire."""
        return wire


class Branches(Layer):
    """Base of layers whose branches all get the input.

    Parameters
    ----------
    *branches : Layer
        Named ``"0"``, ``"1"``, ... in checkpoints.
    **named : Layer
        Named by their keywords.
    """

    def __init__(self, *branches: Layer, **named: Layer) -> None:
        name = type(self).__name__
        self.branches: dict[str, Layer] = {str(i): branch for i, branch in enumerate(branches)} | named
        if not self.branches:
            raise ValueError(f"{name}: argument 'branches': expected at least one layer, got none")
        for key, branch in self.branches.items():
            if not isinstance(branch, Layer):
                raise TypeError(f"{name}: argument '{key}': expected a layer, got {type(branch).__name__}")
        self._state: tuple[Signal, list[Signal]] | None = None

    def children(self) -> Mapping[str, Layer]:
        """The branches."""
        return self.branches

    def forward(self, signal: Signal, run: Run) -> Signal:
        """The outputs of all branches, joined."""
        outputs = [branch(signal, run) for branch in self.branches.values()]
        output = self.join(outputs)
        if run.training:
            self._state = signal, outputs
        return output

    def join(self, outputs: Sequence[Signal]) -> Signal:
        """One signal of those of the branches; ValueError if they do not fit each other."""
        raise NotImplementedError

    def split(self, gradient: SignalGradient, outputs: Sequence[Signal]) -> list[SignalGradient]:
        """The gradient of each branch's output, in the form that it wants."""
        raise NotImplementedError

    def backward(self, gradient: SignalGradient) -> SignalGradient | None:
        """Sum of the gradients of the branches."""
        (signal, outputs), self._state = saved_state(self, self._state), None
        below: SignalGradient | None = None
        for branch, part in zip(self.branches.values(), self.split(gradient, outputs), strict=True):
            own = branch.backward(part)
            if own is not None and needs_gradient(signal):
                below = own if below is None else add_gradients(below, own)
        return below

    def refuse(self, outputs: Sequence[Signal], what: str) -> ValueError:
        """The error that tells the shapes."""
        shapes = ", ".join(f"{name}: {o.features}" for name, o in zip(self.branches, outputs, strict=True))
        return ValueError(f"{type(self).__name__} {self.path}: expected outputs of {what}, got {shapes}")


class Add(Branches):
    """The sum of the outputs of its branches, as the list of their terms: spikes stay spikes."""

    def join(self, outputs: Sequence[Signal]) -> Signal:
        """The terms of all."""
        first = outputs[0]
        if any(output.features != first.features for output in outputs):
            raise self.refuse(outputs, "one shape")
        return add_signals(outputs)

    def split(self, gradient: SignalGradient, outputs: Sequence[Signal]) -> list[SignalGradient]:
        """The same for all."""
        assert isinstance(gradient, Gradient)
        return [as_wanted(output, gradient) for output in outputs]

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """Spikes are added as they are, unless all are spikes: then they count where the sum is used."""
        outputs = [counter.output_of(branch.path) for branch in self.branches.values()]
        if not counter.merge(outputs, output, lambda parts: sum(parts[1:], parts[0])):
            for part in outputs:
                counter.additions(self.path, part)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """A fork and a sum."""
        wire = writer.fork(self.path, wire)
        first, *others = (writer.layer(branch, wire) for branch in self.branches.values())
        for other in others:
            first = writer.add(first, other)
        return first


class Concat(Branches):
    """The outputs of its branches one behind the other along the channels.

    Notes
    -----
    Spikes stay spikes: the output of branches that are spikes is one train, whose amplitude is an array, one for each
    channel. (A list of trains would have served convolutions as well, but not what reads one train, such as maximum
    pooling and dropout; and the amplitudes by channel are there anyhow, for neurons with a threshold for each.)
    Branches that are sums of spikes, such as pooled ones, give a sum of trains. Other values are written out.

    The gradient of a branch is its channels of the output's gradient. Where all branches read time with the same
    weights it needs no time axis; else it is one of every step, of which each branch takes the sum that it wants.
    """

    def join(self, outputs: Sequence[Signal]) -> Signal:
        """One train, a sum of trains, or values."""
        _, *pixels = outputs[0].features
        if any(output.features[1:] != tuple(pixels) for output in outputs):
            raise self.refuse(outputs, "one height and width" if len(pixels) == 2 else "one shape but for the channels")
        features = (sum(output.channels for output in outputs), *pixels)
        weights = _common_weights(outputs)
        trains = [[plane for train in trains_of(output) for plane in train.split()] for output in outputs]
        if all(trains):
            joined = [
                SpikeTrain(
                    ops.concat_words([part[0] for part in parts], [output.channels for output in outputs]),
                    features,
                    np.concatenate([part[1] for part in parts]),
                    weights,
                )
                for parts in _side_by_side(trains)
            ]
            if all(isinstance(output, SpikeTrain) for output in outputs):
                # planes of graded spikes: amplitudes a, 2 a, 4 a, ... in each branch
                return replace(joined[0], words=np.concatenate([j.words for j in joined]), planes=len(joined))
            terms: tuple[Any, ...] = tuple(Spikes(train) for train in joined)
        else:
            shape = _shape(outputs[0])
            steps = max(_shape(output)[3] for output in outputs)
            size = (features[0], *shape[1:3], steps, shape[4])
            terms = (Computed(lambda: _concatenated(outputs, size), size, _unit(outputs)),)
        return Current(
            terms,
            features,
            outputs[0].timesteps,
            time_weights=weights,
            needs_gradient=any(needs_gradient(output) for output in outputs),
        )

    def split(self, gradient: SignalGradient, outputs: Sequence[Signal]) -> list[SignalGradient]:
        """The channels of each."""
        parts: list[SignalGradient] = []
        first = 0
        for output in outputs:
            channels = slice(first, first + output.channels)
            first = channels.stop
            if isinstance(gradient, Gradient):
                terms = [(slope[channels], Current.of(x.values()[channels])) for slope, x in gradient.terms]
                parts.append(as_wanted(output, Gradient(gradient.constant[channels], gradient.timesteps, terms)))
            else:
                parts.append(gradient[channels])
        return parts

    def count_operations(self, counter: OperationCounter, signal: Signal, output: Signal) -> None:
        """None of its own: spikes count where they are used."""
        outputs = [counter.output_of(branch.path) for branch in self.branches.values()]
        counter.merge(outputs, output, np.concatenate)

    def export(self, writer: GraphWriter, wire: Any) -> Any:
        """NIR has no concatenation: each branch gets a 1x1 convolution that puts its channels in their places."""
        wire = writer.fork(self.path, wire)
        return writer.concatenate(self.path, [writer.layer(branch, wire) for branch in self.branches.values()])


def add_signals(outputs: Sequence[Signal]) -> Current:
    """The sum of signals of one shape, as the terms of all."""
    terms = tuple(term for output in outputs for term in terms_of(output))
    return Current(terms, outputs[0].features, outputs[0].timesteps, needs_gradient=any(map(needs_gradient, outputs)))


def _common_weights(outputs: Sequence[Signal]) -> Values | None:
    """The time weights of all, None where they differ, or where one wants the gradient of every step."""
    first, *others = [output.time_weights for output in outputs]
    if first is None or any(weights is None or (weights != first).any() for weights in others):
        return None
    return first


def _side_by_side(trains: Sequence[Sequence[SpikeTrain]]) -> list[list[tuple[Words, Values]]]:
    """The trains of all branches by their numbers, as words and amplitudes; those that a branch lacks are silent."""
    rows = []
    for number in range(max(len(branch) for branch in trains)):
        row = []
        for branch in trains:
            train = branch[number] if number < len(branch) else branch[0]
            words = train.words if number < len(branch) else np.zeros_like(train.words)
            row.append((words, np.full(train.channels, train.amplitude, np.float32)))
        rows.append(row)
    return rows


def _shape(signal: Signal) -> tuple[int, ...]:
    """(C, H, W, T or 1, B)."""
    if isinstance(signal, Current):
        return signal.shape
    return (*image_shape(signal.features), signal.timesteps, signal.batch)


def _unit(outputs: Sequence[Signal]) -> Values | None:
    """`unit_of` the concatenated outputs; None where one of them has none."""
    units = [unit for output in outputs if (unit := unit_of(output)) is not None]
    return concatenated_units([output.channels for output in outputs], units) if len(units) == len(outputs) else None


def _concatenated(outputs: Sequence[Signal], size: tuple[int, ...]) -> Values:
    values, first = np.empty(size, np.float32), 0
    for output in outputs:
        values[first : first + output.channels] = signal_values(output)
        first += output.channels
    return values
