"""Recipes: everything that decides a training run, as a TOML file of `dsr/recipes` or a path, with `--set` on top."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from dsr.files.errors import reason
from dsr.ops.arguments import shown

NeuronKind = Literal["if", "lif", "relu"]
OptimizerKind = Literal["sgd", "adam", "muon"]
ScheduleKind = Literal["cosine", "triangular"]


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes
    ----------
    data, model : str
        Names in `dsr.data.load` and `dsr.models.names`.
    width : int
        Channels of the model's first convolution.
    dropout : float
        Probability, where the model has dropout.
    neuron : {"if", "lif", "relu"}
        Kind of the spiking layers; "relu" trains the ordinary twin of the network (with `timesteps` 1).
    timesteps : int
        T.
    v_threshold, alpha, v_threshold_lower_bound, tau, delta_t : float
        Of the neurons; the last two of LIF only.
    train_threshold : bool
        Whether thresholds are trained.
    threshold_gradient_scale : float
        Factor of the gradients of thresholds.
    crop_padding, crop_reflect, flip, image_size, random_resized_crop, frames_by, roll, cutout
        As in `dsr.data.Preparation`.
    alternate_flip : bool
        With `flip`: mirror each sample in every other epoch instead of by chance.
    validation : int
        Samples drawn from the training set to measure with after each epoch, instead of the test set.
    epochs, batch_size : int
        Length of the run.
    optimizer : {"sgd", "adam", "muon"}
        SGD has `momentum` and `nesterov`, Muon `momentum`.
    learning_rate, momentum, nesterov, weight_decay
        Of the optimiser.
    bias_rate : float
        Factor of the learning rate of the biases of batch normalisation.
    schedule : {"cosine", "triangular"}
        Of the learning rate, see `dsr.optim.schedule`.
    warmup_steps : int
        Steps of linear warm-up.
    label_smoothing : float
        Of the loss.
    clip_norm : float
        Largest norm of all gradients together, longer ones are scaled; 0: no limit.
    ema_decay : float
        Measure with an exponential moving average of the weights, that keeps this share at each step; 0: no average.
    sync_batch_norm : bool
        On several ranks (`dsr.train.distributed`): batch normalisation by the statistics of the whole batch, not of
        each rank's part of it.
    test_views : {"one", "mirror", "mirror-shift"}
        Measure with the mean output of each image and its mirror image, or also of both shifted by a pixel each way.
    keep_mb : int
        Memory for output currents in training, in MiB (`Network`): more is faster, results are the same.
    start_quantile : float
        With weights of a ReLU network to start from: the quantile of its activations that become thresholds.
    start_batches : int
        On so many training batches.
    seed : int
        Of initial weights, dropout, augmentation and the order of samples.
    """

    data: str
    model: str
    width: int = 64
    dropout: float = 0.0
    neuron: NeuronKind = "if"
    timesteps: int = 5
    v_threshold: float = 6.0
    alpha: float = 0.5
    v_threshold_lower_bound: float = 0.01
    tau: float = 1.0
    delta_t: float = 0.1
    train_threshold: bool = True
    threshold_gradient_scale: float = 1.0
    crop_padding: int = 0
    crop_reflect: bool = False
    flip: bool = False
    alternate_flip: bool = False
    image_size: int = 0
    random_resized_crop: bool = False
    frames_by: Literal["number", "time"] = "number"
    roll: int = 0
    cutout: int = 0
    validation: int = 0
    epochs: int = 10
    batch_size: int = 128
    optimizer: OptimizerKind = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    bias_rate: float = 1.0
    schedule: ScheduleKind = "cosine"
    warmup_steps: int = 0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    sync_batch_norm: bool = False
    test_views: Literal["one", "mirror", "mirror-shift"] = "one"
    keep_mb: int = 128
    start_quantile: float = 1.0
    start_batches: int = 4
    seed: int = 0

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
        ``key=value`` each, the value in TOML's syntax (a bare word is a string).

    Raises
    ------
    ValueError
        Unknown recipe or key (with the nearest valid one), or a value of the wrong type.
    OSError
        The file cannot be read.
    """
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
        values = tomllib.loads(content.decode("utf-8"))
        if not changes:
            return from_dict(values)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"recipe {shown(name)}: {reason(error).removeprefix('recipe: ')}") from None
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set: expected key=value, got {shown(change)}")
        values[key.strip()] = _toml_value(value.strip())
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, checked.

    Raises
    ------
    ValueError
        A key is unknown or missing, or a value is of the wrong type.
    """
    hints = get_type_hints(Recipe)
    known = [field.name for field in fields(Recipe)]
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"recipe: unknown key {shown(key)}{_nearest(key, known)}")
        kind = hints[key]
        if kind is float and type(value) is int and abs(value) < 1 << 1023:  # beyond it there is no float
            value = float(value)
        choices = get_args(kind)
        if choices and not (isinstance(value, str) and value in choices):
            raise ValueError(f"recipe: key '{key}': expected one of {', '.join(choices)}, got {shown(value)}")
        if not choices and type(value) is not kind:
            raise ValueError(f"recipe: key '{key}': expected {kind.__name__}, got {shown(value)}")
        checked[key] = value
    for key in ("data", "model"):
        if key not in checked:
            raise ValueError(f"recipe: key '{key}' is missing")
    made = Recipe(**checked)
    for name, (good, expected) in _RULES.items():
        if not good(getattr(made, name)):
            raise ValueError(f"recipe: key '{name}': expected {expected}, got {shown(getattr(made, name))}")
    if made.neuron == "relu" and made.timesteps != 1:
        raise ValueError(f"recipe: key 'timesteps': expected 1 with neuron = \"relu\", got {made.timesteps}")
    return made


_Rule = tuple[Callable[[Any], bool], str]
_COUNT: _Rule = (lambda value: 1 <= value < 2**31, "an integer in [1, 2**31)")
_NATURAL: _Rule = (lambda value: 0 <= value < 2**31, "an integer in [0, 2**31)")
_NOT_NEGATIVE: _Rule = (lambda value: 0 <= value < inf, "a number >= 0")
_SHARE: _Rule = (lambda value: 0 <= value < 1, "a number in [0, 1)")
_RULES: dict[str, _Rule] = (
    dict.fromkeys(("width", "timesteps", "epochs", "batch_size", "start_batches"), _COUNT)
    | dict.fromkeys(("crop_padding", "image_size", "roll", "cutout", "validation", "warmup_steps", "keep_mb"), _NATURAL)
    | dict.fromkeys(("learning_rate", "weight_decay", "clip_norm", "threshold_gradient_scale"), _NOT_NEGATIVE)
    | dict.fromkeys(("dropout", "label_smoothing", "ema_decay", "momentum"), _SHARE)
    | {
        "seed": (lambda value: value >= 0, "an integer >= 0"),
        "bias_rate": (lambda value: 0 < value < inf, "a number > 0"),
        "start_quantile": (lambda value: 0 < value <= 1, "a number in (0, 1]"),
    }
)
"""What values mean nothing; those of neurons are checked by the neurons."""


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML; or a number of too many digits, or brackets too deep
        return text


def _nearest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
