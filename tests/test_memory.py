"""Memory: what a training step leaves behind, and what `malloc` does with freed arrays.

The second is tried in a process of its own, by counting the pages it has to ask for.
"""

import gc
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from plan_table import KINDS, NAMES, network_of

import dsr

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_training_step_frees_its_arrays_at_once(name, kind):
    """Arrays in a circle of references stay until Python looks for circles; steps once took four times the memory."""
    network, data = network_of(name, kind, 1 << 40)
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):  # the second frees what layers hold of the first
            rate = network.forward(data, training=True)
            network.backward(np.ones_like(rate))
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage if isinstance(each, np.ndarray | dsr.nn.currents.Current)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
