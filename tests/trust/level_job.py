"""What a level computes from fixed random numbers: digests of what is EXACT, errors of what is ROUNDED.

As a script: ``level_job.py COUNT`` prints a line of JSON. Errors are given as parts of the bound that `dsr.ops`
states, with sums in double as what is exact: 2**-29 of an eps of float32 does not count.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict

import numpy as np

from dsr import _core, functional, ops

EPS = 2.0**-24


def neurons(count: int) -> dict[str, str]:
    """Digests of spikes. Currents are multiples of a quarter of the firing threshold, which potentials often hit."""
    found = defaultdict(hashlib.sha256)
    rng = np.random.default_rng(8)
    for _ in range(count):
        channels, height, width, timesteps, batch = (int(rng.integers(1, top)) for top in (70, 4, 4, 21, 40))
        v_threshold, alpha = float(rng.choice([0.3, 1, 6])), float(rng.choice([0.3, 0.5, 1]))
        current = rng.integers(-4, 9, (channels, height, width, timesteps, batch)) * (v_threshold * alpha / 4)
        if rng.random() < 0.5:
            current = current + rng.normal(size=current.shape) * 2.0**-24
        values = current.astype(np.float32)
        scale, shift = (rng.normal(size=channels).astype(np.float32) for _ in range(2))
        weights = np.exp(np.linspace(-1, 0, timesteps)).astype(np.float32)
        for name, pair in (("plain", (None, None)), ("scaled", (scale, shift))):
            words, sums, _ = ops.neuron_spikes(values, timesteps, ops.if_model(v_threshold, alpha), None, *pair)
            found[f"neuron_spikes IF {name}"].update(words.tobytes() + sums.tobytes())
            leaky = ops.lif_model(v_threshold, 1.0, 0.05, alpha)
            results = ops.neuron_spikes(values, timesteps, leaky, weights, *pair)
            found[f"neuron_spikes LIF {name}"].update(b"".join(r.tobytes() for r in results))
        train = np.moveaxis(current, 3, 0)
        for dtype in ("f4", "f8"):
            spikes = functional.if_forward(train.astype(dtype), v_threshold=v_threshold, alpha=alpha)
            found[f"if_forward {dtype}"].update(spikes.tobytes())
            spikes = functional.lif_forward(
                train.astype(dtype), v_threshold=v_threshold, alpha=alpha, tau=1.0, delta_t=0.05
            )
            found[f"lif_forward {dtype}"].update(spikes.tobytes())
        words = rng.integers(2**32, size=(ops.word_count(channels), 5, 5, timesteps, batch), dtype=np.uint32)
        words[-1] &= np.uint32(0xFFFFFFFF >> (-channels % 32))
        weight = rng.normal(size=(int(rng.integers(1, 40)), channels, 3, 3)).astype(np.float32)
        convolution = ops.SpikeConvolution(
            words, weight, None, 0.25, ops.Geometry((3, 3), padding=(1, 1, 1, 1)), int(rng.choice([1, 2, 4]))
        )
        for name, model in ("IF", ops.if_model(v_threshold, alpha)), ("LIF", ops.lif_model(0.05, 1.0, 0.05, alpha)):
            found[f"conv2d_neuron_spikes {name}"].update(ops.conv2d_neuron_spikes(convolution, model).tobytes())
    return {name: digest.hexdigest() for name, digest in found.items()}


def windows(values: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """(C, H', W', L, K, K) of (C, H, W, L)."""
    padded = np.pad(values.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]


def forward(values: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolution in double, (O, H', W', L)."""
    taps = windows(values, weight.shape[2], stride, padding)
    return np.moveaxis(np.tensordot(taps, weight.astype(np.float64), ((0, 4, 5), (1, 2, 3))), 3, 0)


def input_gradient(
    grad: np.ndarray, weight: np.ndarray, size: tuple[int, int], stride: int, padding: int
) -> np.ndarray:
    """Its transpose, (C, H, W, L)."""
    (height, width), kernel = size, weight.shape[2]
    total = np.zeros((weight.shape[1], height + 2 * padding, width + 2 * padding, grad.shape[3]))
    rows, columns = grad.shape[1:3]
    for y in range(kernel):
        for x in range(kernel):
            part = np.tensordot(weight[:, :, y, x].astype(np.float64), grad.astype(np.float64), (0, 0))
            total[:, y : y + stride * rows : stride, x : x + stride * columns : stride] += part
    return total[:, padding : padding + height, padding : padding + width]


