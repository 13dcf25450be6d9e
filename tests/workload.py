"""Every operation that has kernels of its own, once, on fixed numbers; as a script: level and digests as JSON."""

from __future__ import annotations

import hashlib
import json
from functools import cache

import functional_table
import numpy as np
import ops_table

from dsr import _core, functional, ops
from dsr.ops import integers


def digest(*arrays: object) -> str:
    """SHA-256 of the bytes."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


@cache
def digests() -> dict[str, str]:
    """Result of each operation and dtype. Odd sizes leave rests of vectors, chunks and tiles; some values are wild."""
    found = {}
    for dtype in ("f4", "f8"):
        for function in functional_table.FUNCTIONS:
            rng = np.random.default_rng(7)
            call = functional_table.make_call(function, rng, (9, 5, 1033), dtype)
            for name, kind in functional_table.kinds_of(function).items():
                if kind in ("train", "values"):
                    infinite = [np.nan, np.inf, -np.inf] if function in functional_table.TAKE_NAN else []
                    wild = rng.choice([*infinite, 1e38, -0.0, 1e-44], call[name].shape)
                    np.copyto(call[name], wild.astype(dtype), where=rng.random(call[name].shape) < 0.001)
            if function.endswith("_forward"):
                call["return_v"] = True
            result = getattr(functional, function)(**call)
            found[f"{function}_{dtype}"] = digest(*(result if isinstance(result, tuple) else [result]))
    for function in ops_table.EXACT:
        for shape in ((33, 3, 5, 4, 37), (70, 9, 3, 4, 33)):
            call = ops_table.make_call(function, np.random.default_rng(7), shape)
            found[f"{function}_{shape}"] = digest(*ops_table.run(ops, function, call))
    for table_bits in (1, 2, 4):
        rng = np.random.default_rng(7)
        words, weight = ops_table.bits(rng, 70, 9, 7, 3, 33), ops_table.floats(rng, 37, 70, 3, 3)
        words &= ops_table.bits(rng, 70, 9, 7, 3, 33)
        bias, values = ops_table.floats(rng, 37), ops_table.floats(rng, 37, 5, 4, 3, 33)
        geometry = ops.Geometry((3, 3), (2, 2), (1, 1, 1, 1))
        found[f"conv2d_spikes_{table_bits}"] = digest(ops.conv2d_spikes(words, weight, bias, 0.3, geometry, table_bits))
        shortcut = ops_table.bits(rng, 37, 5, 4, 3, 33)
        convolution = ops.SpikeConvolution(words, weight, bias, 0.3, geometry, table_bits, shortcut, 0.7)
        scale, shift = ops_table.floats(rng, 37), ops_table.floats(rng, 37)
        own = {name: model(37) for name, model in ops_table.OWN.items()}
        for name, model in {**ops_table.MODELS, **own}.items():
            fused = ops.conv2d_neuron_spikes(convolution, model, scale, shift, weights=np.float32([0.5, 0.7, 1.8]))
            found[f"conv2d_neuron_spikes {name}_{table_bits}"] = digest(*fused)
        total = ops.conv2d_spikes_sum(convolution, np.float32([1, 2, 4]))
        found[f"conv2d_spikes_sum_{table_bits}"] = digest(total)
        constant = np.ascontiguousarray(values[:, :, :, 0])
        gradient = ops.conv2d_spikes_weight_gradient(
            constant, bias, values, words, weight.shape, 0.3, geometry, table_bits
        )
        found[f"conv2d_spikes_weight_gradient_{table_bits}"] = digest(gradient)
        gradient = ops.conv2d_spikes_weight_gradient(
            constant, None, None, words, weight.shape, 0.3, geometry, table_bits, np.float32([1, 2, 4])
        )
        found[f"conv2d_spikes_weight_gradient, weights_{table_bits}"] = digest(gradient)
    rng = np.random.default_rng(7)
    for groups, channels in ((70, 1), (35, 2), (5, 14)):  # by masks, by masks of two channels, by rows
        geometry = ops.Geometry((3, 2), (1, 1), (1, 2, 1, 1), (2, 1), groups, (1, 2))
        words, weight = ops_table.bits(rng, 70, 9, 7, 3, 33), ops_table.floats(rng, 70, channels, 3, 2)
        spikes = ops.conv2d_spikes(words, weight, weight[:, 0, 0, 0].copy(), 0.3, geometry, 2)
        gradient = ops.conv2d_spikes_weight_gradient(
            np.ascontiguousarray(spikes[:, :, :, 0]), None, None, words, weight.shape, 0.3, geometry, 1
        )
        found[f"conv2d_spikes, {groups} groups"] = digest(spikes, gradient)
    # dense values of one channel a group: no BLAS, so their bits are those of every level too
    geometry = ops.Geometry((3, 2), (1, 2), (1, 2, 1, 1), (2, 1), 37)
    values, weight = ops_table.floats(rng, 37, 5, 4, 99), ops_table.floats(rng, 37, 1, 3, 2)
    output = ops.conv2d(values, weight, weight[:, 0, 0, 0].copy(), geometry)
    found["conv2d, depthwise"] = digest(output)
    found["conv2d_input_gradient, depthwise"] = digest(
        ops.conv2d_input_gradient(output, weight, *values.shape[1:3], geometry)
    )
    found["conv2d_weight_gradient, depthwise"] = digest(ops.conv2d_weight_gradient(output, values, geometry))
    for table_bits in (1, 4):
        rng = np.random.default_rng(7)
        words, weight = ops_table.bits(rng, 70, 9, 7, 3, 33), rng.integers(-127, 128, (67, 70, 3, 3))
        packed = ops.pack_integers(weight, ops.Geometry((3, 3), (2, 2), (1, 1, 1, 1)), 70)
        rows = integers.rows_of(rng.integers(-999, 999, (67, 5, 4, 3, 33)))
        ops.integer_conv2d_spikes(words, packed, 1, table_bits, rows)
        found[f"integer_conv2d_spikes_{table_bits}"] = digest(rows)
        bias, reset = rng.integers(-99, 99, 67).astype(np.int32), rng.integers(1, 4096, 67).astype(np.int32)
        for decay in (20000, integers.NO_DECAY):
            neurons = ops.IntegerNeurons(bias, reset, reset // 2 + 1, decay)
            kept, read = neurons.new_potentials(5, 4, 33), ops.IntegerInput(words, packed, 0, table_bits)
            spikes = ops.integer_conv2d_neuron_spikes(read, neurons, rows, kept)
            found[f"integer_conv2d_neuron_spikes {decay}_{table_bits}"] = digest(spikes, kept)
    for kernel, stride in ((3, 1), (4, 2)):  # one OpenBLAS for all levels: its products have the same bits
        rng = np.random.default_rng(7)
        grad, weight = ops_table.floats(rng, 33, 7, 8, 37), ops_table.floats(rng, 33, 32, kernel, kernel)
        gradient = ops.conv2d_input_gradient(
            grad, weight, 7 * stride, 8 * stride, ops.Geometry.of("", kernel, stride, 1)
        )
        found[f"conv2d_input_gradient_{kernel}"] = digest(gradient)
    rng = np.random.default_rng(7)
    grad, values = ops_table.floats(rng, 33, 7, 8, 37), ops_table.floats(rng, 40, 7, 8, 37)
    gradient = ops.conv2d_weight_gradient(grad, values, ops.Geometry.of("", 3, 1, 1))
    found["conv2d_weight_gradient, by Winograd's method"] = digest(gradient)
    for name, general in (("adding", False), ("general", True)):
        found[f"{name} loop"] = digest(*ops_table.without_leak(general))
    value, grad, buffer = (ops_table.floats(np.random.default_rng(seed), 33333) for seed in range(3))
    _core.sgd_update(value, grad, buffer, 0.1, 0.9, 5e-4, 1, 0)
    found["sgd_update_f4"] = digest(value, buffer)
    return found


if __name__ == "__main__":
    print(json.dumps({"level": _core.level(), "digests": digests()}))
