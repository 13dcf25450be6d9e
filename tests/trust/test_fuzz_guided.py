"""Coverage-guided fuzzing, for 5 s of each kind, or an hour with --long; fuzz.py runs it as long as one likes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import fuzz
import pytest
import sanitizers
from sanitizers import Missing


@pytest.fixture(autouse=True)
def own_runtime() -> None:
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the fuzzers bring sanitizers of their own, this process has another")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "asan"  # test_races.py takes the same objects
    folder.mkdir(exist_ok=True)
    try:
        return sanitizers.fuzzer(folder)
    except Missing as error:
        pytest.skip(str(error))


def kept(tmp_path: Path, outcome: fuzz.Outcome) -> str:
    """What was found, and its inputs in a folder that pytest does not remove."""
    if outcome.findings:
        shutil.copytree(tmp_path / "findings", Path("fuzz-findings"), dirs_exist_ok=True)
    return "\n".join(outcome.findings)


def test_calls_of_the_compiled_entries(
    program, tmp_path, amount: Callable[[int, int], int], figure: Callable[[str], None]
):
    outcome = fuzz.fuzz_arguments(program, tmp_path, amount(5, 3600))
    figure(str(outcome))
    assert not outcome.findings, kept(tmp_path, outcome)
    assert outcome.executions > 100 and outcome.coverage > 300


def test_what_the_entries_must_not_do_is_found(program, tmp_path):
    """A guard that is told to fail at once: the fuzzer reports it, keeps the input and goes on."""
    (tmp_path / "arguments").mkdir()
    (tmp_path / "arguments" / "seed").write_bytes(bytes(64))
    environment = sanitizers.embedded() | {"DSR_FUZZ_FAIL": "1"}
    command = [program, "-runs=1", f"-artifact_prefix={tmp_path}/", tmp_path / "arguments"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert finished.returncode != 0 and "FINDING" in finished.stderr
    assert list(tmp_path.glob("crash-*"))


def test_files_given_to_their_readers(tmp_path, amount: Callable[[int, int], int], figure: Callable[[str], None]):
    try:
        python = fuzz.atheris_python()
    except Missing as error:
        pytest.skip(str(error))
    outcome = fuzz.fuzz_parsers(python, tmp_path, amount(5, 3600))
    figure(str(outcome))
    assert not outcome.findings, kept(tmp_path, outcome)
    assert outcome.executions > 50 and outcome.coverage > 300
