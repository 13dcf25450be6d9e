"""Children of a process that used several threads: the same results, and no hanging.

libgomp's team of threads does not survive a fork; a child that asked for it would wait for ever. Everything runs in a
process of its own, with children that an alarm ends: a hang fails the test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from patience import patiently

from dsr import _core

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run_scenario(name, count, limit):
    """What a scenario of processes.py prints."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", str(HERE / "processes.py"), name, str(count)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, error = process.communicate(timeout=patiently(limit))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, error = process.communicate()
        pytest.fail(f"{name}: nothing after {patiently(limit):.0f} s\n{error}")
    assert process.returncode == 0, error
    return json.loads(output), error


def test_ways_to_make_a_process(amount, figure):
    count = amount(1, 10)
    found, error = run_scenario("methods", count, 240 + 30 * count)
    figure(json.dumps(found))
    for method in ("fork", "spawn", "forkserver"):
        assert found[method] == {"right": count}, error
    assert found["fork, threads"] == 1


def test_pools_of_forked_workers(amount, figure):
    count = amount(4, 300)
    found, error = run_scenario("pool", count, 120)
    figure(f"{found['right']} of {count} tasks right")
    assert found["right"] == count, error


def test_forks_while_threads_run(amount, figure):
    """As a data loader does that forks while the rest goes on. Locks that a thread holds are never given back there."""
    count = amount(8, 500)
    found, error = run_scenario("busy", count, 120 + count)
    figure(f"{count} forks: {found}")
    assert found == {"right": count}, error


def test_families(figure):
    found, error = run_scenario("families", 1, 200)
    wrong = {what: became for what, became in found.items() if became != "right"}
    figure(f"{len(found)} kinds of relatives, {len(wrong)} wrong {wrong or ''}".strip())
    assert not wrong, error


def test_free_threaded_python(figure):
    """Python without the GIL: the limited API, which the extension uses, does not exist there in 3.13 and 3.14."""
    source = ROOT / "csrc" / "python" / "module.c"
    declared = source.is_file() and "Py_mod_gil" in source.read_text(encoding="utf-8").replace("Py_MOD_GIL", "")
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        figure(
            f"not tried: Python {sys.version.split()[0]} here has the GIL; dsr._core is {Path(_core.__file__).name}, "
            f"which free-threaded Python 3.13 and 3.14 do not load, and declares {'' if declared else 'no '}Py_mod_gil"
        )
        return
    enabled = sys._is_gil_enabled()
    figure(f"free-threaded Python {sys.version.split()[0]}: the GIL is {'on' if enabled else 'off'} with dsr._core")
    assert enabled != declared
