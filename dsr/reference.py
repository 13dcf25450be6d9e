"""The operations of dsr in plain NumPy: slow, short, and the oracle of the tests.

The same names, arguments and results as `dsr.functional` and `dsr.ops`, written for reading. Arithmetic is done
in the dtype of the input and in the order that the compiled kernels promise, so results agree bit for bit where the
operation is EXACT; only sums in double (moments, thresholds' gradients) are taken in NumPy's order. Inputs are taken
as they are: no checks here.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Context, Decimal
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _real(x: Any) -> Array:
    x = np.asarray(x)
    return x.astype(np.result_type(x.dtype, np.float32))


def exp(x: float) -> float:
    """The float64 nearest to ``e**x``, of 60 right digits."""
    return float(Decimal(x).exp(Context(prec=60)))


# ---- neurons, time first -------------------------------------------------------------------------------------------


class Neuron(NamedTuple):
    """See `dsr.ops.NeuronModel`; here the numbers are in the dtype of the arrays."""

    decay: Any
    gain: Any
    v_threshold: Any
    fire: Any
    amplitude: Any
    divisor: Any
    top: Any
    closed: bool
    levels: int = 1


def if_neuron(kind: Any, v_threshold: float, alpha: float = 0.5, levels: int = 1) -> Neuron:
    """IF neurons of the dtype `kind`."""
    threshold = kind(v_threshold)
    top = threshold * kind(levels)
    return Neuron(kind(1), kind(1), threshold, kind(alpha) * threshold, threshold, kind(1), top, True, levels)


def lif_neuron(
    kind: Any, v_threshold: float, tau: float, delta_t: float, alpha: float = 0.3, levels: int = 1
) -> Neuron:
    """LIF neurons of the dtype `kind`."""
    decay, threshold = exp(-delta_t / tau), kind(v_threshold)
    top = kind(tau) * threshold / kind(delta_t) * kind(levels)
    height, fire = threshold / kind(delta_t), kind(alpha) * threshold
    return Neuron(kind(decay), kind(1 - decay), threshold, fire, height, kind(tau), top, False, levels)


def neuron_forward(current: Array, neuron: Any, v_init: Array | None = None) -> tuple[Array, Array]:
    """Output train of neurons, and their potentials; the numbers of `neuron` (a `NeuronModel` or so) are broadcast."""
    x = _real(current)
    numbers = (neuron.decay, neuron.gain, neuron.v_threshold, neuron.fire, neuron.amplitude)
    decay, gain, threshold, fire, amplitude = (np.asarray(number, x.dtype) for number in numbers)
    output = np.empty_like(x)
    v = np.zeros_like(x[0]) if v_init is None else v_init.astype(x.dtype)
    for t in range(len(x)):
        u = decay * v + gain * x[t]
        k = np.zeros_like(x[t])
        # binary digits of the number of spikes, the highest first: the thresholds of spikes rise with their number
        for digit in reversed(range(neuron.levels.bit_length())):
            more = k + x.dtype.type(2**digit)
            k = np.where((u >= fire + (more - 1) * threshold) & (more <= neuron.levels), more, k)
        output[t] = k * amplitude
        v = u - k * threshold
    return output, v


def if_forward(
    current: Array, v_threshold: float, alpha: float = 0.5, v_init: Array | None = None, levels: int = 1
) -> Array:
    """See `dsr.functional.if_forward`."""
    x = _real(current)
    return neuron_forward(x, if_neuron(x.dtype.type, v_threshold, alpha, levels), v_init)[0]


def lif_forward(
    current: Array,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float = 0.3,
    v_init: Array | None = None,
    levels: int = 1,
) -> Array:
    """See `dsr.functional.lif_forward`."""
    x = _real(current)
    return neuron_forward(x, lif_neuron(x.dtype.type, v_threshold, tau, delta_t, alpha, levels), v_init)[0]


def time_weights(timesteps: int, tau: float, delta_t: float) -> Array:
    """Weights ``exp(-(delta_t / tau) (T - 1 - t))`` of a LIF train's representation, float64."""
    return np.array([exp(-(delta_t / tau) * (timesteps - 1 - t)) for t in range(timesteps)])


