"""From a recipe to its network, loss, optimiser and learning rate, and to what it names of the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dsr import models
from dsr.data.mixing import Mixing
from dsr.data.samples import Draws
from dsr.files import reference
from dsr.nn import losses
from dsr.nn.dropout import Dropout
from dsr.nn.layer import Layer, Parameter
from dsr.nn.network import Network
from dsr.nn.norm import BatchNorm
from dsr.nn.registry import make_neuron
from dsr.ops import Values
from dsr.optim.optimizers import Optimizer
from dsr.optim.registry import optimizer_named
from dsr.optim.schedule import Epochs, cosine, triangular
from dsr.train.callbacks import Callback
from dsr.train.metrics import Loss
from dsr.train.recipe import REFERENCES, Recipe

Build: TypeAlias = "Callable[..., Layer]"
"""``build(make_neuron, features, classes, **options)``: the layers of a network, as the functions of `dsr.models`."""
Augment: TypeAlias = "Callable[[Values, Draws], Values]"
MakeOptimizer: TypeAlias = "Callable[[Iterable[tuple[str, Parameter]]], Optimizer]"

LOSSES = {"classification": "cross_entropy", "multilabel": "binary_cross_entropy", "regression": "mse"}
"""What ``loss = "auto"`` is for each task."""


def build_network(recipe: Recipe, features: tuple[int, ...], classes: int, build: Build | None = None) -> Network:
    """The network of a recipe for samples of shape `features`.

    Parameters
    ----------
    recipe : Recipe
        Its `model` names a model or refers to a function of your own, which is run.
    features : tuple of int
        Shape of a sample.
    classes : int
        Number of outputs.
    build : callable, optional
        Your own function, instead of that which the recipe names.

    Raises
    ------
    TypeError, ValueError
        There is no model of this name, it does not fit the shape of the samples or the recipe, or your function does
        not take these arguments or gives no layer.
    """
    body = body_of(recipe, features, classes, build)
    return Network(body, recipe.timesteps, recipe.seed, recipe.keep_mb << 20, weight_bits=recipe.weight_bits)


def body_of(recipe: Recipe, features: tuple[int, ...], classes: int, build: Build | None = None) -> Layer:
    """The layers of `build_network`; those that were not made with a choice of their own take the recipe's."""
    body = _body_of(recipe, features, classes, build)
    for _, layer in body.walk():
        if isinstance(layer, BatchNorm):
            layer.take(recipe.norm_gradient, recipe.norm_variance)
        elif isinstance(layer, Dropout):
            layer.take(recipe.dropout_mask)
    return body


def _body_of(recipe: Recipe, features: tuple[int, ...], classes: int, build: Build | None) -> Layer:
    arguments = (lambda: neuron_of(recipe), features, classes)
    if build is None and reference.is_reference(recipe.model):
        build = reference.resolve(recipe.model, "recipe: key 'model'")
    if build is not None:
        body: Any = reference.call(build, "recipe: key 'model'", arguments, recipe.model_options)
        if not isinstance(body, Layer):
            hint = "; give its body, the recipe has timesteps and seed" if isinstance(body, Network) else ""
            raise TypeError(
                f"recipe: key 'model': expected {reference.name_of(build)} to give a layer, such as dsr.Sequential, "
                f"got {type(body).__name__}{hint}"
            )
        return body
    if recipe.model not in models.MODELS:
        names = ", ".join(models.MODELS)
        raise ValueError(f"recipe: key 'model': expected one of {names} or FILE.py:NAME, got {recipe.model!r}")
    model = models.MODELS[recipe.model]
    options: dict[str, Any] = {"width": recipe.width}
    known = signature(model).parameters
    if "dropout" in known:
        options["dropout"] = recipe.dropout
    elif recipe.dropout:
        raise ValueError(f"recipe: key 'dropout': expected 0, since {recipe.model} has none, got {recipe.dropout}")
    if unknown := recipe.model_options.keys() - known:
        raise ValueError(f"recipe: key 'model_options': {recipe.model} has no option {', '.join(sorted(unknown))}")
    return model(*arguments, **options | recipe.model_options)


def neuron_of(recipe: Recipe) -> Layer:
    """A new neuron layer of a recipe."""
    return make_neuron(recipe.neuron, recipe.to_dict())


def make_loss(recipe: Recipe, loss: Loss | None = None) -> Loss:
    """The loss of a recipe: of its task, by name, or by reference.

    Raises
    ------
    ValueError
        There is no loss of this name, it does not take the options, or a task of one's own has none.
    """
    if loss is not None:
        return partial(loss, **recipe.loss_options) if recipe.loss_options else loss
    options = dict(recipe.loss_options)
    if reference.is_reference(recipe.loss):
        own = reference.resolve(recipe.loss, "recipe: key 'loss'")
    else:
        name = LOSSES.get(recipe.task, "") if recipe.loss == "auto" else recipe.loss
        if name.startswith("_") or getattr(getattr(losses, name, None), "__module__", "") != losses.__name__:
            raise ValueError(
                f"recipe: key 'loss': expected a function of dsr.nn.losses or FILE.py:NAME with task = {recipe.task}, "
                f"got {recipe.loss!r}"
            )
        own = getattr(losses, name)
        if name == "cross_entropy" and recipe.label_smoothing:
            options = {"label_smoothing": recipe.label_smoothing} | options
    try:
        signature(own).bind(None, None, **options)
    except TypeError as error:
        raise ValueError(f"recipe: key 'loss_options': {reference.name_of(own)}{signature(own)}: {error}") from None
    return partial(own, **options) if options else own


