"""dsr: spiking neural networks trained by Differentiation on Spike Representation, on the CPU.

>>> import dsr
>>> net = dsr.Network(dsr.Sequential(dsr.Linear(64, 10), dsr.BatchNorm(10), dsr.IF(1.0)), timesteps=5)

`dsr.functional` has the neurons, gradients and encoders as functions on NumPy arrays; the layers here are built on
the same kernels. `dsr.train`, `dsr.data`, `dsr.models`, `dsr.metrics`, `dsr.inspect`, `dsr.nir` and `dsr.bench` are
loaded when they are first used. `dsr train digits` on the command line trains a first network.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from dsr.ops import _openmp as _openmp  # first: it decides how the compiled part is loaded

# isort: split
from dsr import functional
from dsr.nn.branches import Add, Branches, Concat, Identity
from dsr.nn.containers import Residual, Sequential
from dsr.nn.convolution import Conv1d, Conv2d, ConvTranspose2d, Linear
from dsr.nn.dropout import Dropout
from dsr.nn.flatten import Flatten
from dsr.nn.layer import Layer, Parameter
from dsr.nn.losses import binary_cross_entropy, cross_entropy, mse
from dsr.nn.max_pooling import MaxPool1d, MaxPool2d
from dsr.nn.network import Network, spike_rates
from dsr.nn.neurons import IF, LIF
from dsr.nn.norm import BatchNorm
from dsr.nn.pooling import AvgPool1d, AvgPool2d, GlobalAvgPool2d
from dsr.nn.relu import ReLU
from dsr.nn.run import Run
from dsr.nn.spike_residual import SpikeResidual
from dsr.nn.spikes import SpikeTrain
from dsr.nn.upsample import Upsample
from dsr.ops.memory import keep_freed_memory
from dsr.ops.threads import get_num_threads, set_num_threads
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam

if TYPE_CHECKING:
    from dsr import bench, data, inspect, metrics, models, nir, testing, train
    from dsr.deploy.integer_model import IntegerModel as IntegerModel
    from dsr.deploy.integer_model import quantize as quantize
    from dsr.sklearn.classifier import SpikingClassifier as SpikingClassifier
    from dsr.sklearn.regressor import SpikingRegressor as SpikingRegressor
    from dsr.train.model import Model, load, save
    from dsr.train.trainer import Trainer
    from dsr.weights.loading import load_state

    __version__: str

_MODULES = ("bench", "data", "inspect", "metrics", "models", "nir", "testing", "train")
_PARTS = {
    "IntegerModel": "dsr.deploy.integer_model",
    "Model": "dsr.train.model",
    "SpikingClassifier": "dsr.sklearn.classifier",
    "SpikingRegressor": "dsr.sklearn.regressor",
    "Trainer": "dsr.train.trainer",
    "load": "dsr.train.model",
    "load_state": "dsr.weights.loading",
    "quantize": "dsr.deploy.integer_model",
    "save": "dsr.train.model",
}


def __getattr__(name: str) -> _Any:
    """What takes longer to load than most scripts need, when it is first used."""
    if name in _MODULES:
        return _import_module(f"dsr.{name}")
    if name in _PARTS:
        value = getattr(_import_module(_PARTS[name]), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("dsr")
    else:
        raise AttributeError(f"module 'dsr' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS, "__version__"})


__all__ = [
    "IF",
    "LIF",
    "SGD",
    "Adam",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm",
    "Branches",
    "Concat",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "IntegerModel",
    "Layer",
    "Linear",
    "MaxPool1d",
    "MaxPool2d",
    "Model",
    "Muon",
    "Network",
    "Parameter",
    "ReLU",
    "Residual",
    "Run",
    "Sequential",
    "SpikeResidual",
    "SpikeTrain",
    "Trainer",
    "Upsample",
    "bench",
    "binary_cross_entropy",
    "cross_entropy",
    "data",
    "functional",
    "get_num_threads",
    "inspect",
    "keep_freed_memory",
    "load",
    "load_state",
    "metrics",
    "models",
    "mse",
    "nir",
    "quantize",
    "save",
    "set_num_threads",
    "spike_rates",
    "testing",
    "train",
]