def time_sum(train: Array, weights: Array) -> Array:
    """``sum_t weights[t] train[t]``, in order."""
    x = _real(train)
    total = np.zeros_like(x[0])
    for w, step in zip(weights, x, strict=True):
        total = total + x.dtype.type(w) * step
    return np.asarray(total)


def time_mean(train: Array, weights: Array | None) -> Array:
    """The mean over time with float64 `weights` (T,), or None: the plain one."""
    if weights is None:
        weights = np.ones(len(train))
    # cumsum adds in order, unlike NumPy's sum and, since 3.12, Python's
    total = time_sum(train, weights)
    return np.asarray(total / total.dtype.type(np.cumsum(weights)[-1]))


def firing_rate(train: Array) -> Array:
    """See `dsr.functional.firing_rate`."""
    return time_mean(train, None)


def weighted_firing_rate(train: Array, tau: float, delta_t: float) -> Array:
    """See `dsr.functional.weighted_firing_rate`."""
    return time_mean(train, time_weights(len(train), tau, delta_t))


def rate(mean_current: Array, neuron: Any) -> Array:
    """The mapping of a neuron."""
    z = _real(mean_current)
    kind = z.dtype.type
    return np.clip(z / kind(neuron.divisor), kind(0), kind(neuron.levels) * kind(neuron.amplitude))


def if_rate(mean_current: Array, v_threshold: float, levels: int = 1) -> Array:
    """See `dsr.functional.if_rate`."""
    z = _real(mean_current)
    return rate(z, if_neuron(z.dtype.type, v_threshold, levels=levels))


def lif_rate(mean_current: Array, v_threshold: float, tau: float, delta_t: float, levels: int = 1) -> Array:
    """See `dsr.functional.lif_rate`."""
    z = _real(mean_current)
    return rate(z, lif_neuron(z.dtype.type, v_threshold, tau, delta_t, levels=levels))


# ---- gradients -----------------------------------------------------------------------------------------------------


def rate_backward(grad_rate: Array, mean_current: Array, neuron: Any, divisor: Any = None) -> tuple[Array, float]:
    """Gradient of `rate`, divided by `divisor` (None: the neuron's), and the plain sum over saturated neurons."""
    g, z = _real(grad_rate), _real(mean_current)
    kind = z.dtype.type
    top = np.asarray(neuron.top, z.dtype)
    inside = (z >= 0) & (z <= top) if neuron.closed else (z > 0) & (z < top)
    share = g / kind(neuron.divisor if divisor is None else divisor)
    return np.where(inside, share, kind(0)), float(g[z > top].sum(dtype=np.float64))


def backward(grad_output: Array, current: Array, weights: Array | None, neuron: Any) -> tuple[Array, float]:
    """Gradient of `neuron_forward`, through means over time with float64 `weights` (T,), or None: plain ones."""
    d = _real(grad_output)
    kind, steps = d.dtype.type, d.dtype.type(len(d))
    g = steps * time_mean(d, weights) if weights is not None else time_sum(d, np.ones(len(d)))
    share, above = rate_backward(g, time_mean(current, weights), neuron, kind(neuron.divisor) * steps)
    return np.broadcast_to(share, d.shape).copy(), above


def if_rate_backward(grad_rate: Array, mean_current: Array, v_threshold: float, levels: int = 1) -> tuple[Array, float]:
    """See `dsr.functional.if_rate_backward`."""
    neuron = if_neuron(_real(mean_current).dtype.type, v_threshold, levels=levels)
    share, above = rate_backward(grad_rate, mean_current, neuron)
    return share, above * levels


def lif_rate_backward(
    grad_rate: Array,
    mean_current: Array,
    v_threshold: float,
    tau: float,
    delta_t: float,
    gradient: str = "published",
    levels: int = 1,
) -> tuple[Array, float]:
    """See `dsr.functional.lif_rate_backward`."""
    neuron = lif_neuron(_real(mean_current).dtype.type, v_threshold, tau, delta_t, levels=levels)
    share, above = rate_backward(grad_rate, mean_current, neuron)
    return share, above * (levels * (delta_t if gradient == "published" else 1 / delta_t))


def if_backward(grad_output: Array, current: Array, v_threshold: float, levels: int = 1) -> tuple[Array, float]:
    """See `dsr.functional.if_backward`."""
    neuron = if_neuron(_real(current).dtype.type, v_threshold, levels=levels)
    share, above = backward(grad_output, current, None, neuron)
    return share, above * levels


