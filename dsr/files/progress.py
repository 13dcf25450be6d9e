"""Progress of a loop: a bar in a terminal where tqdm is installed; otherwise a line per minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 60.0


def progress(
    items: Iterable[Item],
    title: str,
    total: int,
    done: int = 0,
    note: Callable[[], str] = str,
    say: Callable[[str], object] = print,
    unit: str = "batch",
) -> Iterator[Item]:
    """`items`, with a bar on standard error that vanishes at the end, or lines given to `say`.

    Parameters
    ----------
    items : iterable
        What is left to do.
    title : str
        Of the loop.
    total, done : int
        Items in all, and done before.
    note : callable
        Gives a few words more, such as the loss so far.
    say : callable
        Gets the lines.
    unit : str
        What an item is.
    """
    if sys.stderr.isatty() and find_spec("tqdm") is not None:
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=title, leave=False, unit=unit) as bar:
            for item in items:
                yield item
                bar.set_postfix_str(note(), refresh=False)
                bar.update()
        return
    started = spoke = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - spoke >= SECONDS_BETWEEN_LINES:
            spoke = now
            left = (now - started) / number * (total - done - number)
            say(f"{title}  {done + number}/{total}  {note()}  {duration(left)} left".replace("    ", "  "))


def duration(seconds: float) -> str:
    """Such as ``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
