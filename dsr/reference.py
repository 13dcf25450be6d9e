"""The operations of dsr in plain NumPy: slow, short, and the oracle of the tests.

The same names, arguments and results as `dsr.functional` and `dsr.ops`, written for reading. Arithmetic is done
in the dtype of the input and in the order that the compiled kernels promise, so results agree bit for bit where the
operation is EXACT; only sums in double (moments, thresholds' gradients) are taken in NumPy's order. Inputs are taken
as they are: no checks here.
"""

from __future__ import annotations

from math import exp, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _real(x: Any) -> Array:
    x = np.asarray(x)
    return x.astype(np.result_type(x.dtype, np.float32))


# ---- neurons, time first -------------------------------------------------------------------------------------------


def if_forward(current: Array, v_threshold: float, alpha: float = 0.5) -> Array:
    """See `dsr.functional.if_forward`."""
    x = _real(current)
    kind = x.dtype.type
    threshold, fire = kind(v_threshold), kind(alpha) * kind(v_threshold)
    output, v = np.empty_like(x), np.zeros_like(x[0])
    for t in range(len(x)):
        u = v + x[t]
        output[t] = np.where(u >= fire, threshold, kind(0))
        v = u - output[t]
    return output


def lif_forward(current: Array, v_threshold: float, tau: float, delta_t: float, alpha: float = 0.3) -> Array:
    """See `dsr.functional.lif_forward`."""
    x = _real(current)
    kind = x.dtype.type
    decay = exp(-delta_t / tau)
    threshold, fire = kind(v_threshold), kind(alpha) * kind(v_threshold)
    output, v = np.empty_like(x), np.zeros_like(x[0])
    for t in range(len(x)):
        u = kind(decay) * v + kind(1 - decay) * x[t]
        output[t] = np.where(u >= fire, threshold / kind(delta_t), kind(0))
        v = u - np.where(u >= fire, threshold, kind(0))
    return output


def time_weights(timesteps: int, tau: float, delta_t: float) -> Array:
    """Weights ``exp(-(delta_t / tau) (T - 1 - t))`` of a LIF train's representation, float64."""
    return np.array([exp(-(delta_t / tau) * (timesteps - 1 - t)) for t in range(timesteps)])


def firing_rate(train: Array) -> Array:
    """See `dsr.functional.firing_rate`."""
    x = _real(train)
    total = np.zeros_like(x[0])
    for step in x:
        total = total + step
    return np.asarray(total / x.dtype.type(len(x)))


def weighted_firing_rate(train: Array, tau: float, delta_t: float) -> Array:
    """See `dsr.functional.weighted_firing_rate`."""
    x = _real(train)
    weights = time_weights(len(x), tau, delta_t)
    total = np.zeros_like(x[0])
    for w, step in zip(weights, x, strict=True):
        total = total + x.dtype.type(w) * step
    # cumsum adds in order, unlike NumPy's sum and, since 3.12, Python's
    return np.asarray(total / x.dtype.type(np.cumsum(weights)[-1]))


def if_rate(mean_current: Array, v_threshold: float) -> Array:
    """See `dsr.functional.if_rate`."""
    z = _real(mean_current)
    return np.clip(z, z.dtype.type(0), z.dtype.type(v_threshold))


def lif_rate(mean_current: Array, v_threshold: float, tau: float, delta_t: float) -> Array:
    """See `dsr.functional.lif_rate`."""
    z = _real(mean_current)
    kind = z.dtype.type
    return np.clip(z / kind(tau), kind(0), kind(v_threshold) / kind(delta_t))


# ---- gradients -----------------------------------------------------------------------------------------------------


def if_rate_backward(
    grad_rate: Array, mean_current: Array, v_threshold: float, divisor: float = 1.0
) -> tuple[Array, float]:
    """See `dsr.functional.if_rate_backward`; the gradient is divided by `divisor`."""
    g, z = _real(grad_rate), _real(mean_current)
    top = z.dtype.type(v_threshold)
    inside = (z >= 0) & (z <= top)
    return np.where(inside, g / g.dtype.type(divisor), g.dtype.type(0)), float(g[z > top].sum(dtype=np.float64))