def lif_backward(
    grad_output: Array,
    current: Array,
    v_threshold: float,
    tau: float,
    delta_t: float,
    gradient: str = "published",
    levels: int = 1,
) -> tuple[Array, float]:
    """See `dsr.functional.lif_backward`."""
    neuron = lif_neuron(_real(current).dtype.type, v_threshold, tau, delta_t, levels=levels)
    share, above = backward(grad_output, current, time_weights(len(current), tau, delta_t), neuron)
    return share, above * (levels * (delta_t if gradient == "published" else 1 / delta_t))


# ---- encoders ------------------------------------------------------------------------------------------------------


def philox(block: Array, seed: int) -> Array:
    """Philox4x32-10 words, shape (..., 4), of the counters `block` (uint64) with key `seed`."""
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1 = block & low, block >> high
    x2 = x3 = np.zeros_like(block)
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (q >> high) ^ x1 ^ k0, q & low, (p >> high) ^ x3 ^ k1, p & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def random_words(count: int, seed: int) -> Array:
    """The first `count` words of a stream."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    return philox(blocks, seed).reshape(-1)[:count]


def encode_direct(value: Array, timesteps: int) -> Array:
    """See `dsr.functional.encode_direct`."""
    return np.stack([_real(value)] * timesteps)


def encode_bernoulli(rate: Array, timesteps: int, seed: int = 0) -> Array:
    """See `dsr.functional.encode_bernoulli`."""
    p = _real(rate)
    row = (p.size + 3) // 4 * 4
    uniform = random_words(timesteps * row, seed).reshape(timesteps, row)[:, : p.size] * 2.0**-32
    return (uniform.reshape(timesteps, *p.shape) < p.astype(np.float64)).astype(p.dtype)


def encode_latency(value: Array, timesteps: int) -> Array:
    """See `dsr.functional.encode_latency`."""
    x = _real(value)
    steps = x * x.dtype.type(timesteps - 1) + x.dtype.type(0.5)
    wanted = np.arange(timesteps - 1, -1, -1).reshape(-1, *[1] * x.ndim)
    return ((steps >= wanted) & (steps < wanted + 1)).astype(x.dtype)


def encode_phase(value: Array, timesteps: int, bits: int = 8) -> Array:
    """See `dsr.functional.encode_phase`."""
    x = _real(value)
    train = np.empty((timesteps, *x.shape), x.dtype)
    for t in range(timesteps):
        if t % bits == 0:
            rest = x
        weight = x.dtype.type(2.0 ** -(1 + t % bits))
        train[t] = rest >= weight
        rest = rest - train[t] * weight
    return train


def encode_delta(signal: Array, threshold: float) -> Array:
    """See `dsr.functional.encode_delta`."""
    x = _real(signal)
    step = x.dtype.type(threshold)
    train, level = np.empty_like(x), x[0]
    for t in range(len(x)):
        change = x[t] - level
        train[t] = np.where(change >= step, 1, np.where(change <= -step, -1, 0))
        level = level + train[t] * step
    return train


# ---- lanes ---------------------------------------------------------------------------------------------------------


def pack_words(values: Array) -> Array:
    """See `dsr.ops.pack_words`."""
    channels = len(values)
    words = np.zeros(((channels + 31) // 32, *values.shape[1:]), np.uint32)
    for c in range(channels):
        words[c // 32] |= (values[c] != 0).astype(np.uint32) << np.uint32(c % 32)
    return words


def transpose_words(words: Array) -> Array:
    """See `dsr.ops.transpose_words`."""
    channels, pixels = 32 * len(words), words.shape[1] * words.shape[2]
    lanes = words.shape[3] * words.shape[4]
    bits = unpack_words(words, channels).reshape(channels, pixels, lanes)
    return np.ascontiguousarray(pack_words(bits.transpose(2, 1, 0)).transpose(1, 0, 2))


def sgd_update(
    value: Array,
    grad: Array,
    buffer: Array | None,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> tuple[Array, Array]:
    """New value and momentum buffer of a step of `dsr.SGD`; buffer None: the first step."""
    rate, keep, decay = np.float32(learning_rate), np.float32(momentum), np.float32(weight_decay)
    d = grad + decay * value
    new = d if buffer is None else keep * buffer + d
    return value - rate * (d + keep * new if nesterov else new), new


def count_steps(words: Array, most: int = 1) -> Array:
    """See `dsr.ops.count_steps`."""
    numbers = sum(unpack_words(plane, 32 * words.shape[1]).astype(np.int64) << j for j, plane in enumerate(words))
    sums = np.asarray(numbers).sum(axis=3)
    return np.stack([pack_words(sums >> k & 1) for k in range((words.shape[4] * most).bit_length())], axis=3)


def unpack_words(words: Array, channels: int, amplitude: Any = 1.0) -> Array:
    """See `dsr.ops.unpack_words`."""
    bits = np.empty((channels, *words.shape[1:]), np.float32)
    heights = np.full(channels, amplitude, np.float32)
    for c in range(channels):
        bits[c] = np.where(words[c // 32] >> np.uint32(c % 32) & np.uint32(1), heights[c], np.float32(0))
    return bits


def sum_words(words: Array, channels: int, weights: Array, amplitude: Any = 1.0) -> Array:
    """See `dsr.ops.sum_words`."""
    bits = np.moveaxis(unpack_words(words, channels) != 0, -2, 0)
    total = np.zeros(bits.shape[1:], np.float32)
    for weight, step in zip(weights, bits, strict=True):
        total = total + np.where(step, weight, np.float32(0))
    return total * np.full(channels, amplitude, np.float32).reshape(-1, 1, 1, 1)


def add_words(words: Array, values: Array, amplitude: Any) -> Array:
    """See `dsr.ops.add_words`; here a new array is returned."""
    return values + unpack_words(words, len(values), amplitude)


def concat_words(trains: list[Array], channels: list[int]) -> Array:
    """See `dsr.ops.concat_words`."""
    return pack_words(
        np.concatenate([unpack_words(words, count) for words, count in zip(trains, channels, strict=True)])
    )


def count_words(words: Array, channels: int) -> Array:
    """See `dsr.ops.count_words`."""
    spikes = unpack_words(words, channels)
    return spikes.sum(axis=tuple(range(1, spikes.ndim)), dtype=np.float64).astype(np.int64)


def count_bits(words: Array) -> int:
    """See `dsr.ops.count_bits`."""
    return int(np.unpackbits(np.ascontiguousarray(words).view(np.uint8)).sum(dtype=np.int64))


def dropout_words(words: Array, keep: float, seed: int) -> Array:
    """See `dsr.ops.dropout_words`."""
    uniform = random_words(words.size * 32, seed).reshape(*words.shape, 32) * 2.0**-32
    mask = ((uniform < keep).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=-1)
    return words & mask.astype(np.uint32)


def _normalised(current: Array, scale: Array | None, shift: Array | None) -> Array:
    shape = (-1, *[1] * (current.ndim - 1))
    x = current if scale is None else scale.reshape(shape) * current
    return x if shift is None else x + shift.reshape(shape)


def _steps_first(current: Array, timesteps: int, scale: Array | None, shift: Array | None) -> Array:
    x = np.moveaxis(_normalised(current, scale, shift), -2, 0)
    return np.broadcast_to(x, (timesteps, *x.shape[1:]))


def neuron_spikes(
    current: Array,
    timesteps: int,
    neuron: Any,
    weights: Array | None = None,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, Array, Array | None]:
    """See `dsr.ops.neuron_spikes`."""
    steps = _steps_first(current, timesteps, scale, shift)
    numbers, _ = neuron_forward(steps, _by_channel(neuron)._replace(amplitude=1.0))
    words = _planes(numbers, neuron)
    sums = weighted_sum(current, np.ones(timesteps, np.float32))
    return words, sums, None if weights is None else weighted_sum(current, weights)


def _planes(numbers: Array, neuron: Any) -> Array:
    """Words of each binary digit of numbers of spikes (T, C, H, W, B), the lowest first."""
    k = np.moveaxis(numbers, 0, -2).astype(np.int64)
    return np.concatenate([pack_words(k >> plane & 1) for plane in range(neuron.levels.bit_length())])


def neuron_steps(
    current: Array,
    timesteps: int,
    neuron: Any,
    potentials: Array | None,
    scale: Array | None = None,
    shift: Array | None = None,
) -> Array:
    """See `dsr.ops.neuron_steps`."""
    if potentials is None:
        return neuron_spikes(current, timesteps, neuron, None, scale, shift)[0]
    rows = potentials.transpose(0, 4, 1, 2, 3)
    before = rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])[: len(current)]
    one = _by_channel(neuron)._replace(amplitude=1.0)
    numbers, last = neuron_forward(_steps_first(current, timesteps, scale, shift), one, before)
    potentials[...] = 0  # of channels that do not exist
    for c, values in enumerate(last):
        potentials[c // 32, :, :, :, c % 32] = values
    return _planes(numbers, neuron)


def neuron_spikes_backward(
    grad: Array,
    sums: Array,
    timesteps: int,
    neuron: Any,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, Array]:
    """See `dsr.ops.neuron_spikes_backward`."""
    divisor, mean = np.float32(neuron.divisor) * np.float32(timesteps), _mean_current(sums, timesteps, scale, shift)
    tops = np.full(len(sums), neuron.top, np.float32)
    one = _by_channel(neuron)
    channels = [rate_backward(g, z, one._replace(top=top), divisor) for g, z, top in zip(grad, mean, tops, strict=True)]
    shares = np.stack([share for share, _ in channels]) if channels else np.empty_like(grad)
    return shares, np.array([above for _, above in channels])


def _by_channel(neuron: Any) -> Neuron:
    """The neuron with arrays (C,) in the shape that broadcasts over pixels, steps and samples."""
    numbers: Any = [getattr(neuron, name) for name in Neuron._fields]
    return Neuron._make(n.reshape(-1, 1, 1, 1) if isinstance(n, np.ndarray) else n for n in numbers)


def _mean_current(sums: Array, timesteps: int, scale: Array | None, shift: Array | None) -> Array:
    channels = len(sums)
    a = np.ones(channels, np.float32) if scale is None else scale
    return affine(sums, a / np.float32(timesteps), np.zeros(channels, np.float32) if shift is None else shift)


def moments(values: Array) -> tuple[Array, Array]:
    """See `dsr.ops.moments`."""
    x = values.reshape(len(values), -1).astype(np.float64)
    return x.sum(axis=1), (x * x).sum(axis=1)


def product_moments(a: Array, b: Array) -> tuple[Array, Array]:
    """See `dsr.ops.product_moments`."""
    x, y = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    return x.sum(axis=1), (x * y).sum(axis=1)


def expand_gradient(constant: Array, values: Array, slope: Array) -> Array:
    """See `dsr.ops.expand_gradient`."""
    return np.expand_dims(constant, -2) + slope.reshape(-1, *[1] * (values.ndim - 1)) * values


def affine(x: Array, a: Array, c: Array, y: Array | None = None, b: Array | None = None) -> Array:
    """See `dsr.ops.affine`."""

    def channels(values: Array) -> Array:
        return values.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))

    total = channels(a) * x
    if y is not None and b is not None:
        total = total + channels(b) * y
    return total + channels(c)


def weighted_sum(values: Array, weights: Array) -> Array:
    """See `dsr.ops.weighted_sum`; one step of values stands for all."""
    steps = np.broadcast_to(np.moveaxis(values, -2, 0), (len(weights), *values.shape[:-2], values.shape[-1]))
    total = np.zeros_like(steps[0])
    for w, step in zip(weights, steps, strict=True):
        total = total + w * step
    return total


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _pair(size: Any) -> tuple[int, int]:
    vertical, horizontal = size if isinstance(size, tuple) else (size, size)
    return vertical, horizontal


def _windows_of(values: Array, kernel_size: Any, stride: Any, padding: Any, outside: Any) -> list[Array]:
    """For each place in a window, in order, the values there in all windows; `outside` where there is no image."""
    (kernel_h, kernel_w), (stride_h, stride_w), (pad_h, pad_w) = map(_pair, (kernel_size, stride, padding))
    around = ((0, 0), (pad_h, pad_h), (pad_w, pad_w), (0, 0))
    padded = np.pad(values, around, constant_values=outside)
    rows = _windows(values.shape[1], kernel_h, stride_h, pad_h)
    columns = _windows(values.shape[2], kernel_w, stride_w, pad_w)
    return [
        padded[:, y : y + stride_h * rows : stride_h, x : x + stride_w * columns : stride_w]
        for y in range(kernel_h)
        for x in range(kernel_w)
    ]


def avg_pool(values: Array, kernel_size: Any, stride: Any, padding: Any = 0) -> Array:
    """See `dsr.ops.avg_pool`; values (C, H, W, L)."""
    taps = _windows_of(values, kernel_size, stride, padding, 0)
    total = np.zeros_like(taps[0])
    for tap in taps:
        total = total + tap
    return np.asarray(total / values.dtype.type(len(taps)))


def pool_planes(words: Array, kernel_size: Any, stride: Any, padding: Any = 0) -> Array:
    """See `dsr.ops.pool_planes`."""
    spikes = unpack_words(words, 32 * len(words)).astype(np.int64)
    taps = _windows_of(spikes.reshape(*spikes.shape[:3], prod(spikes.shape[3:])), kernel_size, stride, padding, 0)
    counts = np.sum(taps, axis=0)
    counts = counts.reshape(*counts.shape[:3], *words.shape[3:])
    return np.stack([pack_words(counts >> k & 1) for k in range(len(taps).bit_length())])


def or_pool(words: Array, kernel_size: Any, stride: Any, padding: Any = 0) -> Array:
    """See `dsr.ops.or_pool`."""
    flat = words.reshape(*words.shape[:3], prod(words.shape[3:]))
    pooled = np.bitwise_or.reduce(_windows_of(flat, kernel_size, stride, padding, 0))
    return pooled.reshape(*pooled.shape[:3], *words.shape[3:])


def max_pool(values: Array, kernel_size: Any, stride: Any, padding: Any = 0) -> Array:
    """See `dsr.ops.max_pool`."""
    return _largest(values, kernel_size, stride, padding)[0]


def _largest(values: Array, kernel_size: Any, stride: Any, padding: Any) -> tuple[Array, Array]:
    """The largest value of each window, and its place in it; the first counts, as with NaN first."""
    taps = _windows_of(values, kernel_size, stride, padding, 0)
    inside = _windows_of(np.ones_like(values), kernel_size, stride, padding, 0)
    largest, place = np.zeros_like(taps[0]), np.full(taps[0].shape, -1)
    for number, (tap, there) in enumerate(zip(taps, inside, strict=True)):
        larger = (there == 1) & ((place < 0) | (tap > largest))
        largest, place = np.where(larger, tap, largest), np.where(larger, number, place)
    return largest, place


def max_pool_backward(grad_output: Array, values: Array, kernel_size: Any, stride: Any, padding: Any = 0) -> Array:
    """See `dsr.ops.max_pool_backward`."""
    _, place = _largest(values, kernel_size, stride, padding)
    numbers = range(prod(_pair(kernel_size)))
    return _spread([np.where(place == n, grad_output, 0) for n in numbers], values.shape, kernel_size, stride, padding)


def avg_pool_backward(
    grad_output: Array, height: int, width: int, kernel_size: Any, stride: Any, padding: Any = 0
) -> Array:
    """See `dsr.ops.avg_pool_backward`."""
    channels, _, _, lanes = grad_output.shape
    taps = prod(_pair(kernel_size))
    share = grad_output / grad_output.dtype.type(taps)
    return _spread([share] * taps, (channels, height, width, lanes), kernel_size, stride, padding)


def _spread(shares: list[Array], shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any) -> Array:
    """The transpose of `_taps`: each place of a window gets its share, windows one after the other."""
    (_, kernel_w), (stride_h, stride_w), (pad_h, pad_w) = map(_pair, (kernel_size, stride, padding))
    channels, height, width, lanes = shape
    padded = np.zeros((channels, height + 2 * pad_h, width + 2 * pad_w, lanes), shares[0].dtype)
    _, rows, columns, _ = shares[0].shape
    for y in range(rows):
        for x in range(columns):
            for number, share in enumerate(shares):
                at_y, at_x = y * stride_h + number // kernel_w, x * stride_w + number % kernel_w
                padded[:, at_y, at_x] += share[:, y, x]
    return padded[:, pad_h : pad_h + height, pad_w : pad_w + width]


def _line(values: Array, geometry: Any) -> Array:
    """The image with zeros between its pixels and around them."""
    (down, across), (top, bottom, left, right) = geometry.spread, geometry.padding
    channels, height, width, lanes = values.shape
    spread = np.zeros(
        (channels, max(0, height * down - down + 1), max(0, width * across - across + 1), lanes), values.dtype
    )
    spread[:, ::down, ::across] = values
    return np.pad(spread, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _taps(line: Array, geometry: Any, rows: int, columns: int) -> Any:
    """Each tap of the kernel with the view of what it reads, in groups (G, C / G, H', W', L)."""
    (down, across), (far_y, far_x) = geometry.stride, geometry.dilation
    for y, x in np.ndindex(*geometry.kernel):
        part = line[:, y * far_y :: down, x * far_x :: across][:, :rows, :columns]
        yield y, x, part.reshape(geometry.groups, len(line) // geometry.groups, *part.shape[1:])


def _grouped(array: Array, geometry: Any) -> Array:
    return array.reshape(geometry.groups, len(array) // geometry.groups, *array.shape[1:])


def conv2d(values: Array, weight: Array, bias: Array | None, geometry: Any) -> Array:
    """See `dsr.ops.conv2d`; float64 inputs give float64 sums."""
    rows, columns = geometry.output_size(*values.shape[1:3])
    total = np.zeros((len(weight), rows, columns, values.shape[3]), values.dtype)
    for y, x, part in _taps(_line(values, geometry), geometry, rows, columns):
        total += np.einsum("goc,gchwl->gohwl", _grouped(weight[:, :, y, x], geometry), part).reshape(total.shape)
    return total if bias is None else total + bias.reshape(-1, 1, 1, 1)


def conv2d_input_gradient(grad_output: Array, weight: Array, height: int, width: int, geometry: Any) -> Array:
    """See `dsr.ops.conv2d_input_gradient`."""
    _, rows, columns, lanes = grad_output.shape
    line = _line(np.zeros((weight.shape[1] * geometry.groups, height, width, lanes), grad_output.dtype), geometry)
    for y, x, part in _taps(line, geometry, rows, columns):
        part += np.einsum("goc,gohwl->gchwl", _grouped(weight[:, :, y, x], geometry), _grouped(grad_output, geometry))
    (down, across), (top, _, left, _) = geometry.spread, geometry.padding
    return line[:, top::down, left::across][:, :height, :width]


def conv2d_weight_gradient(grad_output: Array, values: Array, geometry: Any) -> Array:
    """See `dsr.ops.conv2d_weight_gradient`."""
    outputs, rows, columns, _ = grad_output.shape
    gradient = np.zeros((outputs, len(values) // geometry.groups, *geometry.kernel), grad_output.dtype)
    for y, x, part in _taps(_line(values, geometry), geometry, rows, columns):
        found = np.einsum("gohwl,gchwl->goc", _grouped(grad_output, geometry), part)
        gradient[:, :, y, x] = found.reshape(gradient.shape[:2])
    return gradient


def _merged(values: Array) -> Array:
    """(C, H, W, T, B) as (C, H, W, L); of empty images too."""
    return values.reshape(*values.shape[:3], values.shape[3] * values.shape[4])


def conv2d_spikes(words: Array, weight: Array, bias: Array | None, amplitude: float, geometry: Any) -> Array:
    """See `dsr.ops.conv2d_spikes`; sums in the dtype of `weight`, in another order."""
    spikes = unpack_words(words, weight.shape[1] * geometry.groups).astype(weight.dtype)
    flat = _merged(spikes) * weight.dtype.type(amplitude)
    out = conv2d(flat, weight, bias, geometry)
    return out.reshape(*out.shape[:3], *words.shape[3:])


def conv2d_neuron_spikes(
    convolution: Any,
    neuron: Any,
    scale: Array | None = None,
    shift: Array | None = None,
    potentials: Array | None = None,
) -> Array:
    """See `dsr.ops.conv2d_neuron_spikes`."""
    current = _convolved(convolution)
    steps = current.shape[3]
    if potentials is not None:
        return neuron_steps(current, steps, neuron, potentials, scale, shift)
    return neuron_spikes(current, steps, neuron, None, scale, shift)[0]


def conv2d_spikes_sum(convolution: Any, weights: Array) -> Array:
    """See `dsr.ops.conv2d_spikes_sum`."""
    total = weighted_sum(_convolved(replace(convolution, bias=None)), weights)
    bias = convolution.bias
    return total if bias is None else total + bias.reshape(-1, 1, 1, 1)


def _convolved(c: Any) -> Array:
    current = conv2d_spikes(c.words, c.weight, c.bias, c.amplitude, c.geometry)
    if c.shortcut is not None:
        current += unpack_words(c.shortcut, len(current), c.shortcut_amplitude)
    return current


def batch_norm(
    current: Array, weight: Array, bias: Array, eps: float, sampled: Any = None
) -> tuple[Array, Array, Array, Array]:
    """Output, mean, variance, and its part over time, of `dsr.BatchNorm` in training; current (C, H, W, T, B).

    `sampled` are the samples whose variance over time is taken; None: all, which is the variance of all values.
    """
    x = current.astype(np.float64)
    m = x.mean(axis=3)
    part = x if sampled is None else x[..., sampled]
    within = part.var(axis=3).mean(axis=(1, 2, 3))
    mean, variance = m.mean(axis=(1, 2, 3)), m.var(axis=(1, 2, 3)) + within
    scale = weight / np.sqrt(variance + eps)
    return x * _of_channels(scale) + _of_channels(bias - mean * scale), mean, variance, within


def batch_norm_backward(
    grad: Array, current: Array, weight: Array, eps: float, gradient: str, sampled: Any = None
) -> tuple[Array, Array, Array]:
    """Gradients of the current, (C, H, W, T, B), of weight and of bias, for that of the output, of the same shape."""
    x, g = current.astype(np.float64), grad.astype(np.float64)
    _, mean, variance, _ = batch_norm(current, weight, 0 * weight, eps, sampled)
    if gradient == "rate":
        x, g = (np.broadcast_to(array.mean(axis=3, keepdims=True), array.shape) for array in (x, g))
    normal = (x - _of_channels(mean)) / _of_channels(np.sqrt(variance + eps))
    axes = (1, 2, 3, 4)
    mean_of_g, mean_of_product = g.mean(axis=axes), (g * normal).mean(axis=axes)
    below = g - _of_channels(mean_of_g) - normal * _of_channels(mean_of_product)
    return _of_channels(weight / np.sqrt(variance + eps)) * below, (g * normal).sum(axis=axes), g.sum(axis=axes)


def _of_channels(numbers: Array) -> Array:
    return numbers.reshape(-1, 1, 1, 1, 1)


def conv2d_spikes_weight_gradient(
    grad_output: Array, words: Array, weight_shape: tuple[int, ...], amplitude: float, geometry: Any
) -> Array:
    """See `dsr.ops.conv2d_spikes_weight_gradient`; grad_output (O, H', W', T, B) is given at every step."""
    spikes = unpack_words(words, weight_shape[1] * geometry.groups).astype(grad_output.dtype)
    flat = _merged(spikes) * grad_output.dtype.type(amplitude)
    steps = _merged(grad_output)
    return conv2d_weight_gradient(steps, flat, geometry)


def integer_conv2d_spikes(words: Array, weight: Array, geometry: Any, shift: int = 0) -> Array:
    """See `dsr.ops.integer_conv2d_spikes`; the sums (O, H', W', T, B) as int64, of weights that are not packed."""
    return conv2d_spikes(words, weight.astype(np.int64), None, 1, geometry) << shift


def integer_neurons(
    current: Array, reset: Array, fire: Array, decay: int = 1 << 15, potentials: Array | None = None
) -> tuple[Array, Array]:
    """Spikes, as words, of integer neurons with this current (O, H, W, T, B), and their potentials (O, H, W, B).

    Modulo 2**32, as everything is that is not the potential itself; potentials are kept modulo 2**16.
    """
    channels, height, width, timesteps, batch = current.shape
    own = (channels, 1, 1, 1)
    v = np.zeros((channels, height, width, batch), np.int64) if potentials is None else potentials.astype(np.int64)
    spikes = np.empty(current.shape, np.int64)
    for t in range(timesteps):
        kept = v if decay == 1 << 15 else _wrapped(v * decay + (1 << 14), 32) >> 15
        u = np.clip(_wrapped(kept + current[:, :, :, t], 32), -32767, 32767)
        spikes[:, :, :, t] = u >= fire.reshape(own)
        v = _wrapped(u - spikes[:, :, :, t] * reset.reshape(own), 32)
    return pack_words(spikes), _wrapped(v, 16)


def _wrapped(numbers: Array, bits: int) -> Array:
    """As integers of so many bits."""
    return (numbers + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
