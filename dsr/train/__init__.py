"""Training: recipes, the trainer with its run folder, hybrid training, several processes."""

from dsr.train.build import build_network, learning_rate, make_optimizer, neuron_of
from dsr.train.steps import accuracy, compute_gradients, train_step
from dsr.train.trainer import Trainer

__all__ = [
    "Trainer",
    "accuracy",
    "build_network",
    "compute_gradients",
    "learning_rate",
    "make_optimizer",
    "neuron_of",
    "train_step",
]
