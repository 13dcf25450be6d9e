"""A progress bar where tqdm is installed and somebody watches; the plain loop otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], title: str) -> Iterable[Item]:
    """`items`, with a bar on standard error that vanishes at the end."""
    if not sys.stderr.isatty() or find_spec("tqdm") is None:
        return items
    from tqdm import tqdm

    return tqdm(items, desc=title, leave=False, unit="batch")
