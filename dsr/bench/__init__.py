"""Measurements of `dsr bench`: medians of repetitions, compared side by side in one run on the machine at hand."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from statistics import median


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of `repeats` calls after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
