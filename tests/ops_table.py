"""Valid arguments of the EXACT functions of dsr.ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsr import ops

EXACT = [
    "if_spikes",
    "lif_spikes",
    "if_spikes_backward",
    "lif_spikes_backward",
    "pack_words",
    "unpack_words",
    "add_words",
    "count_bits",
    "count_words",
    "transpose_words",
    "dropout_words",
    "moments",
    "product_moments",
    "expand_gradient",
    "weighted_sum",
    "affine",
    "pool_planes",
    "avg_pool",
    "avg_pool_backward",
]


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random currents."""
    return rng.normal(0.3, 1, shape).astype(np.float32)


def bits(rng: np.random.Generator, channels: int, *shape: int) -> np.ndarray:
    """Words of random spikes; bits of channels that do not exist are zero."""
    words = rng.integers(0, 2**32, (ops.word_count(channels), *shape), dtype=np.uint32)
    if channels % 32:
        words[-1] &= np.uint32(2 ** (channels % 32) - 1)
    return words


def make_call(function: str, rng: np.random.Generator, shape: tuple[int, int, int, int, int]) -> list[Any]:
    """Arguments for values of `shape` (C, H, W, T, B); pooling sees T * B lanes and windows of 2."""
    channels, height, width, timesteps, batch = shape
    pixels = channels, height, width
    if function == "if_spikes":
        return [floats(rng, *shape), timesteps, 0.7, 0.4, floats(rng, channels), floats(rng, channels)]
    if function == "lif_spikes":
        weights = rng.random(timesteps).astype(np.float32)
        return [floats(rng, *shape), weights, 0.7, 1.5, 0.2, 0.4, floats(rng, channels), floats(rng, channels)]
    if function.endswith("spikes_backward"):
        numbers = [timesteps, 0.7] if function.startswith("if") else [timesteps, 0.7, 1.5, 0.2]
        return [*(floats(rng, *pixels, batch) for _ in range(2)), *numbers, *(floats(rng, channels) for _ in range(2))]
    if function == "pack_words":
        return [floats(rng, *shape) * (rng.random(shape) < 0.5)]
    if function in ("unpack_words", "count_words"):
        return [bits(rng, *shape), channels] + ([0.3] if function == "unpack_words" else [])
    if function == "add_words":
        return [bits(rng, *shape), floats(rng, *shape), 0.3]
    if function in ("transpose_words", "count_bits"):
        return [bits(rng, *shape)]
    if function == "dropout_words":
        return [bits(rng, *shape), 0.7, 12345678901234567890]
    if function == "moments":
        return [floats(rng, *shape)]
    if function == "product_moments":
        return [floats(rng, *shape), floats(rng, *shape)]
    if function == "expand_gradient":
        return [floats(rng, *pixels, batch), floats(rng, *shape), floats(rng, channels)]
    if function == "weighted_sum":
        return [floats(rng, *shape), floats(rng, timesteps)]
    if function == "affine":
        a, b, c = (floats(rng, channels) for _ in range(3))
        return [floats(rng, *shape), a, c, floats(rng, *shape), b]
    if function == "pool_planes":
        return [bits(rng, *shape), 2, 2, 1]
    if function == "avg_pool":
        return [floats(rng, *pixels, timesteps * batch), 2, 2, 1]
    rows, columns = (ops.output_size(size, 2, 2, 1) for size in (height, width))
    return [floats(rng, channels, rows, columns, timesteps * batch), height, width, 2, 2, 1]


def run(module: Any, function: str, call: list[Any]) -> list[np.ndarray]:
    """All results of a call on copies of the arguments: add_words changes one."""
    call = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in call]
    result = getattr(module, function)(*call)
    return list(result) if isinstance(result, tuple) else [result]
