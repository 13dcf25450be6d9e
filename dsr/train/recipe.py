"""Recipes: everything that decides a training run, as a TOML file of `dsr/recipes` or a path, with `--set` on top.

Five keys also take a reference to code of your own, ``"FILE.py:NAME"`` or ``"package.module:NAME"``, and a table of
options that are passed on to it. TOML cannot have a key that is a string and a table, so the table has a name of its
own; on the command line both spellings do, ``--set model.depth=3`` and ``--set model_options.depth=3``::

    model = "mynet.py:build"
    [model_options]
    depth = 3

| key | what is called | what it gives |
|---|---|---|
| `data` | ``load(path, preparation, **options)`` | a `dsr.data.DataSet` |
| `model` | ``build(make_neuron, features, classes, **options)`` | a `dsr.Layer`, as those of `dsr.models` |
| `loss` | ``loss(rates, targets, **options)`` | its value, the mean over the batch, and its gradient by the rates |
| `augment` | ``augment(batch, draws, **options)`` | the training batch, changed by ``draws``, (B, 8) in [0, 1) |
| `callbacks` | ``make(**options)`` | a `dsr.train.Callback`, or a list of them |

A file is looked for beside the recipe; of ``--set``, in the working directory. A recipe with references runs that code.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field
from difflib import get_close_matches
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from dsr import data
from dsr.data.options import (
    COUNT,
    NATURAL,
    NOT_NEGATIVE,
    PORTION,
    POSITIVE,
    SEED,
    SHARE,
    Choices,
    Option,
    Range,
    With,
    check,
    documented,
    options,
)
from dsr.data.samples import SampleOptions
from dsr.files.errors import reason
from dsr.files.reference import absolute, is_reference
from dsr.nn.dropout import Mask
from dsr.nn.norm import NormGradient, NormVariance
from dsr.nn.registry import NEURONS, SPIKING, kinds_with
from dsr.ops.arguments import shown
from dsr.ops.neurons import MOST_LEVELS
from dsr.optim.registry import OPTIMIZERS
from dsr.train.views import Views

ScheduleKind = Literal["cosine", "triangular"]

REFERENCES = ("data", "model", "loss", "augment", "callbacks")
"""Keys that take references; each has a table of options, ``model_options`` and so on."""

_SPIKING, _LEAKY = With("neuron", SPIKING), With("neuron", kinds_with("tau"))
_MOMENTUM = With("optimizer", kinds_with("momentum", OPTIMIZERS))
_NESTEROV = With("optimizer", kinds_with("nesterov", OPTIMIZERS))
_WEIGHT_BITS = Range("0 or an integer from 2 to 8", lambda value: value == 0 or 2 <= value <= 8)
_LEVELS = Range("an integer in [1, 255]", lambda value: 1 <= value <= MOST_LEVELS)
_SIDES = Range(
    "a table of sides in pixels by epochs done, such as {0 = 96, 4 = 128}",
    lambda values: all(0 <= epoch < 2**31 and 1 <= side < 2**31 for epoch, side in values.items()),
)
_MIXED = Range("0 or a number in [0.01, 100]", lambda value: value == 0 or 0.01 <= value <= 100)
_ALPHA = Range("a number in [2**-20, 1]", lambda value: 2.0**-20 <= value <= 1)


@documented
@dataclass(frozen=True, kw_only=True)
class Recipe(SampleOptions):
    """A training run.

    Every field is an option: a line with its type, range, documentation and default, see `dsr.data.options`. Values
    are checked whenever a recipe is made, also by `dataclasses.replace`; a wrong one is a ValueError.
    """

    data: Annotated[str, "The data set: a name of `dsr.data.names()`, or a reference."]
    data_options: Annotated[dict[str, Any], "Passed on to data of your own."] = field(default_factory=dict)
    model: Annotated[str, "The network: a name of `dsr.models.names()`, or a reference."]
    model_options: Annotated[dict[str, Any], "Passed on to the model."] = field(default_factory=dict)
    width: Annotated[int, COUNT, "Channels of the model's first convolution."] = 64
    dropout: Annotated[float, SHARE, "Probability, where the model has dropout."] = 0.0
    dropout_mask: Annotated[Mask, "Dropout draws anew at every step, or once for all steps of a sample."] = "step"
    norm_gradient: Annotated[NormGradient, "Gradient of batch normalisation: of every step, or without time."] = "exact"
    norm_variance: Annotated[
        NormVariance, With("norm_gradient", ("rate",)), "Its variance: over all steps, or over those of an eighth."
    ] = "steps"
    neuron: Annotated[str, Choices(tuple(NEURONS)), "The neurons; relu: the ordinary twin, with timesteps 1."] = "if"
    timesteps: Annotated[int, COUNT, "T; of event recordings also the number of frames."] = 5
    v_threshold: Annotated[float, POSITIVE, _SPIKING, "Initial threshold of the neurons."] = 6.0
    alpha: Annotated[float, _ALPHA, _SPIKING, "Share of the threshold at which a neuron fires."] = 0.5
    levels: Annotated[int, _LEVELS, _SPIKING, "Spikes that a neuron emits at a step at most: graded spikes."] = 1
    v_threshold_lower_bound: Annotated[float, POSITIVE, _SPIKING, "Thresholds never fall below it."] = 0.01
    tau: Annotated[float, POSITIVE, _LEAKY, "Time constant of the neurons."] = 1.0
    delta_t: Annotated[float, POSITIVE, _LEAKY, "Length of a time step, in the unit of tau."] = 0.1
    train_threshold: Annotated[bool, _SPIKING, "Whether thresholds are trained."] = True
    threshold_gradient_scale: Annotated[float, NOT_NEGATIVE, _SPIKING, "Factor of the gradients of thresholds."] = 1.0
    alternate_flip: Annotated[bool, With("flip"), "Mirror in every other epoch instead of by chance."] = False
    image_sizes: Annotated[
        dict[int, int], _SIDES, "Side of training images from an epoch on, before the first one image_size."
    ] = field(default_factory=dict)
    validation: Annotated[int, NATURAL, "Training samples held out to measure with, instead of the test set."] = 0
    epochs: Annotated[int, COUNT, "Passes through the training samples."] = 10
    batch_size: Annotated[int, COUNT, "Samples of a step, on all ranks together, at least 2."] = 128
    accumulate: Annotated[
        int, COUNT, "Compute a batch in so many parts, one after the other, as so many ranks would: less memory."
    ] = 1
    optimizer: Annotated[str, Choices(tuple(OPTIMIZERS)), "The optimiser."] = "sgd"
    learning_rate: Annotated[float, NOT_NEGATIVE, "Largest learning rate."] = 0.1
    momentum: Annotated[float, SHARE, _MOMENTUM, "Momentum of the optimiser."] = 0.9
    nesterov: Annotated[bool, _NESTEROV, "Nesterov's form of momentum."] = False
    weight_decay: Annotated[float, NOT_NEGATIVE, "Weight decay of the optimiser."] = 5e-4
    bias_rate: Annotated[float, POSITIVE, "Factor of the learning rate of the biases of batch normalisation."] = 1.0
    schedule: Annotated[ScheduleKind, "Course of the learning rate, see `dsr.optim.schedule`."] = "cosine"
    warmup_steps: Annotated[int, NATURAL, "Steps in which the learning rate rises linearly at the start."] = 0
    loss: Annotated[str, "auto (by the task), a function of `dsr.nn.losses`, or a reference."] = "auto"
    loss_options: Annotated[dict[str, Any], "Passed on to the loss."] = field(default_factory=dict)
    augment: Annotated[str, "A reference: changes batches of training samples."] = ""
    augment_options: Annotated[dict[str, Any], With("augment"), "Passed on to it."] = field(default_factory=dict)
    callbacks: Annotated[str, "A reference: what is called after steps and epochs."] = ""
    callbacks_options: Annotated[dict[str, Any], With("callbacks"), "Passed on to it."] = field(default_factory=dict)
    teacher: Annotated[str, "A run folder or file of `dsr.load`: its outputs are learnt, too."] = ""
    teacher_share: Annotated[float, PORTION, With("teacher"), "Share of that in the loss."] = 0.5
    label_smoothing: Annotated[
        float, SHARE, With("loss", ("auto", "cross_entropy")), "Share of the target that is spread over all classes."
    ] = 0.0
    mixup: Annotated[
        float, _MIXED, "Mix each training sample with another; alpha of the Beta distribution of its share; 0: do not."
    ] = 0.0
    cutmix: Annotated[
        float, _MIXED, "Replace a box of each training image by that of another; alpha of the area it keeps; 0: do not."
    ] = 0.0
    clip_norm: Annotated[float, NOT_NEGATIVE, "Largest norm of all gradients together; 0: no limit."] = 0.0
    ema_decay: Annotated[float, SHARE, "Measure with a mean of the weights that keeps this share at a step."] = 0.0
    sync_batch_norm: Annotated[bool, "On several ranks: normalise by the whole batch, not by each part."] = False
    test_views: Annotated[Views, "Measure with the mean output over views of an image: `dsr.train.views`."] = "one"
    keep_mb: Annotated[int, NATURAL, "MiB of currents kept for the backward pass: more is faster."] = 128
    start_quantile: Annotated[float, PORTION, "With --from ReLU: quantile of activations that becomes a threshold."] = (
        1.0
    )
    start_batches: Annotated[int, COUNT, "With --from ReLU: training batches to measure these activations on."] = 4
    weight_bits: Annotated[
        int, _WEIGHT_BITS, "Train with weights rounded to so many bits, for ``dsr quantize``; 0: without rounding."
    ] = 0
    seed: Annotated[int, SEED, "Of initial weights, dropout, augmentation and the order of samples."] = 0

    def __post_init__(self) -> None:
        check(self, "recipe: key")
        for name in REFERENCES:
            object.__setattr__(self, name, absolute(getattr(self, name)))
        if self.teacher:
            object.__setattr__(self, "teacher", str(Path(self.teacher).absolute()))
        if self.neuron == "relu" and self.timesteps != 1:
            raise ValueError(f"recipe: key 'timesteps': expected 1 with neuron = \"relu\", got {self.timesteps}")
        if self.norm_variance == "sampled" and self.norm_gradient == "exact":
            raise ValueError(
                "recipe: key 'norm_variance': expected 'steps' with norm_gradient = \"exact\", which reads every step "
                "of every sample in any case, got 'sampled'"
            )
        if self.accumulate > 1 and self.sync_batch_norm:
            raise ValueError(
                f"recipe: key 'accumulate': expected 1 with sync_batch_norm = true, got {self.accumulate}: statistics "
                "of the whole batch need all of it in memory at once"
            )

    @property
    def part_size(self) -> int:
        """Samples of the largest part that a batch is computed in, on one rank; also of a pass that measures."""
        return -(-self.batch_size // self.accumulate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by key."""
        return asdict(self)


