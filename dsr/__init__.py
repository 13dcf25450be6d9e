"""dsr: spiking neural networks trained by Differentiation on Spike Representation, on the CPU.

>>> import dsr
>>> net = dsr.Network(dsr.Sequential(dsr.Linear(64, 10), dsr.BatchNorm(10), dsr.IF(1.0)), timesteps=5)

`dsr.functional` has the neurons, gradients and encoders as functions on NumPy arrays; the layers here are built on
the same kernels. `dsr train digits` on the command line trains a first network.
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from dsr import functional, nir
from dsr.nn.layer import Layer, Parameter, Residual, Run, Sequential
from dsr.nn.layers import AvgPool2d, Conv2d, Dropout, Flatten, Linear
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network, spike_rates
from dsr.nn.neurons import IF, LIF, ReLU
from dsr.nn.norm import BatchNorm
from dsr.nn.spikes import SpikeTrain
from dsr.ops import _openmp as _openmp  # first: it decides how the compiled part is loaded
from dsr.ops.memory import keep_freed_memory
from dsr.ops.threads import get_num_threads, set_num_threads
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam
from dsr.weights.loading import load_state

if TYPE_CHECKING:
    from dsr.sklearn.classifier import SpikingClassifier as SpikingClassifier

__version__ = _version("dsr")

__all__ = [
    "IF",
    "LIF",
    "SGD",
    "Adam",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "Linear",
    "Muon",
    "Network",
    "Parameter",
    "ReLU",
    "Residual",
    "Run",
    "Sequential",
    "SpikeTrain",
    "cross_entropy",
    "functional",
    "get_num_threads",
    "keep_freed_memory",
    "load_state",
    "nir",
    "set_num_threads",
    "spike_rates",
]


def __getattr__(name: str) -> Any:
    """Import `SpikingClassifier` when it is first asked for, because it needs scikit-learn."""
    if name != "SpikingClassifier":
        raise AttributeError(f"module 'dsr' has no attribute {name!r}")
    from dsr.sklearn.classifier import SpikingClassifier

    return SpikingClassifier
