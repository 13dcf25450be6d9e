"""Valid arguments of the EXACT functions of dsr.ops; those of neurons stand once for each model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dsr import _core, ops

MODELS = {
    "IF": ops.if_model(0.7, 0.4),
    "LIF": ops.lif_model(0.7, 1.5, 0.2, 0.4),
    "graded IF": ops.if_model(0.3, 0.4, levels=5),
    "graded LIF": ops.lif_model(0.1, 1.5, 0.5, 0.4, levels=3),
}
# with a threshold for each channel
OWN = {
    "own IF": lambda channels: ops.if_model(np.linspace(0.5, 0.9, channels, dtype=np.float32), 0.4),
    "own LIF": lambda channels: ops.lif_model(np.linspace(0.5, 0.9, channels, dtype=np.float32), 1.5, 0.2, 0.4),
    "own graded IF": lambda channels: ops.if_model(np.linspace(0.2, 0.5, channels, dtype=np.float32), 0.4, levels=6),
}
EXACT = [
    *(f"neuron_spikes {model}" for model in (*MODELS, *OWN)),
    *(f"neuron_spikes_backward {model}" for model in (*MODELS, *OWN)),
    "pack_words",
    "unpack_words",
    "add_words",
    "sum_words",
    "count_bits",
    "count_words",
    "transpose_words",
    "count_steps",
    "dropout_words",
    "moments",
    "product_moments",
    "expand_gradient",
    "weighted_sum",
    "affine",
    "pool_planes",
    "avg_pool",
    "avg_pool_backward",
    "max_pool",
    "max_pool_backward",
    "or_pool",
]


def find(module: Any, function: str) -> Any:
    """The function of dsr.ops or dsr.reference that a row stands for."""
    return getattr(module, function.split()[0])


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
    """Arguments for values of `shape` (C, H, W, T, B); pooling sees T * B lanes and windows of 2x4."""
    channels, height, width, timesteps, batch = shape
    pixels = channels, height, width
    name, _, kind = function.partition(" ")
    model = OWN[kind](channels) if kind in OWN else MODELS.get(kind)
    if name == "neuron_spikes":
        weights = rng.random(timesteps).astype(np.float32) if kind.endswith("LIF") else None
        current, scale, shift = floats(rng, *shape), floats(rng, channels), floats(rng, channels)
        return [current, timesteps, model, weights, scale, shift]
    if name == "neuron_spikes_backward":
        grad, sums, scale, shift = (floats(rng, *size) for size in 2 * [(*pixels, batch)] + 2 * [(channels,)])
        return [grad, sums, timesteps, model, scale, shift]
    if function == "pack_words":
        return [floats(rng, *shape) * (rng.random(shape) < 0.5)]
    if function in ("unpack_words", "count_words"):
        return [bits(rng, *shape), channels] + ([rng.normal(0.3, 1, channels)] if function == "unpack_words" else [])
    if function == "add_words":
        return [bits(rng, *shape), floats(rng, *shape), 0.3]
    if function in ("transpose_words", "count_bits"):
        return [bits(rng, *shape)]
    if function == "count_steps":
        return [np.stack([bits(rng, *shape) for _ in range(3)]), 5]
    if function == "dropout_words":
        return [bits(rng, *shape), 0.7, 12345678901234567890]
    if function == "moments":
        return [floats(rng, *shape)]
    if function == "product_moments":
        return [floats(rng, *shape), floats(rng, *shape)]
    if function == "expand_gradient":
        return [floats(rng, *pixels, batch), floats(rng, *shape), floats(rng, channels)]
    if function == "sum_words":
        return [bits(rng, *shape), channels, floats(rng, timesteps), rng.normal(0.3, 1, channels)]
    if function == "weighted_sum":
        return [floats(rng, *shape), floats(rng, timesteps)]
    if function == "affine":
        a, b, c = (floats(rng, channels) for _ in range(3))
        return [floats(rng, *shape), a, c, floats(rng, *shape), b]
    windows = (2, 4), (2, 1), (1, 2)
    if function in ("pool_planes", "or_pool"):
        return [bits(rng, *shape), *windows]
    if function in ("avg_pool", "max_pool"):
        return [floats(rng, *pixels, timesteps * batch), *windows]
    rows, columns = ops.output_size(height, 2, 2, 1), ops.output_size(width, 4, 1, 2)
    grad = floats(rng, channels, rows, columns, timesteps * batch)
    if function == "max_pool_backward":
        return [grad, np.round(floats(rng, *pixels, timesteps * batch)), *windows]  # rounded: there are equal ones
    return [grad, height, width, *windows]


def run(module: Any, function: str, call: list[Any]) -> list[np.ndarray]:
    """All results of a call on copies of the arguments: add_words changes one."""
    call = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in call]
    result = find(module, function)(*call)
    return [part for part in result if part is not None] if isinstance(result, tuple) else [result]


def without_leak(general: bool) -> list[np.ndarray]:
    """Spikes of IF neurons by every kernel: in the loop that only adds, or in the one with decay and gain.

    The second gets half the current and doubles it, which is exact: the same bits.
    """
    rng, half = np.random.default_rng(11), np.float32(0.5 if general else 1)

    def model(**options: Any) -> ops.NeuronModel:
        return replace(ops.if_model(0.7, 0.4, **options), gain=2.0 if general else 1.0)

    results = []
    for shape in ((33, 3, 2, 5, 37), (65, 2, 2, 4, 16), (3, 2, 1, 7, 5)):
        current, scale, shift = floats(rng, *shape), floats(rng, shape[0]) * half, floats(rng, shape[0]) * half
        results.append(ops.neuron_spikes(current, shape[3], model(), None, scale, shift)[0])
    for dtype in ("f4", "f8"):
        current = rng.normal(0.3, 1, (7, 1033)).astype(dtype)
        results.append(np.empty_like(current))
        _core.neuron_forward(current * half, None, model(dtype=dtype), results[-1], None)
    geometry = ops.Geometry((3, 3), padding=(1, 1, 1, 1))
    convolution = ops.SpikeConvolution(bits(rng, 40, 5, 4, 3, 17), floats(rng, 37, 40, 3, 3), None, 0.3, geometry, 1)
    scale, shift = floats(rng, 37) * half, floats(rng, 37) * half
    return [*results, ops.conv2d_neuron_spikes(convolution, model(), scale, shift)]
