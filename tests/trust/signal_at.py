"""Signals at chosen lines of a training run, where a clock would hardly ever put them."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

from dsr.train.trainer import Trainer

FILES = (
    "dsr/train/trainer.py",
    "dsr/train/steps.py",
    "dsr/train/interrupt.py",
    "dsr/files/checkpoint.py",
    "dsr/train/run_folder.py",
    "dsr/optim/average.py",
    "dsr/optim/optimizers.py",
)


class SignalAt:
    """While it is entered, the trainer's handler is called at the lines of the given numbers.

    A tracer that raises is switched off by Python; a profiler, which is not, switches it on for the next signal.

    Attributes
    ----------
    lines : list of str
        All lines that were run since handlers were set, in order, such as ``optimizers.py:62 gradient_norm``.
    """

    def __init__(self, trainer: Trainer, numbers: list[int], signals: tuple[int, ...] = (signal.SIGINT,)) -> None:
        self.interrupts, self.numbers, self.signals = trainer._interrupts, sorted(numbers), signals
        self.lines: list[str] = []
        self.sent = 0

    def __enter__(self) -> SignalAt:
        self._before = sys.gettrace(), sys.getprofile()
        if len(self.numbers) > 1:
            sys.setprofile(self._profile)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before[0])
        sys.setprofile(self._before[1])

    @staticmethod
    def _watched(frame: FrameType) -> bool:
        name = frame.f_code.co_filename
        return name.endswith((*FILES, "contextlib.py")) and frame.f_code.co_name != "_receive"

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line(frame, event, argument) if self._watched(frame) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event in ("line", "call") and self.interrupts._before:
            name = frame.f_code.co_filename.rpartition("/")[2]
            self.lines.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
            if self.sent < len(self.numbers) and len(self.lines) >= self.numbers[self.sent]:
                self.sent += 1
                self.interrupts._receive(self.signals[self.sent % len(self.signals)], None)
        return self._line

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if sys.gettrace() is None and self.sent < len(self.numbers):
            sys.settrace(self._trace)
            caller: FrameType | None = frame
            while caller is not None:
                if self._watched(caller):
                    caller.f_trace = self._line
                caller = caller.f_back
