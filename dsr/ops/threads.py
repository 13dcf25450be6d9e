"""Threads of the compiled part."""

from __future__ import annotations

import os
import sys
import warnings

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

    Warns
    -----
    RuntimeWarning
        `threads` is more than 1, and dsr was built without OpenMP: there is one thread all the same.
    """
    _core.set_threads(threads)
    if threads > 1 and not _core.openmp()[0]:
        warnings.warn(
            f"set_num_threads: argument 'threads': {threads} threads are wanted, but dsr was built without OpenMP and "
            "uses one; on macOS install it with 'brew install libomp' and build dsr again",
            RuntimeWarning,
            stacklevel=2,
        )


# A forked child usually has brothers on the other processors; it may ask for more threads.
if sys.platform != "win32":
    os.register_at_fork(after_in_child=lambda: _core.set_threads(1))
