"""A network for vectors: fully connected spiking layers."""

from __future__ import annotations

from math import prod

from dsr.models.blocks import MakeNeuron
from dsr.nn.containers import Sequential
from dsr.nn.convolution import Linear
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer
from dsr.nn.norm import BatchNorm


def mlp(
    make_neuron: MakeNeuron, features: tuple[int, ...], classes: int, width: int = 128, depth: int = 2
) -> Sequential:
    """``Linear, BatchNorm, neurons`` for each hidden layer, and a linear read-out, whose mean current is the output.

    Parameters
    ----------
    make_neuron : callable
        Gives a new neuron layer.
    features : tuple of int
        Of the samples: vectors, (N,), or images, which are flattened.
    classes : int
        Outputs.
    width : int
        Neurons of a hidden layer.
    depth : int
        Hidden layers.
    """
    if not isinstance(depth, int) or depth < 1:
        raise ValueError(f"mlp: argument 'depth': expected an integer >= 1, got {depth!r}")
    layers: dict[str, Layer] = {} if len(features) == 1 else {"flatten": Flatten()}
    before = prod(features)
    for number in range(1, depth + 1):
        layers[f"linear{number}"] = Linear(before, width)
        layers[f"bn{number}"] = BatchNorm(width)
        layers[f"neuron{number}"] = make_neuron()
        before = width
    layers["linear"] = Linear(before, classes)
    return Sequential(**layers)