def make_augment(recipe: Recipe, augment: Augment | None = None) -> Augment | None:
    """What changes batches of training samples, besides what the data do; None: nothing."""
    if augment is None and not recipe.augment:
        return None
    own = augment or reference.resolve(recipe.augment, "recipe: key 'augment'")

    def changed(images: Values, draws: Draws) -> Values:
        result: NDArray[Any] = reference.call(own, "recipe: key 'augment'", (images, draws), recipe.augment_options)
        if not isinstance(result, np.ndarray) or result.shape != images.shape:
            found = result.shape if isinstance(result, np.ndarray) else type(result).__name__
            raise ValueError(f"recipe: key 'augment': expected a batch of shape {images.shape}, got {found}")
        return result

    return changed


def make_mixing(recipe: Recipe, features: tuple[int, ...], classes: int, loss: Loss | None = None) -> Mixing | None:
    """What mixes training samples and their labels; None: nothing.

    A loss of your own gets shares of the classes, (B, classes), in the place of class numbers.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    features : tuple of int
        Shape of a sample.
    classes : int
        Number of outputs.
    loss : callable, optional
        Given as an object, instead of the recipe's.

    Raises
    ------
    ValueError
        The task or the loss cannot take mixed labels, or the samples are no images.
    """
    if not recipe.mixup and not recipe.cutmix:
        return None
    key = "mixup" if recipe.mixup else "cutmix"
    if recipe.task != "classification":
        raise ValueError(f"recipe: key '{key}': expected 0 with task = {recipe.task}: only classes are mixed")
    own = (
        loss
        if loss is not None
        else getattr(losses, LOSSES[recipe.task] if recipe.loss == "auto" else recipe.loss, None)
    )
    if own in (losses.mse, losses.binary_cross_entropy):
        raise ValueError(
            f"recipe: key '{key}': expected 0 with the loss {reference.name_of(own)}: of the losses of dsr, only "
            "cross_entropy takes mixed labels of classes"
        )
    if "ignore_label" in recipe.loss_options:
        raise ValueError(f"recipe: key '{key}': expected 0 with ignore_label: mixed labels are no class numbers")
    if recipe.cutmix and len(features) != 3:
        raise ValueError(f"recipe: key 'cutmix': expected 0, since the samples, of shape {features}, are no images")
    return Mixing(classes, len(features), recipe.mixup, recipe.cutmix)


def make_callbacks(recipe: Recipe, callbacks: Sequence[Callback] = ()) -> list[Callback]:
    """The callbacks that are given, and those of the recipe."""
    made: Any = []
    if recipe.callbacks:
        own = reference.resolve(recipe.callbacks, "recipe: key 'callbacks'")
        made = reference.call(own, "recipe: key 'callbacks'", (), recipe.callbacks_options)
    every = [*callbacks, *(made if isinstance(made, list | tuple) else [made])]
    for callback in every:
        if not isinstance(callback, Callback):
            raise TypeError(f"Trainer: callbacks: expected a dsr.train.Callback, got {type(callback).__name__}")
    return every


def references(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What a run keeps of each of its references, see `dsr.files.reference.note`; they are resolved."""
    given = {key: getattr(recipe, key) for key in REFERENCES}
    return {
        key: reference.note(text, f"recipe: key '{key}'") for key, text in given.items() if reference.is_reference(text)
    }


def make_optimizer(recipe: Recipe, network: Network, own: Optimizer | MakeOptimizer | None = None) -> Optimizer:
    """The optimiser of a recipe, or one's own.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    network : Network
        Whose parameters it changes.
    own : Optimizer or callable, optional
        An optimiser of these parameters, or what makes one of them, such as ``dsr.Muon``.

    Raises
    ------
    TypeError, ValueError
        `own` is neither, or its parameters are not those of the network.
    """
    for _, layer in network.body.walk():
        if isinstance(layer, BatchNorm):
            layer.bias.rate = recipe.bias_rate
    if own is not None:
        made: Any = own if isinstance(own, Optimizer) else own(network.parameters())
        if not isinstance(made, Optimizer):
            raise TypeError(f"Trainer: argument 'optimizer': expected an Optimizer, got {type(made).__name__}")
        theirs: Mapping[str, Parameter] = dict(network.parameters())
        if any(theirs.get(name) is not parameter for name, parameter in made.parameters.items()):
            raise ValueError("Trainer: argument 'optimizer': expected one of this network's parameters, got others")
        return made
    return optimizer_named(recipe.optimizer, network.parameters(), vars(recipe))


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
