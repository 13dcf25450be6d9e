"""What `malloc` does with freed arrays, in a process of its own, by counting the pages it has to ask for."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import dsr

def faults(repeats):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        np.ones(20_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first, can = faults(20), dsr.keep_freed_memory()
faults(1)
print(can, first, faults(20), flush=True)
ThreadPoolExecutor(1).submit(faults, 3).result()  # other threads have no such heap, and must do without
"""


def test_freed_arrays_are_used_again():
    done = subprocess.run([sys.executable, "-P", "-c", SCRIPT], capture_output=True, text=True, check=True)
    can, mapped, kept = done.stdout.split()
    if can == "False":
        assert platform.libc_ver()[0] != "glibc" or "LD_PRELOAD" in os.environ
        pytest.skip("this C library's malloc cannot be told what to keep")
    assert int(mapped) >= 20 * 38  # 80 MB each time: 38 pages of 2 MB, or 19,531 of 4 KB
    assert int(kept) <= 19