def lif_rate_backward(
    grad_rate: Array,
    mean_current: Array,
    v_threshold: float,
    tau: float,
    delta_t: float,
    divisor: float | None = None,
    gradient: str = "published",
) -> tuple[Array, float]:
    """See `dsr.functional.lif_rate_backward`; the gradient is divided by `divisor`, by default `tau`."""
    g, z = _real(grad_rate), _real(mean_current)
    kind = z.dtype.type
    top = kind(tau) * kind(v_threshold) / kind(delta_t)
    inside = (z > 0) & (z < top)
    scaled = np.where(inside, g / kind(tau if divisor is None else divisor), kind(0))
    factor = delta_t if gradient == "published" else 1 / delta_t
    return scaled, factor * float(g[z > top].sum(dtype=np.float64))


def if_backward(grad_output: Array, current: Array, v_threshold: float) -> tuple[Array, float]:
    """See `dsr.functional.if_backward`."""
    d = _real(grad_output)
    g = np.zeros_like(d[0])
    for step in d:
        g = g + step
    share, grad_threshold = if_rate_backward(g, firing_rate(current), v_threshold, len(d))
    return np.broadcast_to(share, d.shape).copy(), grad_threshold


def lif_backward(
    grad_output: Array, current: Array, v_threshold: float, tau: float, delta_t: float, gradient: str = "published"
) -> tuple[Array, float]:
    """See `dsr.functional.lif_backward`."""
    d = _real(grad_output)
    kind = d.dtype.type
    g = kind(len(d)) * weighted_firing_rate(d, tau, delta_t)
    z = weighted_firing_rate(current, tau, delta_t)
    divisor = float(kind(tau) * kind(len(d)))
    share, grad_threshold = lif_rate_backward(g, z, v_threshold, tau, delta_t, divisor, gradient)
    return np.broadcast_to(share, d.shape).copy(), grad_threshold


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
    """See `dsr.ops.ops.pack_words`."""
    channels = len(values)
    words = np.zeros(((channels + 31) // 32, *values.shape[1:]), np.uint32)
    for c in range(channels):
        words[c // 32] |= (values[c] != 0).astype(np.uint32) << np.uint32(c % 32)
    return words


def transpose_words(words: Array) -> Array:
    """See `dsr.ops.ops.transpose_words`."""
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


def unpack_words(words: Array, channels: int, amplitude: float = 1.0) -> Array:
    """See `dsr.ops.ops.unpack_words`."""
    bits = np.empty((channels, *words.shape[1:]), np.float32)
    for c in range(channels):
        bits[c] = words[c // 32] >> np.uint32(c % 32) & np.uint32(1)
    return bits * np.float32(amplitude)


def add_words(words: Array, values: Array, amplitude: float) -> Array:
    """See `dsr.ops.ops.add_words`; here a new array is returned."""
    return values + unpack_words(words, len(values), amplitude)


def count_words(words: Array, channels: int) -> Array:
    """See `dsr.ops.ops.count_words`."""
    spikes = unpack_words(words, channels)
    return spikes.sum(axis=tuple(range(1, spikes.ndim)), dtype=np.float64).astype(np.int64)


def count_bits(words: Array) -> int:
    """See `dsr.ops.ops.count_bits`."""
    return int(np.unpackbits(np.ascontiguousarray(words).view(np.uint8)).sum(dtype=np.int64))


def dropout_words(words: Array, keep: float, seed: int) -> Array:
    """See `dsr.ops.ops.dropout_words`."""
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


def if_spikes(
    current: Array,
    timesteps: int,
    v_threshold: float,
    alpha: float,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, Array]:
    """See `dsr.ops.ops.if_spikes`."""
    spikes = if_forward(_steps_first(current, timesteps, scale, shift), v_threshold, alpha)
    sums = weighted_sum(current, np.ones(timesteps, np.float32))
    return pack_words(np.moveaxis(spikes, 0, -2)), sums


def lif_spikes(
    current: Array,
    weights: Array,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, Array, Array]:
    """See `dsr.ops.ops.lif_spikes`."""
    spikes = lif_forward(_steps_first(current, len(weights), scale, shift), v_threshold, tau, delta_t, alpha)
    sums = weighted_sum(current, np.ones(len(weights), np.float32))
    return pack_words(np.moveaxis(spikes, 0, -2)), sums, weighted_sum(current, weights)


def if_spikes_backward(
    grad: Array,
    sums: Array,
    timesteps: int,
    v_threshold: float,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, float]:
    """See `dsr.ops.ops.if_spikes_backward`."""
    return if_rate_backward(grad, _mean_current(sums, timesteps, scale, shift), v_threshold, timesteps)


def lif_spikes_backward(
    grad: Array,
    weighted: Array,
    timesteps: int,
    v_threshold: float,
    tau: float,
    delta_t: float,
    scale: Array | None = None,
    shift: Array | None = None,
) -> tuple[Array, float]:
    """See `dsr.ops.ops.lif_spikes_backward`."""
    z, divisor = _mean_current(weighted, timesteps, scale, shift), float(np.float32(tau) * np.float32(timesteps))
    share, grad_threshold = lif_rate_backward(grad, z, v_threshold, tau, delta_t, divisor)
    return share, grad_threshold / delta_t


def _mean_current(sums: Array, timesteps: int, scale: Array | None, shift: Array | None) -> Array:
    channels = len(sums)
    a = np.ones(channels, np.float32) if scale is None else scale
    return affine(sums, a / np.float32(timesteps), np.zeros(channels, np.float32) if shift is None else shift)


def moments(values: Array) -> tuple[Array, Array]:
    """See `dsr.ops.ops.moments`."""
    x = values.reshape(len(values), -1).astype(np.float64)
    return x.sum(axis=1), (x * x).sum(axis=1)


def product_moments(a: Array, b: Array) -> tuple[Array, Array]:
    """See `dsr.ops.ops.product_moments`."""
    x, y = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    return x.sum(axis=1), (x * y).sum(axis=1)


def expand_gradient(constant: Array, values: Array, slope: Array) -> Array:
    """See `dsr.ops.ops.expand_gradient`."""
    return np.expand_dims(constant, -2) + slope.reshape(-1, *[1] * (values.ndim - 1)) * values


def affine(x: Array, a: Array, c: Array, y: Array | None = None, b: Array | None = None) -> Array:
    """See `dsr.ops.ops.affine`."""

    def channels(values: Array) -> Array:
        return values.astype(np.float32).reshape(-1, *[1] * (x.ndim - 1))

    total = channels(a) * x
    if y is not None and b is not None:
        total = total + channels(b) * y
    return total + channels(c)


def weighted_sum(values: Array, weights: Array) -> Array:
    """See `dsr.ops.ops.weighted_sum`; one step of values stands for all."""
    steps = np.broadcast_to(np.moveaxis(values, -2, 0), (len(weights), *values.shape[:-2], values.shape[-1]))
    total = np.zeros_like(steps[0])
    for w, step in zip(weights, steps, strict=True):
        total = total + w * step
    return total


def _windows(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def avg_pool(values: Array, kernel_size: int, stride: int, padding: int = 0) -> Array:
    """See `dsr.ops.ops.avg_pool`; values (C, H, W, L)."""
    padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = _windows(values.shape[1], kernel_size, stride, padding)
    columns = _windows(values.shape[2], kernel_size, stride, padding)
    total = np.zeros((values.shape[0], rows, columns, values.shape[3]), values.dtype)
    for y in range(kernel_size):
        for x in range(kernel_size):
            total = total + padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride]
    return np.asarray(total / values.dtype.type(kernel_size**2))


def pool_planes(words: Array, kernel_size: int, stride: int, padding: int = 0) -> Array:
    """See `dsr.ops.ops.pool_planes`."""
    spikes = unpack_words(words, 32 * len(words)).astype(np.float64)
    pooled = avg_pool(spikes.reshape(*spikes.shape[:3], prod(spikes.shape[3:])), kernel_size, stride, padding)
    counts = np.rint(pooled * kernel_size**2).astype(np.int64).reshape(*pooled.shape[:3], *words.shape[3:])
    return np.stack([pack_words(counts >> k & 1) for k in range((kernel_size**2).bit_length())])


def avg_pool_backward(
    grad_output: Array, height: int, width: int, kernel_size: int, stride: int, padding: int = 0
) -> Array:
    """See `dsr.ops.ops.avg_pool_backward`."""
    channels, rows, columns, lanes = grad_output.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding, lanes), grad_output.dtype)
    share = grad_output / grad_output.dtype.type(kernel_size**2)
    for y in range(rows):
        for x in range(columns):
            at_y, at_x = y * stride, x * stride
            padded[:, at_y : at_y + kernel_size, at_x : at_x + kernel_size] += share[:, y : y + 1, x : x + 1]
    return padded[:, padding : padding + height, padding : padding + width]


def conv2d(values: Array, weight: Array, bias: Array | None = None, stride: int = 1, padding: int = 0) -> Array:
    """See `dsr.ops.ops.conv2d`; float64 inputs give float64 sums."""
    _, _, kernel_h, kernel_w = weight.shape
    padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = _windows(values.shape[1], kernel_h, stride, padding)
    columns = _windows(values.shape[2], kernel_w, stride, padding)
    total = np.zeros((len(weight), rows, columns, values.shape[3]), values.dtype)
    for y in range(kernel_h):
        for x in range(kernel_w):
            part = padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride]
            total += np.einsum("oc,chwl->ohwl", weight[:, :, y, x], part)
    return total if bias is None else total + bias.reshape(-1, 1, 1, 1)


def conv2d_input_gradient(
    grad_output: Array, weight: Array, height: int, width: int, stride: int = 1, padding: int = 0
) -> Array:
    """See `dsr.ops.ops.conv2d_input_gradient`."""
    _, channels, kernel_h, kernel_w = weight.shape
    _, rows, columns, lanes = grad_output.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding, lanes), grad_output.dtype)
    for y in range(kernel_h):
        for x in range(kernel_w):
            part = np.einsum("oc,ohwl->chwl", weight[:, :, y, x], grad_output)
            padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride] += part
    return padded[:, padding : padding + height, padding : padding + width]


