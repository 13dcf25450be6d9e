"""What each entry of dsr._core has to leave in its outputs, by dsr.reference: the arguments as the entry takes them.

Exact entries give the expected outputs in order. Those whose sums are rounded give `Within`: the exact result and the
size of the terms, of which the documented bound is a multiple.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from core_table import aligned

from dsr import _core, ops, reference


class Within(NamedTuple):
    """Any result that is at most ``(terms + 2) 2**-24 size`` away from `exact`."""

    exact: np.ndarray
    size: np.ndarray
    terms: int


class Number(NamedTuple):
    """A sum in double that the entry returns, and the sum of the absolute values of its terms."""

    value: float
    size: float


def images(array: np.ndarray) -> np.ndarray:
    """(C, P, T, B) as (C, P, 1, T, B)."""
    return array[:, :, np.newaxis]


def plane(array: np.ndarray) -> np.ndarray:
    """Without the axis that `images` added."""
    return array.reshape(*array.shape[:2], *array.shape[3:])


def with_own(neuron: Any, thresholds: Any) -> Any:
    """The neuron with a threshold for each channel, where there are any."""
    if thresholds is None:
        return neuron
    v_threshold, fire, top = thresholds
    numbers = neuron.decay, neuron.gain, v_threshold, fire, neuron.amplitude, neuron.divisor, top, neuron.closed
    return reference.Neuron(*numbers, neuron.levels)


def spikes(
    current: Any, scale: Any, shift: Any, weights: Any, neuron: Any, own: Any, words: Any, sums: Any, weighted: Any
) -> list[Any]:
    found = reference.neuron_spikes(images(current), words.shape[2], with_own(neuron, own), weights, scale, shift)
    return [None if array is None else plane(array) for array in found]


def steps(current: Any, scale: Any, shift: Any, neuron: Any, own: Any, words: Any, potentials: Any) -> list[Any]:
    rows = None if potentials is None else images(potentials).copy()
    found = reference.neuron_steps(images(current), words.shape[2], with_own(neuron, own), rows, scale, shift)
    return [plane(found), None if rows is None else plane(rows)]


def threshold_gradient(result: tuple[Any, float], grad: np.ndarray) -> list[Any]:
    with np.errstate(all="ignore"):
        return [result[0], Number(result[1], float(np.abs(grad.astype(np.float64)).sum()))]


def threshold_gradients(result: tuple[Any, Any], grad: np.ndarray) -> list[Any]:
    with np.errstate(all="ignore"):
        size = np.abs(grad.astype(np.float64)).sum(axis=tuple(range(1, grad.ndim)))
        return [result[0], Sums(result[1], size)]


def convolve(values: np.ndarray, weight: np.ndarray, bias: Any, geometry: Any) -> list[Any]:
    def exact(turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        b = None if bias is None else turn(bias.astype(np.float64))
        return reference.conv2d(turn(values.astype(np.float64)), turn(weight.astype(np.float64)), b, geometry)

    return [Within(exact(np.asarray), exact(np.abs), weight[0].size + 1 if len(weight) else 1)]


def convolve_by_step(values: np.ndarray, weight: np.ndarray, bias: Any, geometry: Any, out: np.ndarray) -> list[Any]:
    lanes = values.shape[3] * values.shape[4]
    (found,) = convolve(values.reshape(*values.shape[:3], lanes), weight, bias, geometry)
    return [Within(found.exact.reshape(out.shape), found.size.reshape(out.shape), found.terms)]


def compare(a: np.ndarray, b: np.ndarray) -> list[Any]:
    """How many tiles of 2**16 numbers differ in any bit."""
    tiles = range(0, a.size, 1 << 16)
    return [Number(sum(a[i : i + (1 << 16)].tobytes() != b[i : i + (1 << 16)].tobytes() for i in tiles), 0)]


def input_gradient(grad: np.ndarray, weight: np.ndarray, geometry: Any, out: np.ndarray) -> list[Any]:
    def exact(turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        g, w = turn(grad.astype(np.float64)), turn(weight.astype(np.float64))
        return reference.conv2d_input_gradient(g, w, *out.shape[1:3], geometry)

    size = exact(np.abs)
    if not np.isfinite(weight).all():  # beyond an edge they are multiplied by zeros
        size[...] = np.inf
    return [Within(exact(np.asarray), size, len(weight) * weight.shape[2] * weight.shape[3])]


def weight_gradient(grad: np.ndarray, values: np.ndarray, geometry: Any, out: np.ndarray) -> list[Any]:
    def exact(turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        g, x = turn(grad.astype(np.float64)), turn(values.astype(np.float64))
        return reference.conv2d_weight_gradient(g, x, geometry)

    return [Within(exact(np.asarray), exact(np.abs), grad[0].size if len(grad) else 1)]


def spike_convolution(
    words: np.ndarray,
    weight: np.ndarray,
    bias: Any,
    amplitude: float,
    geometry: Any,
    table_bits: int,
    accumulate: int,
    packed: Any,
    out: np.ndarray,
) -> list[Any]:
    values = reference.unpack_words(words, weight.shape[1] * geometry.groups)
    if packed is not None and not np.array_equal(packed, ops.pack_weights(weight, geometry)):
        return [Within(out.astype(np.float64), np.full(out.shape, np.inf), 1)]  # of other weights
    [found] = convolve(values * np.float64(np.float32(amplitude)), weight, bias, geometry)
    if accumulate:
        start = out.astype(np.float64)
        # the sum that is added to counts as one term more, and its own rounding
        return [Within(found.exact + start, found.size + np.abs(start), found.terms + 1)]
    return [found]


def spike_weight_gradient(
    constant: np.ndarray,
    weights: Any,
    slope: Any,
    values: Any,
    transposed: np.ndarray,
    timesteps: int,
    amplitude: float,
    geometry: Any,
    table_bits: int,
    out: np.ndarray,
) -> list[Any]:
    outputs, rows, columns, batch = constant.shape
    bits = np.unpackbits(transposed.transpose(3, 0, 1, 2).copy().view(np.uint8), axis=-1, bitorder="little")
    spikes = bits[: out.shape[1] * geometry.groups, :, :, : timesteps * batch].astype(np.float64) * np.float64(
        np.float32(amplitude)
    )
    steps = np.broadcast_to(constant[:, :, :, np.newaxis], (outputs, rows, columns, timesteps, batch))
    if weights is not None:
        steps = steps * weights[:, np.newaxis].astype(np.float64)

    def exact(turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        grad = turn(steps.astype(np.float64))
        if values is not None:
            grad = grad + turn(slope.astype(np.float64)).reshape(-1, 1, 1, 1, 1) * turn(values.astype(np.float64))
        flat = grad.reshape(outputs, rows, columns, timesteps * batch)
        return reference.conv2d_weight_gradient(flat, turn(spikes), geometry)

    # weight * constant + slope * values is four more roundings of each term
    return [Within(exact(np.asarray), exact(np.abs), rows * columns * timesteps * batch + 4)]


def written_current(
    words: Any,
    weight: Any,
    bias: Any,
    amplitude: Any,
    geometry: Any,
    table_bits: Any,
    shortcut: Any,
    height: Any,
    packed: Any,
) -> np.ndarray:
    """A convolution and its shortcut at every step, by the operations one by one."""
    _, height_in, width_in, timesteps, batch = words.shape
    rows, columns = geometry.output_size(height_in, width_in)
    current = np.empty((len(weight), rows, columns, timesteps * batch), np.float32)
    flat = words.reshape(*words.shape[:3], timesteps * batch)
    _core.conv2d_spikes(
        flat, weight, bias, amplitude, geometry, table_bits, 0, packed if packed is None else aligned(packed), current
    )
    if shortcut is not None:
        pixels = rows * columns * timesteps * batch
        _core.add_words(shortcut.reshape(len(shortcut), pixels), height, current.reshape(len(current), pixels))
    return current.reshape(len(weight), rows, columns, timesteps, batch)


def fused(*arguments: Any) -> list[Any]:
    """The bits of the operations one by one: they are promised to be these."""
    *convolution, scale, shift, neuron, own, packed, weights, out, v, _ = arguments
    current, model = written_current(*convolution, packed), with_own(neuron, own)
    outputs, rows, columns, timesteps, batch = current.shape
    found, _, total = reference.neuron_spikes(current, timesteps, model, weights, scale, shift)
    if v is None:
        return [found, None, total]
    kept = v.reshape(len(v), rows * columns, 1, batch, ops.ROW).copy()
    whole = current.reshape(outputs, rows * columns, 1, timesteps, batch)
    found = reference.neuron_steps(whole, timesteps, model, kept, scale, shift)
    return [found.reshape(out.shape), kept.reshape(v.shape), total]


def spikes_sum(*arguments: Any) -> list[Any]:
    """As above, without neurons; the bias is added at the end."""
    words, weight, bias, *others, weights, packed, _ = arguments
    total = reference.weighted_sum(written_current(words, weight, None, *others, packed), weights)
    return [total if bias is None else total + bias.reshape(-1, 1, 1, 1)]


def integer_sums(
    words: Any, packed: Any, geometry: Any, inputs: Any, outputs: Any, shift: Any, table_bits: Any, together: Any
) -> np.ndarray:
    """(64 K, H', W', T, B): modulo 2**16 of so many blocks together; blocks of groups that do not meet are left out."""
    count, blocks, rows, _ = packed.shape
    block_words = (rows - 1) // 32 // (geometry.kernel[0] * geometry.kernel[1])
    whole, total = replace(geometry, groups=1), 0

    def of_block(block: int) -> np.ndarray:
        part = words[block * block_words : (block + 1) * block_words]
        weight = packed[:, block, 1:].reshape(count, block_words * 32, *geometry.kernel, 64)[:, : 32 * len(part)]
        weight = weight.transpose(0, 4, 1, 2, 3).reshape(64 * count, 32 * len(part), *geometry.kernel)
        sums = reference.integer_conv2d_spikes(part, weight, whole)
        for k in range(count):
            inner, outer = inputs // geometry.groups, outputs // geometry.groups
            first, last = 64 * k // outer * inner, ((min(outputs, 64 * k + 64) - 1) // outer + 1) * inner
            if not (first < 32 * (block * block_words + len(part)) and 32 * block * block_words < last):
                sums[64 * k : 64 * k + 64] = 0
        return sums

    for start in range(0, blocks, together):
        some = np.sum([of_block(k) for k in range(start, min(start + together, blocks))], axis=0)
        total = total + (some.astype(np.int16).astype(np.int64) << shift)
    return total


def integer_rows(values: np.ndarray) -> np.ndarray:
    """(64 K, H, W, T, B) as (K, H, W, T, B, 64)."""
    return np.moveaxis(values.reshape(len(values) // 64, 64, *values.shape[1:]), 1, -1)


def integer_values(rows: np.ndarray) -> np.ndarray:
    """The other way."""
    return np.moveaxis(rows, -1, 1).reshape(64 * len(rows), *rows.shape[1:-1]).astype(np.int64)


def integer_convolution(words: Any, *packed: Any) -> list[Any]:
    *weights, rows = packed
    sums = integer_sums(words[..., np.newaxis], *weights)
    total = integer_values(rows[..., np.newaxis, :]) + sums
    return [integer_rows(total)[..., 0, :].astype(np.int32)]


def integer_fused(words: Any, *arguments: Any) -> list[Any]:
    *weights, current, shortcut, heights, bias, reset, fire, decay, potentials, out = arguments
    sums = integer_sums(words, *weights)
    if current is not None:
        sums = sums + integer_values(current)
    return integer_neurons(sums, shortcut, heights, bias, reset, fire, decay, potentials, out)


def integer_neurons(sums: Any, *arguments: Any) -> list[Any]:
    """Potentials and spikes; sums (64 K, H', W', T or 1, B), or 0."""
    shortcut, heights, bias, reset, fire, decay, potentials, out = arguments
    outputs = len(bias)
    x = np.zeros((outputs, *out.shape[1:]), np.int64) + bias.reshape(-1, 1, 1, 1, 1)
    x += 0 if np.ndim(sums) == 0 else sums[:outputs]
    if shortcut is not None:
        x += reference.unpack_words(shortcut, outputs).astype(np.int64) * heights.reshape(-1, 1, 1, 1, 1)
    start = None if potentials is None else integer_values(potentials)[:outputs]
    spikes, v = reference.integer_neurons(x, reset, fire, int(decay), start)
    if potentials is None:
        return [None, spikes]
    kept = integer_values(potentials)
    kept[:outputs] = v
    rest = slice(outputs, 32 * len(out))  # of the last word, channels that do not exist: without bias and thresholds
    beyond = kept[rest]
    for t in range(out.shape[3]):
        more = 0 if np.ndim(sums) == 0 else sums[rest, :, :, t if sums.shape[3] > 1 else 0]
        held = beyond if decay == 1 << 15 else beyond * int(decay) + (1 << 14) >> 15
        beyond = np.clip((held + more).astype(np.int32).astype(np.int64), -32767, 32767)
    kept[rest] = beyond
    return [integer_rows(kept[:, :, :, np.newaxis])[:, :, :, 0].astype(np.int16), spikes]


def integer_products(
    values: Any, packed: Any, geometry: Any, inputs: Any, outputs: Any, left: Any, right: Any
) -> np.ndarray:
    """(64 K, H', W', T, B) of the lower 16 bits of values (C, H, W, T, B); all rows count, whatever the groups."""
    count, taps = len(packed), geometry.kernel[0] * geometry.kernel[1]
    rows = packed[:, :, 1:].reshape(count, packed.shape[1] * (packed.shape[2] - 1), 64)[:, : len(values) * taps]
    weight = rows.reshape(count, len(values), *geometry.kernel, 64).transpose(0, 4, 1, 2, 3)
    weight = weight.reshape(64 * count, len(values), *geometry.kernel).astype(np.int64)
    flat = values.astype(np.int16).astype(np.int64).reshape(*values.shape[:3], values.shape[3] * values.shape[4])
    sums = reference.conv2d(flat, weight, None, replace(geometry, groups=1)).astype(np.int32)
    half = np.int32(1 << right >> 1)
    sums = ((sums + half) >> np.int32(right)).astype(np.int64) << left
    return sums.reshape(*sums.shape[:3], *values.shape[3:])


def integer_value_convolution(values: Any, *arguments: Any) -> list[Any]:
    *weights, rows = arguments
    total = integer_values(rows[..., np.newaxis, :]) + integer_products(values[..., np.newaxis], *weights)
    return [integer_rows(total)[..., 0, :].astype(np.int32)]


def integer_value_fused(values: Any, *arguments: Any) -> list[Any]:
    return integer_neurons(integer_products(values, *arguments[:6]), *arguments[6:])


def sgd(
    value: Any, grad: Any, buffer: Any, rate: Any, momentum: Any, decay: Any, nesterov: Any, first: Any
) -> list[Any]:
    return list(reference.sgd_update(value, grad, None if first else buffer, rate, momentum, decay, bool(nesterov)))


def moments(values: np.ndarray) -> list[Any]:
    """Sums in double, in another order."""
    x = values.astype(np.float64)
    return [Sums(x.sum(axis=1), np.abs(x).sum(axis=1)), Sums((x * x).sum(axis=1), (x * x).sum(axis=1))]


def product_moments(a: np.ndarray, b: np.ndarray) -> list[Any]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return [Sums(x.sum(axis=1), np.abs(x).sum(axis=1)), Sums((x * y).sum(axis=1), np.abs(x * y).sum(axis=1))]


class Sums(NamedTuple):
    """Sums in double in another order than NumPy's, and those of the absolute values."""

    value: np.ndarray
    size: np.ndarray


