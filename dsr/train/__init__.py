"""Training: recipes, the trainer with its run folder, hybrid training, several processes."""

from dsr.train.build import build_network, neuron_of
from dsr.train.trainer import Trainer, accuracy, compute_gradients, learning_rate, make_optimizer, train_step

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
