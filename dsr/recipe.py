"""Recipes: everything that decides a training run, as a TOML file of `dsr/recipes` or a path, with `--set` on top."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

NeuronKind = Literal["if", "lif"]
OptimizerKind = Literal["sgd", "adam"]


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes
    ----------
    data, model : str
        Names in `dsr.data.load` and `dsr.models.build`.
    width : int
        Channels of the model's first convolution.
    neuron : {"if", "lif"}
        Kind of the spiking layers.
    timesteps : int
        T.
    v_threshold, alpha, v_threshold_lower_bound, tau, delta_t : float
        Of the neurons; the last two of LIF only.
    epochs, batch_size : int
        Length of the run.
    optimizer : {"sgd", "adam"}
        SGD has `momentum` and `nesterov`.
    learning_rate, momentum, nesterov, weight_decay
        Of the optimiser.
    warmup_steps : int
        Steps of linear warm-up under the cosine schedule.
    label_smoothing : float
        Of the loss.
    seed : int
        Of initial weights, dropout and the order of samples.
    """

    data: str
    model: str
    width: int = 32
    neuron: NeuronKind = "if"
    timesteps: int = 5
    v_threshold: float = 6.0
    alpha: float = 0.5
    v_threshold_lower_bound: float = 0.01
    tau: float = 1.0
    delta_t: float = 0.1
    epochs: int = 10
    batch_size: int = 128
    optimizer: OptimizerKind = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    warmup_steps: int = 0
    label_smoothing: float = 0.0
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
        text = entry.read_text(encoding="utf-8")
    elif name.endswith(".toml"):
        text = Path(name).read_text(encoding="utf-8")
    else:
        raise ValueError(
            f"recipe '{name}': expected {', '.join(names())} or a path ending in .toml{_nearest(name, names())}"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe '{name}': {error}") from None
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise ValueError(f"--set: expected key=value, got '{change}'")
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
            raise ValueError(f"recipe: unknown key '{key}'{_nearest(key, known)}")
        kind = hints[key]
        if kind is float and type(value) is int:
            value = float(value)
        choices = get_args(kind)
        if choices and value not in choices:
            raise ValueError(f"recipe: key '{key}': expected one of {', '.join(choices)}, got {value!r}")
        if not choices and type(value) is not kind:
            raise ValueError(f"recipe: key '{key}': expected {kind.__name__}, got {value!r}")
        checked[key] = value
    for key in ("data", "model"):
        if key not in checked:
            raise ValueError(f"recipe: key '{key}' is missing")
    for key in ("epochs", "batch_size", "timesteps", "width"):
        if checked.get(key, 1) < 1:
            raise ValueError(f"recipe: key '{key}': expected an integer >= 1, got {checked[key]}")
    return Recipe(**checked)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nearest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
