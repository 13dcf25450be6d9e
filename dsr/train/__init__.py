"""Training: recipes, the trainer with its run folder, hybrid training, several processes."""

from dsr.train.build import build_network, learning_rate, make_optimizer, neuron_of
from dsr.train.callbacks import Callback, StopEarly
from dsr.train.memory import StepMemory, step_memory
from dsr.train.metrics import Metric
from dsr.train.model import Model, load, save
from dsr.train.statistics import estimate_statistics
from dsr.train.steps import accuracy, compute_gradients, measure, train_step
from dsr.train.trainer import Trainer

__all__ = [
    "Callback",
    "Metric",
    "Model",
    "StepMemory",
    "StopEarly",
    "Trainer",
    "accuracy",
    "build_network",
    "compute_gradients",
    "estimate_statistics",
    "learning_rate",
    "load",
    "make_optimizer",
    "measure",
    "neuron_of",
    "save",
    "step_memory",
    "train_step",
]
