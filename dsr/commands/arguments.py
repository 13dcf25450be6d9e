"""Arguments that several commands share: what they are called, and what they take."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

from dsr import data
from dsr.data.workers import AUTO
from dsr.ops.arguments import shown
from dsr.train.recipe import Recipe

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"
"""What a command adds its parser to."""

Number = TypeVar("Number", int, float)

DOWNLOADS = ("cifar10", "cifar100")
"""Data sets that ``dsr download`` gets."""


def count(text: str) -> int:
    """An integer >= 1."""
    return _number(text, int, lambda value: 1 <= value < 2**31, "an integer >= 1")


def natural(text: str) -> int:
    """An integer >= 0."""
    return _number(text, int, lambda value: 0 <= value < 2**31, "an integer >= 0")


def workers(text: str) -> int:
    """An integer >= 0, or auto."""
    return AUTO if text == "auto" else _number(text, int, lambda value: 0 <= value < 2**31, "an integer >= 0 or auto")


def positive(text: str) -> float:
    """A number > 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number > 0")


def share(text: str) -> float:
    """A number above 0 and below 1."""
    return _number(text, float, lambda value: 0 < value < 1, "a number between 0 and 1")


def seconds(text: str) -> float:
    """A number >= 0, also infinity."""
    return _number(text, float, lambda value: value >= 0, "a number >= 0")


def _number(text: str, kind: type[Number], good: Callable[[Number], bool], expected: str) -> Number:
    try:
        value = kind(text)
    except ValueError:
        value = kind(-1)
    if not good(value):
        raise ArgumentTypeError(f"expected {expected}, got {shown(text)}")
    return value


CODE = (
    'A recipe or run with references, such as model = "mynet.py:build", runs that code: use only those of people '
    "whose code you would run."
)
"""What the help says of commands that resolve references."""


def add_run(parser: ArgumentParser) -> None:
    """A run folder, and which of its checkpoints."""
    parser.epilog = f"{parser.epilog} {CODE}" if parser.epilog else CODE
    parser.add_argument("folder", type=Path, help="run folder of dsr train")
    parser.add_argument("--best", action="store_true", help="the checkpoint of the best epoch, not the last")


def add_run_data(parser: ArgumentParser) -> None:
    """Where the data of a run are."""
    parser.add_argument("--data", type=Path, metavar="PATH", help="(default: where the run had it from)")
    add_workers(parser)


def add_workers(parser: ArgumentParser) -> None:
    """Processes for images of folders."""
    parser.add_argument(
        "--workers",
        type=workers,
        default=AUTO,
        metavar="N",
        help="processes that decode images of folders (default: auto, as many as help, which is measured)",
    )


def add_changes(parser: ArgumentParser) -> None:
    """Changes of a recipe."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe (dsr recipe lists them), or an option of code it refers to, such as "
        "model.depth=3; repeatable",
    )


def require_data(recipe: Recipe, path: Path | None, otherwise: str = "") -> None:
    """Raise ValueError where a data set has to be found at a path and there is none, saying how to get it."""
    if path is None and data.needs_path(recipe.data):
        download = f"; dsr download {recipe.data} --out FOLDER gets them" if recipe.data in DOWNLOADS else ""
        raise ValueError(f"expected --data PATH, where the files of {recipe.data} are{otherwise}{download}")