def names() -> list[str]:
    """The recipes that come with dsr."""
    return sorted(Path(entry.name).stem for entry in files("dsr").joinpath("recipes").iterdir())


def load(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    name : str
        A name of `names()`, or the path of a TOML file.
    changes : sequence of str
        ``key=value`` each, the value in TOML's syntax; strings need no quotes, ``.1`` is 0.1 and ``True`` is true.
        ``model.depth=3`` changes an option of the model, and so on.

    Raises
    ------
    ValueError
        Unknown recipe or key (with the nearest valid one), or a value of the wrong type.
    OSError
        The file cannot be read.
    """
    folder = Path(name).parent
    entry = files("dsr").joinpath("recipes", f"{name}.toml")
    if entry.is_file():
        content = entry.read_bytes()
    elif name.endswith(".toml"):
        content = Path(name).read_bytes()
    else:
        raise ValueError(
            f"recipe {shown(name)}: expected {', '.join(names())} or a path ending in .toml{_nearest(name, names())}"
        )
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))  # editors on Windows begin files with a byte order mark
        for key in REFERENCES:
            if isinstance(values.get(key), str):
                values[key] = absolute(values[key], folder)
        if not changes:
            return _new(values)
    except (ValueError, RecursionError) as error:
        words = reason(error).removeprefix("recipe: ")
        if dotted := re.search(rf"^\s*({'|'.join(REFERENCES)})\.\w+\s*=".encode(), content, re.MULTILINE):
            key = dotted[1].decode()
            words += f"; options of {key} go into a table of their own, [{key}_options]"
        raise ValueError(f"recipe {shown(name)}: {words}") from None
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set: expected key=value, got {shown(change)}")
        _set(values, key.strip(), value.strip())
    return _new(values)


def _new(values: Mapping[str, Any]) -> Recipe:
    """The recipe of a new run; those of older versions, which are only loaded, may have batches of one sample."""
    made = from_dict(values)
    if made.batch_size < 2:
        raise ValueError(f"recipe: key 'batch_size': expected an integer in [2, 2**31), got {made.batch_size}")
    return made


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """A recipe with changes as those of `load`."""
    values = recipe.to_dict()
    for change in changes:
        key, _, value = change.partition("=")
        _set(values, key.strip(), value.strip())
    return from_dict(values)


def _set(values: dict[str, Any], key: str, word: str) -> None:
    """Change a value, or an option of a reference."""
    table, dot, name = key.partition(".")
    table = table if table.endswith("_options") else f"{table}_options"
    if dot and table.removesuffix("_options") in REFERENCES:
        before = values.get(table, {})
        values[table] = {**(before if isinstance(before, Mapping) else {}), name: _value(word, None)}
    else:
        values[key] = _value(word, options(Recipe).get(key))


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, checked.

    Raises
    ------
    ValueError
        A key is unknown or missing, or a value is of the wrong type or out of range.
    """
    known = options(Recipe)
    for key in values:
        if key not in known:
            hint = _nearest(key, list(known)) or "; 'dsr recipe' lists all keys"
            raise ValueError(f"recipe: unknown key {shown(key)}{hint}")
    for key, option in known.items():
        if option.default is MISSING and key not in values:
            raise ValueError(f"recipe: key '{key}' is missing")
    return Recipe(**values)


_GONE: dict[str, Any] = {"timesteps_drawn": [], "prefix_loss": False}
"""Keys of earlier versions, with the values that did nothing."""


def of_checkpoint(values: Mapping[str, Any]) -> Recipe:
    """`from_dict` of what a checkpoint holds; keys of later versions have their defaults, or what was done before.

    Keys that are gone are left out where they did nothing.
    """
    values = {key: value for key, value in values.items() if key not in _GONE or value != _GONE[key]}
    if values.get("data") == "folder" and values.get("image_size"):
        values = {"same_size": "scale", "jpeg_draft": False, **values}
    return from_dict(values)


def comment(name: str) -> str:
    """The comment at the beginning of a recipe of the package; empty for others and where there is none."""
    entry = files("dsr").joinpath("recipes", f"{name}.toml")
    lines = entry.read_text("utf-8").splitlines() if entry.is_file() else []
    return "\n".join(takewhile(lambda line: line.startswith("#"), lines))


def text(recipe: Recipe | None = None, everything: bool = True) -> str:
    """A recipe as TOML, a line for each key with its documentation; without one the defaults of all keys.

    Parameters
    ----------
    recipe : Recipe, optional
        Whose values.
    everything : bool
        Whether to list the keys that have their defaults, too.
    """
    lines = []
    for name, option in options(Recipe).items():
        value = option.default if recipe is None else getattr(recipe, name)
        if not everything and value == option.default:
            continue
        assigned = f"{name} =" if value is MISSING else f"{name} = {_toml(value)}"
        lines.append(f"{assigned:32}  # {option.documentation}")
    return "\n".join(lines)


def without_effect(recipe: Recipe, started: bool = False) -> list[str]:
    """The keys that were changed from their defaults though nothing in the run reads them, and why, a line each.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    started : bool
        Whether the run starts from the weights of a ReLU network.
    """
    lines = []
    unread = options(SampleOptions).keys() - data.reads(recipe.data)
    for name, option in options(Recipe).items():
        if getattr(recipe, name) == option.default:
            continue
        if name in unread:
            lines.append(f"{name} has no effect with data = {recipe.data}")
        elif option.needs is not None and not option.needs.holds(recipe):
            lines.append(f"{name} has an effect only {option.needs}")
        elif name in ("width", "dropout") and is_reference(recipe.model):
            lines.append(f"{name} has no effect with a model of your own; its options are in model_options")
        elif name == "image_sizes" and (late := [epoch for epoch in recipe.image_sizes if epoch >= recipe.epochs]):
            lines.append(f"image_sizes from epoch {late[0]} on has no effect with epochs = {recipe.epochs}")
        elif name.startswith("start_") and not started:
            lines.append(f"{name} has an effect only with --from")
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        entries = (f"{_key(str(name))} = {_toml(inner)}" for name, inner in value.items())
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _value(text: str, option: Option | None) -> Any:
    """What a word on the command line means."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # not TOML; or a number of too many digits, or brackets too deep
        pass
    kind = option.kind if option else str
    if kind is float and re.fullmatch(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return float(text)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _nearest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
