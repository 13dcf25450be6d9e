"""Coverage-guided fuzzing of the compiled entries and of everything that reads files.

``python tests/trust/fuzz.py --seconds 3600`` runs fuzz_arguments.c, then fuzz_parsers.py, for an hour each, and prints
executions, coverage and findings; it ends with 1 if there are any. Inputs that were found stay in ``--folder`` (by
default fuzz-findings in the current folder), where the next run goes on from the same corpus. The first needs clang,
the second atheris, of PyPI, in this Python or in the one that ``DSR_ATHERIS`` names.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import sanitizers
from sanitizers import HERE, ROOT, Missing

MOST_CRASHES = 20
FLAGS = ["-max_len=512", "-len_control=0", "-timeout=120", "-detect_leaks=0", "-print_final_stats=1", "-seed=1"]


class Outcome(NamedTuple):
    """What a run did."""

    executions: int
    coverage: int
    findings: list[str]
    """The text of each, and the file of its input."""

    def __str__(self) -> str:
        return f"{self.executions:,} executions, {self.coverage:,} branches covered, {len(self.findings)} findings"


def fuzz_arguments(program: Path, folder: Path, seconds: int) -> Outcome:
    """Calls of the compiled entries; after a crash it goes on."""
    corpus, kept = folder / "arguments", folder / "findings"
    for each in (corpus, kept):
        each.mkdir(parents=True, exist_ok=True)
    executions = coverage = 0
    findings: list[str] = []
    end = time.monotonic() + seconds
    while (left := round(end - time.monotonic())) > 0 and len(findings) < MOST_CRASHES:
        command = [program, *FLAGS, f"-max_total_time={left}", f"-artifact_prefix={kept}/", corpus]
        text = _run([*map(str, command)], sanitizers.embedded(), seconds)
        executions, coverage = executions + _executions(text), max(coverage, _coverage(text))
        crash = re.search(r"Test unit written to (\S+/(?:crash|timeout|oom|leak)-\S+)", text)
        if crash is None:
            if "DONE" not in text:
                findings.append(f"the fuzzer ended before its time: {text[-2000:]}")
            break
        findings.append(f"{_first_report(text)}\n  input kept as {crash[1]}")
    return Outcome(executions, coverage, findings)


def fuzz_parsers(python: str, folder: Path, seconds: int) -> Outcome:
    """Files given to their readers."""
    corpus, kept = folder / "files", folder / "findings"
    command = [python, str(HERE / "fuzz_parsers.py"), "--seconds", str(seconds), "--corpus", str(corpus)]
    text = _run([*command, "--findings", str(kept)], parsers_environment(), seconds)
    findings = re.findall(r"^FINDING .*\n.*input kept as \S+", text, re.MULTILINE)
    findings += [
        f"{_first_report(text)}\n  input kept as {file}"
        for file in re.findall(r"written to (\S+/(?:crash|timeout|oom)-\S+)", text)
    ]
    if "DONE" not in text and not findings:
        findings.append(f"the fuzzer ended before its time: {text[-2000:]}")
    return Outcome(_executions(text), _coverage(text), findings)


def parsers_environment() -> dict[str, str]:
    """The tree's own dsr, whatever Python has atheris."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def atheris_python() -> str:
    """A Python that has atheris, and what dsr needs."""
    own = os.environ.get("DSR_ATHERIS")
    if own is None and find_spec("atheris") is None:
        raise Missing("atheris is not installed (pip install atheris, or DSR_ATHERIS names a Python that has it)")
    return own or sys.executable


def _run(command: list[str], environment: dict[str, str], seconds: int) -> str:
    limit = 3 * seconds + 600
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=limit, errors="replace"
    )
    return finished.stdout


def _executions(text: str) -> int:
    return int(found[1]) if (found := re.search(r"number_of_executed_units: (\d+)", text)) else 0


def _coverage(text: str) -> int:
    return max(map(int, re.findall(r" cov: (\d+)", text)), default=0)


def _first_report(text: str) -> str:
    found = re.search(r"^.*(?:FINDING|runtime error|ERROR: ).*$", text, re.MULTILINE)
    return found[0] if found else text[-500:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing.")
    parser.add_argument("--seconds", type=int, default=60, help="of each of the two")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-findings"), help="corpus and findings stay here")
    options = parser.parse_args()
    found = 0
    for name in ("arguments", "parsers"):
        build = Path(tempfile.mkdtemp(prefix="dsr-fuzz-"))
        try:
            if name == "arguments":
                outcome = fuzz_arguments(sanitizers.fuzzer(build), options.folder, options.seconds)
            else:
                outcome = fuzz_parsers(atheris_python(), options.folder, options.seconds)
        except Missing as error:
            print(f"{name}: left out: {error}")
            continue
        finally:
            shutil.rmtree(build)
        print(f"{name}: {outcome}", *outcome.findings, sep="\n", flush=True)
        found += len(outcome.findings)
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