def conv2d_weight_gradient(
    grad_output: Array, values: Array, kernel_h: int, kernel_w: int, stride: int = 1, padding: int = 0
) -> Array:
    """See `dsr.ops.ops.conv2d_weight_gradient`."""
    outputs, rows, columns, _ = grad_output.shape
    padded = np.pad(values, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    gradient = np.zeros((outputs, len(values), kernel_h, kernel_w), grad_output.dtype)
    for y in range(kernel_h):
        for x in range(kernel_w):
            part = padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride]
            gradient[:, :, y, x] = np.einsum("ohwl,chwl->oc", grad_output, part)
    return gradient


def conv2d_spikes(
    words: Array, weight: Array, bias: Array | None, amplitude: float, stride: int = 1, padding: int = 0
) -> Array:
    """See `dsr.ops.ops.conv2d_spikes`; sums in the dtype of `weight`, in another order."""
    spikes = unpack_words(words, weight.shape[1]).astype(weight.dtype)
    flat = spikes.reshape(*spikes.shape[:3], -1) * weight.dtype.type(amplitude)
    out = conv2d(flat, weight, bias, stride, padding)
    return out.reshape(*out.shape[:3], *words.shape[3:])


def conv2d_if_spikes(
    convolution: Any, v_threshold: float, alpha: float, scale: Array | None, shift: Array | None
) -> Array:
    """See `dsr.ops.ops.conv2d_if_spikes`."""
    current = _convolved(convolution)
    return if_spikes(current, current.shape[3], v_threshold, alpha, scale, shift)[0]


