"""The suite on each Python and NumPy that dsr promises to run on: ``python tests/trust/versions.py``.

For every Python of `PYTHONS` found on this machine (``python3.X`` on the path, pyenv's and uv's) and every NumPy of
`NUMPYS` that has a wheel for it: a fresh environment, the abi3 wheel that was built once, and the suite from a copy of
the tree in a temporary folder. Prints a table, names what was not found, and ends with 1 if a suite failed. What comes
after ``--`` goes to pytest: ``python tests/trust/versions.py -- -x -q tests/test_golden.py``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NUMPYS = {"1.26": "numpy==1.26.*", "newest": "numpy"}
OUTCOMES = ("passed", "failed", "error", "skipped")


class Row(NamedTuple):
    """A line of the table."""

    python: str
    numpy: str
    result: str
    good: bool


def main() -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", nargs="+", default=PYTHONS, metavar="3.X", help=f"(default: {' '.join(PYTHONS)})")
    parser.add_argument("--numpy", nargs="+", default=list(NUMPYS), choices=list(NUMPYS))
    parser.add_argument("--wheel", type=Path, help="a wheel that is built already (default: one of this tree)")
    parser.add_argument("--logs", type=Path, help="keep what each suite printed in this folder")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after -- (default: -q)")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="dsr-versions-") as name:
        work = Path(name)
        tree = copy_tree(work / "tree")
        found = {version: find(version) for version in options.python}
        builder = next((path for path in found.values() if path), None)
        if builder is None:
            print(f"none of Python {', '.join(options.python)} was found")
            return 1
        wheel = options.wheel.resolve() if options.wheel else build(builder, tree, work)
        print(f"{wheel.name}, built once", flush=True)
        for version, interpreter in found.items():
            for numpy in options.numpy if interpreter else ():
                started = time.monotonic()
                row = cell(interpreter, NUMPYS[numpy], wheel, tree, work / "env", options)
                rows.append(row)
                print(f"[{time.monotonic() - started:5.0f} s] Python {row.python}, NumPy {row.numpy}: {row.result}")
                sys.stdout.flush()
            if not interpreter:
                rows.append(Row(version, "", "not found on this machine", True))
    print_table(rows)
    return int(not all(row.good for row in rows) or not any(" passed" in row.result for row in rows))


def find(version: str) -> str | None:
    """An interpreter of that version that runs; shims for versions that are not installed do not."""
    for candidate in candidates(version):
        code = "import sys, venv, ctypes; print(*sys.version_info[:2], sep='.')"
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return None


def candidates(version: str) -> Iterator[str]:
    """Where an interpreter of that version could be."""
    for folder in sorted(Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob(f"versions/{version}.*")):
        yield str(folder / "bin" / "python")
    if uv := shutil.which("uv"):
        command = [uv, "python", "find", "--no-python-downloads", version]
        done = subprocess.run(command, capture_output=True, text=True)
        yield from done.stdout.split()
    for folder in os.get_exec_path():
        if os.access(Path(folder, f"python{version}"), os.X_OK):
            yield str(Path(folder, f"python{version}"))


def copy_tree(target: Path) -> Path:
    """What git knows and does not ignore: no build outputs, so that tests see the wheel alone."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in sorted(set(subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0"))):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def build(interpreter: str, tree: Path, work: Path) -> Path:
    """The wheel, from a copy of its own: the tests' copy stays without what a build leaves."""
    sources, wheels = work / "sources", work / "wheels"
    shutil.copytree(tree, sources)
    python = environment(interpreter, work / "build-env")
    run_quietly([python, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(wheels), str(sources)])
    (wheel,) = wheels.glob("dsr-*-abi3-*.whl")
    return wheel


def environment(interpreter: str, folder: Path) -> str:
    """The Python of a fresh virtual environment."""
    shutil.rmtree(folder, ignore_errors=True)
    run_quietly([interpreter, "-m", "venv", str(folder)])
    return str(folder / "bin" / "python")


def cell(interpreter: str, numpy: str, wheel: Path, tree: Path, folder: Path, options: argparse.Namespace) -> Row:
    """Install and test on one Python with one NumPy."""
    python = environment(interpreter, folder)
    version = output([python, "-c", "import platform; print(platform.python_version())"])
    wanted = [python, "-m", "pip", "install", "-q", "--only-binary", "numpy", numpy]
    done = subprocess.run([*wanted, "--dry-run"], capture_output=True, text=True)
    if done.returncode:
        return Row(version, numpy.removeprefix("numpy=="), "no wheel for this Python", True)
    run_quietly([*wanted, f"{wheel}[test]"])
    got = output([python, "-c", "import numpy; print(numpy.__version__)"])
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DSR_LEVEL")}
    shared = ROOT.parent / "shared"
    if shared.is_dir():
        environ.setdefault("DSR_SHARED", str(shared))
    tested = subprocess.run(
        [python, "-P", "-m", "pytest", *(options.pytest or ["-q"])],
        cwd=tree,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
        (options.logs / f"python{version}-numpy{got}.txt").write_text(tested.stdout, encoding="utf-8")
    if tested.returncode:
        print(tested.stdout[-4000:], flush=True)
    ends = [line for line in tested.stdout.splitlines() if any(f" {word}" in line for word in OUTCOMES)]
    return Row(
        version, got, ends[-1].strip("= ") if ends else f"exit status {tested.returncode}", not tested.returncode
    )


def run_quietly(command: list[str]) -> None:
    """A step that must work; what it said is shown when it does not."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}")


def output(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def print_table(rows: list[Row]) -> None:
    """All results below each other."""
    print("\nPython   NumPy    result")
    for row in rows:
        print(f"{row.python:8} {row.numpy:8} {row.result}")


if __name__ == "__main__":
    sys.exit(main())
