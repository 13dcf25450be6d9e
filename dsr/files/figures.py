"""Pictures as files; matplotlib (``pip install dsr[plot]``) makes them where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsr.files import atomic


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure of matplotlib in the format of the path's ending; errors as for `dsr.files.atomic.writing`."""
    with atomic.writing(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:] or "png")
