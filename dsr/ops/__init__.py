"""The compiled operations that layers are made of; `dsr.ops.layout` says how their arrays lie in memory.

EXACT: the same bits on each instruction level and for any number of threads. ROUNDED: so for any number of threads,
and within the stated bound on each level; eps is 2**-24.
"""

from dsr.ops import _openmp as _openmp  # first: it decides how the compiled part is loaded
from dsr.ops.convolution import MOST_PRODUCTS, conv2d, conv2d_input_gradient, conv2d_weight_gradient
from dsr.ops.geometry import Geometry, mirrored_weight
from dsr.ops.integers import (
    IntegerInput,
    IntegerNeurons,
    Integers,
    PackedWeights,
    Potentials,
    integer_conv2d_neuron_spikes,
    integer_conv2d_spikes,
    pack_for_values,
    pack_integers,
)
from dsr.ops.layout import PerChannel, Sums, Values, Words, output_size, word_count
from dsr.ops.neurons import NeuronModel, if_model, lif_model, neuron_spikes, neuron_spikes_backward
from dsr.ops.pooling import Pair, avg_pool, avg_pool_backward, max_pool, max_pool_backward, or_pool, pool_planes
from dsr.ops.spike_convolution import (
    MOST_TAPS,
    ROW,
    SpikeConvolution,
    best_table_bits,
    conv2d_neuron_spikes,
    conv2d_spikes,
    conv2d_spikes_sum,
    conv2d_spikes_weight_gradient,
    neuron_steps,
    pack_weights,
    row_potentials,
)
from dsr.ops.sums import affine, expand_gradient, moments, product_moments, weighted_sum
from dsr.ops.words import (
    add_words,
    concat_words,
    count_bits,
    count_steps,
    count_words,
    dropout_words,
    pack_words,
    transpose_words,
    unpack_words,
)

__all__ = [
    "MOST_PRODUCTS",
    "MOST_TAPS",
    "ROW",
    "Geometry",
    "IntegerInput",
    "IntegerNeurons",
    "Integers",
    "NeuronModel",
    "PackedWeights",
    "Pair",
    "PerChannel",
    "Potentials",
    "SpikeConvolution",
    "Sums",
    "Values",
    "Words",
    "add_words",
    "affine",
    "avg_pool",
    "avg_pool_backward",
    "best_table_bits",
    "concat_words",
    "conv2d",
    "conv2d_input_gradient",
    "conv2d_neuron_spikes",
    "conv2d_spikes",
    "conv2d_spikes_sum",
    "conv2d_spikes_weight_gradient",
    "conv2d_weight_gradient",
    "count_bits",
    "count_steps",
    "count_words",
    "dropout_words",
    "expand_gradient",
    "if_model",
    "integer_conv2d_neuron_spikes",
    "integer_conv2d_spikes",
    "lif_model",
    "max_pool",
    "max_pool_backward",
    "mirrored_weight",
    "moments",
    "neuron_spikes",
    "neuron_spikes_backward",
    "neuron_steps",
    "or_pool",
    "output_size",
    "pack_for_values",
    "pack_integers",
    "pack_weights",
    "pack_words",
    "pool_planes",
    "product_moments",
    "row_potentials",
    "transpose_words",
    "unpack_words",
    "weighted_sum",
    "word_count",
]