r = reference


def windows(numbers: tuple[Any, ...]) -> tuple[tuple[int, int], ...]:
    """Kernel, stride and padding, each of two axes, of what ends in them and an output."""
    return tuple((int(a), int(b)) for a, b in zip(numbers[:-1:2], numbers[1:-1:2], strict=True))


ORACLES: dict[str, Callable[..., list[Any]]] = {
    "neuron_forward": lambda x, v_init, neuron, out, v_final: list(r.neuron_forward(x, neuron, v_init)),
    "firing_rate": lambda x, weights, out: [r.time_mean(x, weights)],
    "rate": lambda z, neuron, out: [r.rate(z, neuron)],
    "backward": lambda g, x, weights, neuron, out: threshold_gradient(r.backward(g, x, weights, neuron), g),
    "rate_backward": lambda g, z, neuron, out: threshold_gradient(r.rate_backward(g, z, neuron), g),
    "encode_bernoulli": lambda p, seed, out: [r.encode_bernoulli(p, len(out), int(seed))],
    "encode_latency": lambda x, out: [r.encode_latency(x, len(out))],
    "encode_phase": lambda x, bits, out: [r.encode_phase(x, len(out), int(bits))],
    "encode_delta": lambda x, threshold, out: [r.encode_delta(x, threshold)],
    "neuron_spikes": spikes,
    "neuron_steps": steps,
    "neuron_spikes_backward": lambda g, sums, a, b, steps, neuron, own, out, above: threshold_gradients(
        r.neuron_spikes_backward(g, sums, int(steps), with_own(neuron, own), a, b), g
    ),
    "pack_words": lambda values, out: [r.pack_words(values)],
    "unpack_words": lambda words, a, out: [r.unpack_words(words, len(out), a)],
    "add_words": lambda words, a, out: [r.add_words(words, out, a)],
    "sum_words": lambda words, w, a, out: [r.sum_words(words[:, :, np.newaxis], len(out), w, a)[:, :, 0]],
    "count_bits": lambda words: [Number(r.count_bits(words), 0)],
    "count_words": lambda words, out: [r.count_words(words, len(out))],
    "dropout_words": lambda words, keep, seed, out: [r.dropout_words(words, float(keep), int(seed))],
    "transpose_words": lambda words, out: [r.transpose_words(words[:, :, np.newaxis, :, np.newaxis])],
    "count_steps": lambda words, most, out: [
        r.count_steps(words[:, np.newaxis, np.newaxis], int(most))[0, 0].reshape(out.shape)
    ],
    "moments": lambda values, s, q: moments(values),
    "product_moments": lambda a, b, s, p: product_moments(a, b),
    "expand_gradient": lambda c, v, s, out: [r.expand_gradient(c, v, s)],
    "compare": compare,
    "weighted_sum": lambda v, w, out: [r.weighted_sum(v, w)],
    "affine": lambda x, y, a, b, c, out: [r.affine(x, a, c, y, b)],
    "pool_planes": lambda words, *w: [r.pool_planes(words[..., np.newaxis], *windows(w))[..., 0]],
    "or_pool": lambda words, *w: [r.or_pool(words[..., np.newaxis], *windows(w))[..., 0]],
    "avg_pool": lambda x, *w: [r.avg_pool(x, *windows(w))],
    "avg_pool_backward": lambda g, *w: [r.avg_pool_backward(g, *w[-1].shape[1:3], *windows(w))],
    "max_pool": lambda x, *w: [r.max_pool(x, *windows(w))],
    "max_pool_backward": lambda g, x, *w: [r.max_pool_backward(g, x, *windows(w))],
    "sgd_update": sgd,
    "conv2d": lambda x, w, b, geometry, out: convolve(x, w, b, geometry),
    "conv2d_by_step": convolve_by_step,
    "conv2d_input_gradient": input_gradient,
    "conv2d_weight_gradient": weight_gradient,
    "packed_length": lambda w, geometry: [Number(ops.pack_weights(w, geometry).size, 0)],
    "pack_weights": lambda w, geometry, out: [ops.pack_weights(w, geometry)],
    "conv2d_spikes": spike_convolution,
    "conv2d_neuron_spikes": fused,
    "conv2d_spikes_sum": spikes_sum,
    "conv2d_spikes_weight_gradient": spike_weight_gradient,
    "integer_conv2d_spikes": integer_convolution,
    "integer_conv2d_neuron_spikes": integer_fused,
    "integer_conv2d": integer_value_convolution,
    "integer_conv2d_value_neuron_spikes": integer_value_fused,
}


