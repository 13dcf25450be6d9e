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


PAUSE = 0.02
"""Seconds before a turn in which threads that wait for work give up spinning: OpenMP's, PyTorch's, onnxruntime's."""


def in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median wall time of each call, made one after the other `repeats` times.

    Before each that counts come a pause of `PAUSE` and a call that does not count: what ran before it, with threads of
    its own and other data in the caches, has no part in its time.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, measured in zip(calls, times, strict=True):
            time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            call()
            measured.append(time.perf_counter() - start)
    return [median(measured) for measured in times]


def in_process(program: str, **environment: str) -> Any:
    """What ``result`` is after `program` ran in a Python of its own, with these environment variables."""
    # -P: the dsr that is installed, not a checkout that the call happens to stand in
    command = [sys.executable, "-P", "-c", f"{program}; import json; print(json.dumps(result))"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return json.loads(done.stdout)
