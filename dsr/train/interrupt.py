"""Signals that ask to stop, as an exception at a moment when a run can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dsr.system import STOP_SIGNALS


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message or f"stopped by {signal.Signals(number).name}")
        self.number = number


class Interrupts:
    """While it is entered, signals that ask to stop raise `Interrupted`; within `held()` they wait for its end.

    These are SIGINT (Ctrl-C), SIGTERM, SIGHUP (a terminal that is closed), and SIGUSR1 and SIGUSR2, which batch systems
    send some time before the end. The last three are left alone where they do something else than end the process:
    ``nohup`` ignores SIGHUP, and the program may have handlers of its own.

    Only the first signal raises at once, so that a second one does not interrupt the save that answers the first. Later
    ones are noted, and are raised when a `held()` ends: the first one may have been lost, since Python ignores what is
    raised in a destructor. Python runs handlers of signals in the main thread only; in other threads entering changes
    nothing.

    Parameters
    ----------
    noted : bool
        Nothing is raised: signals are noted in `waiting` only.
    """

    def __init__(self, noted: bool = False) -> None:
        self._waiting: int | None = None
        self._noted = self._held = noted
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._held = True  # until all handlers are set: __exit__ is not called after an exception in __enter__
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) == signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._receive)
        self._held = self._noted
        return self

    def __exit__(self, *error: object) -> None:
        self._held = True
        for number, handler in reversed(self._before.items()):  # SIGINT last: what was there before may raise
            # None: a handler that was not set from Python, and cannot be set from it
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
        self._held, self._waiting = self._noted, None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self._waiting = self._waiting is None, number
        if first and not self._held:
            raise Interrupted(number)

    @property
    def waiting(self) -> int:
        """Number of the last signal that was received; 0: none."""
        return self._waiting or 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Signals wait until the end of the block, which must not be left half done."""
        outer, self._held = self._held, True
        try:
            yield
        finally:
            self._held = outer
        if self._waiting is not None and not outer:
            raise Interrupted(self._waiting)
