"""dsr: spiking neural networks trained by Differentiation on Spike Representation, on the CPU.

>>> import dsr
>>> net = dsr.Network(dsr.Sequential(dsr.Linear(64, 10), dsr.BatchNorm(10), dsr.IF(1.0)), timesteps=5)

`dsr.functional` has the neurons, gradients and encoders as functions on NumPy arrays; the layers here are built on
the same kernels. `dsr train digits` on the command line trains a first network.
"""

from importlib.metadata import version as _version

from dsr import functional, nir
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv2d, Linear
from dsr.nn.dropout import Dropout
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer, Parameter
from dsr.nn.losses import cross_entropy
from dsr.nn.network import Network, spike_rates
from dsr.nn.neurons import IF, LIF
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool2d
from dsr.nn.relu import ReLU
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain
from dsr.ops import _openmp as _openmp  # first: it decides how the compiled part is loaded
from dsr.ops.memory import keep_freed_memory
from dsr.ops.threads import get_num_threads, set_num_threads
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam
from dsr.sklearn.classifier import SpikingClassifier
from dsr.weights.loading import load_state

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
    "SpikingClassifier",
    "cross_entropy",
    "functional",
    "get_num_threads",
    "keep_freed_memory",
    "load_state",
    "nir",
    "set_num_threads",
    "spike_rates",
]
