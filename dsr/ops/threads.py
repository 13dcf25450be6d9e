"""Threads of the compiled part."""

from __future__ import annotations

import os

from dsr import _core


def get_num_threads() -> int:
    """Threads that the compiled part uses."""
    return _core.threads()


def set_num_threads(threads: int) -> None:
    """Set the threads of the compiled part, for every Python thread; results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        `threads` is not an integer in [1, 1024].
    """
    _core.set_threads(threads)


# A forked child usually has brothers on the other processors; it may ask for more threads.
os.register_at_fork(after_in_child=lambda: _core.set_threads(1))