def weight_gradient(grad: np.ndarray, values: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Gradient of the weight, (O, C, K, K)."""
    taps = windows(values, kernel, stride, padding)
    return np.tensordot(grad.astype(np.float64), taps, ((1, 2, 3), (1, 2, 3)))


def part_of_bound(result: np.ndarray, exact: np.ndarray, absolute: np.ndarray, products: int) -> float:
    """Largest error as a part of ``(K + 2) eps sum |w| |x|``."""
    error, bound = np.abs(result - exact), (products + 2) * EPS * absolute
    assert not (error[bound == 0] > 0).any(), "an empty sum is not 0"
    return float((error[bound > 0] / bound[bound > 0]).max(initial=0.0))


def rounded(count: int) -> tuple[dict[str, float], str]:
    """Largest error of each operation as a part of its bound, and a digest of all results."""
    worst: dict[str, float] = defaultdict(float)
    digest = hashlib.sha256()
    rng = np.random.default_rng(9)

    def note(name: str, result: np.ndarray, exact: np.ndarray, absolute: np.ndarray, products: int) -> None:
        digest.update(result.tobytes())
        worst[name] = max(worst[name], part_of_bound(result.reshape(exact.shape), exact, absolute, products))

    for _ in range(count):
        kernel, stride = int(rng.integers(1, 6)), int(rng.integers(1, 4))
        padding = int(rng.integers(0, kernel))
        geometry = ops.Geometry.of("level_job", kernel, stride, padding)
        channels, outs = int(rng.integers(1, 70)), int(rng.integers(1, 70))
        height, width = (int(rng.integers(max(kernel - 2 * padding, 1), 9)) for _ in range(2))
        timesteps, batch = int(rng.integers(1, 5)), int(rng.integers(1, 20))
        count_lanes = timesteps * batch
        scale = 10.0 ** rng.integers(-3, 4)
        values = (scale * rng.normal(size=(channels, height, width, count_lanes))).astype(np.float32)
        weight = rng.normal(size=(outs, channels, kernel, kernel)).astype(np.float32)
        absolute = np.abs(weight)
        exact = forward(values, weight, stride, padding)
        grad = rng.normal(size=exact.shape).astype(np.float32)
        taps = kernel * kernel
        note(
            "conv2d",
            ops.conv2d(values, weight, None, geometry),
            exact,
            forward(np.abs(values), absolute, stride, padding),
            channels * taps,
        )
        size = (height, width)
        note(
            "conv2d_input_gradient",
            ops.conv2d_input_gradient(grad, weight, height, width, geometry),
            input_gradient(grad, weight, size, stride, padding),
            input_gradient(np.abs(grad), absolute, size, stride, padding),
            outs * taps,
        )
        products = int(np.prod(exact.shape[1:]))
        note(
            "conv2d_weight_gradient",
            ops.conv2d_weight_gradient(grad, values, geometry),
            weight_gradient(grad, values, kernel, stride, padding),
            weight_gradient(np.abs(grad), np.abs(values), kernel, stride, padding),
            products,
        )
        bits = (rng.random((channels, height, width, timesteps, batch)) < rng.choice([0, 0.05, 0.3, 1])).astype(
            np.float32
        )
        words, flat = ops.pack_words(bits), bits.reshape(*values.shape)
        amplitude, table_bits = float(np.float32(rng.random() * 6)), int(rng.choice([1, 2, 4]))
        if table_bits == 4 and taps > ops.MOST_TAPS // 4:
            table_bits = 1
        note(
            "conv2d_spikes",
            ops.conv2d_spikes(words, weight, None, amplitude, geometry, table_bits),
            amplitude * forward(flat, weight, stride, padding),
            amplitude * forward(flat, absolute, stride, padding),
            channels * taps,
        )
        steps = (*exact.shape[:3], timesteps, batch)
        constant, slope = (
            np.ascontiguousarray(grad.reshape(steps)[:, :, :, 0]),
            rng.normal(size=outs).astype(np.float32),
        )
        current = rng.normal(size=steps).astype(np.float32)
        dense = ops.expand_gradient(constant, current, slope).reshape(exact.shape)
        note(
            "conv2d_spikes_weight_gradient",
            ops.conv2d_spikes_weight_gradient(
                constant, slope, current, words, weight.shape, amplitude, geometry, table_bits
            ),
            amplitude * weight_gradient(dense, flat, kernel, stride, padding),
            amplitude * weight_gradient(np.abs(dense), flat, kernel, stride, padding),
            products,
        )
    return dict(worst), digest.hexdigest()


if __name__ == "__main__":
    exact = neurons(int(sys.argv[1]))
    worst, digest = rounded(int(sys.argv[1]))
    print(
        json.dumps({"level": _core.level(), "blas": _core.blas()[1], "exact": exact, "worst": worst, "rounded": digest})
    )