def assert_agrees(actual: Any, expected: Any) -> None:
    """The result is what the oracle says, to the bit or within the bound."""
    if isinstance(expected, Within):
        assert actual.shape == expected.exact.shape
        finite = np.isfinite(expected.size) & (expected.size < 1e38)
        bound = (expected.terms + 2) * 2.0**-24 * expected.size + (expected.terms + 2) * 2.0**-149
        with np.errstate(invalid="ignore"):
            wrong = finite & ~(np.abs(actual - expected.exact) <= bound)
        assert not wrong.any(), f"{np.argwhere(wrong)[0]}: {actual[wrong][0]} instead of {expected.exact[wrong][0]}"
    elif isinstance(expected, Number | Sums):
        with np.errstate(invalid="ignore"):
            near = np.abs(actual - expected.value) <= 1e-12 * np.asarray(expected.size)
        assert (near | ~np.isfinite(expected.size)).all(), f"{actual} instead of {expected.value}"
    else:
        wanted = np.asarray(expected)
        assert actual.shape == wanted.shape and actual.dtype.newbyteorder("=") == wanted.dtype.newbyteorder("=")
        different = ~((actual == wanted) | ((actual != actual) & (wanted != wanted)))
        assert not different.any(), (
            f"{np.argwhere(different)[0]}: {actual[different][0]!r} instead of {wanted[different][0]!r}"
        )
