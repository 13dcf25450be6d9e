"""ThreadSanitizer and AddressSanitizer see every operation of csrc/, called from C with four threads and from two.

ThreadSanitizer knows OpenMP's barriers through archer, LLVM's tool for that, and passes over what OpenBLAS and OpenMP
themselves do, which are not built with it. The leaks of Python hide those of an extension; here there is no Python, and
LeakSanitizer is on.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sanitizers
from sanitizers import FUZZER, ROOT, THREAD, Missing

from dsr import _core

SHAPES = 12
LIMIT = 3600


@pytest.fixture(autouse=True)
def own_runtime() -> None:
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the programs bring sanitizers of their own, this process has another")


def built(folder: Path, flags: tuple[str, ...]) -> Path:
    try:
        return sanitizers.driver(folder, flags)
    except Missing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def threads_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sanitizers.runtime("libarcher.so") is None:
        pytest.skip("clang comes without libarcher.so, which knows OpenMP's barriers (Debian: libomp-dev)")
    return built(tmp_path_factory.mktemp("tsan"), THREAD)


@pytest.fixture(scope="module")
def memory_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "asan"  # test_fuzz_guided.py takes the same objects
    folder.mkdir(exist_ok=True)
    return built(folder, FUZZER)


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "DSR"))}
    environment |= {
        "OMP_TOOL_LIBRARIES": str(sanitizers.runtime("libarcher.so") or ""),
        "TSAN_OPTIONS": "ignore_noninstrumented_modules=1",
        "ASAN_OPTIONS": "detect_leaks=1:exitcode=67",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=LIMIT, env=environment)


def assert_silent(finished: subprocess.CompletedProcess[str], shapes: int) -> None:
    assert finished.returncode == 0, finished.stderr[-5000:]
    assert "Sanitizer" not in finished.stderr and "runtime error" not in finished.stderr
    assert re.fullmatch(rf"\w+: \d+ operations, {shapes} shapes, 0 differences\n", finished.stdout)


def test_the_driver_calls_every_operation():
    header = (ROOT / "csrc" / "dsr.h").read_text()
    declared = re.findall(r"^dsr_status (dsr_\w+)\(", header, re.MULTILINE)
    called = set(re.findall(r"\b(dsr_\w+)\(", Path(sanitizers.HERE, "race_driver.c").read_text()))
    assert len(declared) > 30 and set(declared) <= called, sorted(set(declared) - called)


def test_a_race_is_reported(threads_driver):
    finished = run(threads_driver, "race")
    assert "WARNING: ThreadSanitizer: data race" in finished.stderr and finished.returncode == 66
    assert "race_driver.c" in finished.stderr


@pytest.mark.parametrize("level", ["scalar", _core.levels()[-1]])
def test_no_races(threads_driver, level, amount: Callable[[int, int], int], figure: Callable[[str], None]):
    shapes = amount(1, SHAPES)
    if level == "scalar" and shapes == 1:
        pytest.skip("the best level only, without --long")
    finished = run(threads_driver, level, str(shapes))
    assert_silent(finished, shapes)
    figure(f"ThreadSanitizer: 0 reports; {finished.stdout.strip()}")


@pytest.mark.parametrize(("what", "words"), [("leak", "LeakSanitizer"), ("overflow", "heap-buffer-overflow")])
def test_leaks_and_overflows_are_reported(memory_driver, what, words):
    finished = run(memory_driver, what)
    assert words in finished.stderr and finished.returncode not in (0, 1)


@pytest.mark.parametrize("level", ["scalar", _core.levels()[-1]])
def test_no_leaks_and_no_bad_memory(
    memory_driver, level, amount: Callable[[int, int], int], figure: Callable[[str], None]
):
    shapes = amount(1, SHAPES)
    if level == "scalar" and shapes == 1:
        pytest.skip("the best level only, without --long")
    finished = run(memory_driver, level, str(shapes))
    assert_silent(finished, shapes)
    figure(f"AddressSanitizer, UndefinedBehaviorSanitizer, LeakSanitizer: 0 reports; {finished.stdout.strip()}")
