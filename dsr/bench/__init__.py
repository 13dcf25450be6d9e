"""Measurements of ``dsr bench``: medians of repetitions, compared side by side in one run on the machine at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls after one that is not counted."""
    return in_turn([call], repeats)[0]


def in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median wall time of each call, made one after the other `repeats` times, after one that is not counted."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 1):
        for call, measured in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if number:
                measured.append(time.perf_counter() - start)
    return [median(measured) for measured in times]


def in_process(program: str, **environment: str) -> Any:
    """What ``result`` is after `program` ran in a Python of its own, with these environment variables."""
    # -P: the dsr that is installed, not a checkout that the call happens to stand in
    command = [sys.executable, "-P", "-c", f"{program}; import json; print(json.dumps(result))"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return json.loads(done.stdout)
