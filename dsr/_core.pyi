"""What the extension offers: outputs are arguments, arrays are contiguous and of exactly the dtype named."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.ops.geometry import Geometry
from dsr.ops.neurons import NeuronModel

_Real = NDArray[np.floating[Any]]
_F32 = NDArray[np.float32]
_F64 = NDArray[np.float64]
_U32 = NDArray[np.uint32]
_I16 = NDArray[np.int16]
_I32 = NDArray[np.int32]
_I64 = NDArray[np.int64]

def level() -> str: ...
def levels() -> tuple[str, ...]: ...
def vectors() -> tuple[int, ...]: ...
def compiler() -> str: ...
def openmp() -> tuple[int, str | None]: ...
def threads() -> int: ...
def set_threads(threads: int, /) -> None: ...
def blas() -> tuple[str, str]: ...
def kernels() -> tuple[str, ...]: ...
def prepare(calls: tuple[tuple[Any, ...], ...], /) -> Callable[[], None]: ...
def neuron_forward(
    current: _Real, v_init: _Real | None, neuron: NeuronModel, out: _Real, v_final: _Real | None, /
) -> None: ...
def firing_rate(train: _Real, weights: _F64 | None, out: _Real, /) -> None: ...
def rate(mean_current: _Real, neuron: NeuronModel, out: _Real, /) -> None: ...
def backward(grad_output: _Real, current: _Real, weights: _F64 | None, neuron: NeuronModel, out: _Real, /) -> float: ...
def rate_backward(grad_rate: _Real, mean_current: _Real, neuron: NeuronModel, out: _Real, /) -> float: ...
def encode_bernoulli(rate: _Real, seed: int, out: _Real, /) -> None: ...
def encode_latency(value: _Real, out: _Real, /) -> None: ...
def encode_phase(value: _Real, bits: int, out: _Real, /) -> None: ...
def encode_delta(signal: _Real, threshold: float, out: _Real, /) -> None: ...
def neuron_spikes(
    current: _F32,
    scale: _F32 | None,
    shift: _F32 | None,
    weights: _F32 | None,
    neuron: NeuronModel,
    thresholds: _F32 | None,
    words: _U32,
    sums: _F32,
    weighted: _F32 | None,
    /,
) -> None: ...
def neuron_spikes_backward(
    grad: _F32,
    sums: _F32,
    scale: _F32 | None,
    shift: _F32 | None,
    timesteps: int,
    neuron: NeuronModel,
    thresholds: _F32 | None,
    out: _F32,
    above: _F64,
    /,
) -> None: ...
def pack_words(values: _F32, out: _U32, /) -> None: ...
def count_steps(words: _U32, most: int, out: _U32, /) -> None: ...
def transpose_words(words: _U32, out: _U32, /) -> None: ...
def sgd_update(
    value: _F32,
    grad: _F32,
    buffer: _F32,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    nesterov: int,
    first: int,
    /,
) -> None: ...
def unpack_words(words: _U32, amplitude: _F32, out: _F32, /) -> None: ...
def add_words(words: _U32, amplitude: _F32, out: _F32, /) -> None: ...
def sum_words(words: _U32, weights: _F32, amplitude: _F32, out: _F32, /) -> None: ...
def count_words(words: _U32, out: _I64, /) -> None: ...
def compare(a: _F32, b: _F32, /) -> float: ...
def count_bits(words: _U32, /) -> float: ...
def dropout_words(words: _U32, keep: float, seed: int, out: _U32, /) -> None: ...
def moments(values: _F32, sums: _F64, squares: _F64, /) -> None: ...
def product_moments(a: _F32, b: _F32, sums: _F64, products: _F64, /) -> None: ...
def expand_gradient(constant: _F32, values: _F32, slope: _F32, out: _F32, /) -> None: ...
def affine(x: _F32, y: _F32 | None, a: _F32, b: _F32 | None, c: _F32, out: _F32, /) -> None: ...
def weighted_sum(values: _F32, weights: _F32, out: _F32, /) -> None: ...
def pool_planes(
    words: _U32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _U32,
    /,
) -> None: ...
def or_pool(
    words: _U32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _U32,
    /,
) -> None: ...
def avg_pool(
    input: _F32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _F32,
    /,
) -> None: ...
def avg_pool_backward(
    grad_output: _F32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _F32,
    /,
) -> None: ...
def max_pool(
    input: _F32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _F32,
    /,
) -> None: ...
def max_pool_backward(
    grad_output: _F32,
    input: _F32,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    padding_h: int,
    padding_w: int,
    out: _F32,
    /,
) -> None: ...
def conv2d(input: _F32, weight: _F32, bias: _F32 | None, geometry: Geometry, out: _F32, /) -> None: ...
def conv2d_by_step(input: _F32, weight: _F32, bias: _F32 | None, geometry: Geometry, out: _F32, /) -> None: ...
def conv2d_spikes(
    words: _U32,
    weight: _F32,
    bias: _F32 | None,
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    accumulate: int,
    packed: _F32 | None,
    out: _F32,
    /,
) -> None: ...
def conv2d_neuron_spikes(
    words: _U32,
    weight: _F32,
    bias: _F32 | None,
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    shortcut: _U32 | None,
    shortcut_amplitude: _F32 | None,
    scale: _F32 | None,
    shift: _F32 | None,
    neuron: NeuronModel,
    thresholds: _F32 | None,
    packed: _F32 | None,
    weights: _F32 | None,
    out: _U32,
    potentials: _F32 | None,
    weighted: _F32 | None,
    /,
) -> None: ...
def conv2d_spikes_sum(
    words: _U32,
    weight: _F32,
    bias: _F32 | None,
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    shortcut: _U32 | None,
    shortcut_amplitude: _F32 | None,
    weights: _F32,
    packed: _F32 | None,
    out: _F32,
    /,
) -> None: ...
def neuron_steps(
    current: _F32,
    scale: _F32 | None,
    shift: _F32 | None,
    neuron: NeuronModel,
    thresholds: _F32 | None,
    words: _U32,
    potentials: _F32 | None,
    /,
) -> None: ...
def packed_length(weight: _F32, geometry: Geometry, /) -> float: ...
def pack_weights(weight: _F32, geometry: Geometry, out: _F32, /) -> None: ...
def conv2d_spikes_weight_gradient(
    constant: _F32,
    weights: _F32 | None,
    slope: _F32 | None,
    values: _F32 | None,
    transposed: _U32,
    timesteps: int,
    amplitude: float,
    geometry: Geometry,
    table_bits: int,
    out: _F32,
    /,
) -> None: ...
def conv2d_input_gradient(grad_output: _F32, weight: _F32, geometry: Geometry, out: _F32, /) -> None: ...
def conv2d_weight_gradient(grad_output: _F32, input: _F32, geometry: Geometry, out: _F32, /) -> None: ...
def integer_conv2d_spikes(
    words: _U32,
    packed: _I16,
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    shift: int,
    table_bits: int,
    together: int,
    rows: _I32,
    /,
) -> None: ...
def integer_conv2d(
    values: _I32,
    packed: _I16,
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    left: int,
    right: int,
    rows: _I32,
    /,
) -> None: ...
def integer_conv2d_value_neuron_spikes(
    values: _I32,
    packed: _I16,
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    left: int,
    right: int,
    shortcut: _U32 | None,
    shortcut_weight: _I32 | None,
    bias: _I32,
    reset: _I32,
    fire: _I32,
    decay: int,
    potentials: _I16 | None,
    out: _U32,
    /,
) -> None: ...
def integer_conv2d_neuron_spikes(
    words: _U32,
    packed: _I16,
    geometry: Geometry,
    in_channels: int,
    out_channels: int,
    shift: int,
    table_bits: int,
    together: int,
    current: _I32 | None,
    shortcut: _U32 | None,
    shortcut_weight: _I32 | None,
    bias: _I32,
    reset: _I32,
    fire: _I32,
    decay: int,
    potentials: _I16 | None,
    out: _U32,
    /,
) -> None: ...
