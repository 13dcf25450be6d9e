"""From a recipe to its network, optimiser and learning rate."""

from __future__ import annotations

from inspect import signature

from dsr import models
from dsr.nn.layer import Layer
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.nn.registry import make_neuron
from dsr.optim.muon import Muon
from dsr.optim.optimizers import SGD, Adam, Optimizer
from dsr.optim.schedule import Epochs, cosine, triangular
from dsr.train.recipe import Recipe


def build_network(recipe: Recipe, features: tuple[int, ...], classes: int) -> Network:
    """The network of a recipe for samples of shape `features`.

    Raises
    ------
    ValueError
        There is no model of this name, or it does not fit the shape of the samples or the recipe.
    """
    if recipe.model not in models.MODELS:
        raise ValueError(f"recipe: key 'model': expected one of {', '.join(models.MODELS)}, got {recipe.model!r}")
    model = models.MODELS[recipe.model]
    options: dict[str, float] = {"width": recipe.width}
    if "dropout" in signature(model).parameters:
        options["dropout"] = recipe.dropout
    elif recipe.dropout:
        raise ValueError(f"recipe: key 'dropout': expected 0, since {recipe.model} has none, got {recipe.dropout}")
    body = model(lambda: neuron_of(recipe), features, classes, **options)
    return Network(body, recipe.timesteps, recipe.seed, recipe.keep_mb << 20)


def neuron_of(recipe: Recipe) -> Layer:
    """A new neuron layer of a recipe."""
    return make_neuron(recipe.neuron, recipe.to_dict())


def make_optimizer(recipe: Recipe, network: Network) -> Optimizer:
    """The optimiser of a recipe."""
    for _, layer in network.body.walk():
        if isinstance(layer, BatchNorm):
            layer.bias.rate = recipe.bias_rate
    if recipe.optimizer == "adam":
        return Adam(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "muon":
        return Muon(network.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    return SGD(network.parameters(), recipe.learning_rate, recipe.momentum, recipe.weight_decay, recipe.nesterov)


def learning_rate(recipe: Recipe, epoch: Epochs, step: int, warmup_epochs: Epochs) -> float:
    """The learning rate of a recipe's step.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    epoch : Fraction or float
        Position: epochs done before, with the part of the one that is under way.
    step : int
        Steps done before, over all epochs.
    warmup_epochs : Fraction or float
        How many epochs the recipe's `warmup_steps` are.
    """
    base, epochs, warmup_steps = recipe.learning_rate, recipe.epochs, recipe.warmup_steps
    if recipe.schedule == "cosine":
        return cosine(epoch, base=base, epochs=epochs, step=step, warmup_steps=warmup_steps)
    return triangular(
        epoch, base=base, epochs=epochs, step=step, warmup_steps=warmup_steps, warmup_epochs=warmup_epochs
    )