def conv2d_lif_spikes(
    convolution: Any,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float,
    scale: Array | None,
    shift: Array | None,
) -> Array:
    """See `dsr.ops.ops.conv2d_lif_spikes`."""
    current = _convolved(convolution)
    weights = np.ones(current.shape[3], np.float32)  # the spikes do not depend on them
    return lif_spikes(current, weights, v_threshold, tau, delta_t, alpha, scale, shift)[0]


def _convolved(c: Any) -> Array:
    current = conv2d_spikes(c.words, c.weight, c.bias, c.amplitude, c.stride, c.padding)
    if c.shortcut is not None:
        current += unpack_words(c.shortcut, len(current), c.shortcut_amplitude)
    return current


def conv2d_spikes_weight_gradient(
    grad_output: Array, words: Array, weight_shape: tuple[int, ...], amplitude: float, stride: int = 1, padding: int = 0
) -> Array:
    """See `dsr.ops.ops.conv2d_spikes_weight_gradient`; grad_output (O, H', W', T, B) is given at every step."""
    spikes = unpack_words(words, weight_shape[1]).astype(grad_output.dtype)
    flat = spikes.reshape(*spikes.shape[:3], -1) * grad_output.dtype.type(amplitude)
    steps = grad_output.reshape(*grad_output.shape[:3], -1)
    return conv2d_weight_gradient(steps, flat, weight_shape[2], weight_shape[3], stride, padding)
