"""Integer operations whose arguments are bound once, results included; see `dsr.ops.prepared`."""

from __future__ import annotations

from dsr import _core
from dsr.ops.integers import ROW, IntegerInput, IntegerNeurons, Integers, PackedWeights, Potentials
from dsr.ops.layout import Words
from dsr.ops.prepared import Bound, Call


def conv2d_spikes(words: Words, weights: PackedWeights, shift: int, table_bits: int, rows: Integers) -> list[Call]:
    """Added to rows, see `dsr.ops.integer_conv2d_spikes`; a call for each part of the weights."""
    merged, to = words.reshape(*words.shape[:3], -1), _merged(rows)
    numbers = weights.geometry, weights.in_channels, weights.out_channels, shift, table_bits
    return [
        Bound(_core.integer_conv2d_spikes, merged, part, *numbers, together, to)
        for part, together in zip(weights.parts, weights.together, strict=True)
    ]


def conv2d_neuron_spikes(
    read: IntegerInput, neurons: IntegerNeurons, current: Integers | None, potentials: Potentials | None, out: Words
) -> Call:
    """To spikes, see `dsr.ops.integer_conv2d_neuron_spikes`; of the parts of the weights the last one.

    Potentials None: they begin at 0 in each call, and are not kept.
    """
    weights, together = read.weights, read.weights.together[-1]
    numbers = weights.geometry, weights.in_channels, weights.out_channels, read.shift, read.table_bits, together
    after = read.shortcut, read.shortcut_weight, *_numbers(neurons), potentials, out
    return Bound(_core.integer_conv2d_neuron_spikes, read.words, weights.parts[-1], *numbers, current, *after)


def conv2d(values: Integers, weights: PackedWeights, shift: int, rows: Integers) -> Call:
    """Of values (C, H, W, T, B) in [-32767, 32767], added to rows.

    Weights are from `pack_for_values`. Sums are multiplied with ``2**shift``, or divided and rounded to the nearest,
    halves up, where `shift` is below 0; before that and after they are modulo 2**32. EXACT.
    """
    merged = values.reshape(*values.shape[:3], -1)
    return Bound(_core.integer_conv2d, merged, *_value_weights(weights, shift), _merged(rows))


def conv2d_value_neuron_spikes(
    values: Integers,
    weights: PackedWeights,
    shift: int,
    neurons: IntegerNeurons,
    shortcut: tuple[Words, Integers] | None,
    potentials: Potentials | None,
    out: Words,
) -> Call:
    """The same to spikes; values of one step are those of every step. A shortcut is as in `IntegerInput`."""
    after = *(shortcut or (None, None)), *_numbers(neurons), potentials, out
    return Bound(_core.integer_conv2d_value_neuron_spikes, values, *_value_weights(weights, shift), *after)


def _value_weights(weights: PackedWeights, shift: int) -> tuple[object, ...]:
    (part,) = weights.parts
    return part, weights.geometry, weights.in_channels, weights.out_channels, max(shift, 0), max(-shift, 0)


def _numbers(neurons: IntegerNeurons) -> tuple[object, ...]:
    return neurons.bias, neurons.reset, neurons.fire, neurons.decay


def _merged(rows: Integers) -> Integers:
    """Time and samples on one axis."""
    return rows.reshape(*rows.shape[:3], rows.shape[3] * rows.shape[4], ROW)
