"""Each level is what it says, read in the machine code of the extension.

A compiler that was not told the instruction set of a level compiles it all the same, for narrower vectors.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from bisect import bisect_left
from functools import cache

import pytest

from dsr import _core

WIDTHS = {"scalar": 16, "avx2": 32, "avx512": 64, "neon": 16}
# registers that a level has, and that none of its kernels may use
HAS = {"avx2": r"%ymm", "avx512": r"%zmm", "neon": r"\bv\d+\.4s"}
HAS_NOT = {"scalar": r"%[yz]mm|\bv\d+\.4s", "avx2": r"%zmm|%k[0-7]"}
# a * b + c rounded once: other bits
CONTRACTED = r"\bv?fn?m(add|sub|la|ls)"


def objdump(*options: str) -> str:
    """Of the extension; skips where there is no such program for this processor, or it is not an ELF file."""
    if platform.system() != "Linux":
        pytest.skip("objdump of Linux reads this test's symbols")
    program = shutil.which(f"{platform.machine()}-linux-gnu-objdump") or shutil.which("objdump")
    if program is None:
        pytest.skip("no objdump")
    done = subprocess.run([program, *options, _core.__file__], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"objdump: {done.stderr.strip()}")
    return done.stdout


@cache
def code() -> dict[str, dict[str, str]]:
    """level -> function -> its instructions. Each level is a file, and a file's symbols follow its name."""
    symbols: dict[str, dict[int, tuple[str, int]]] = {}
    at = ""
    for line in objdump("--syms").splitlines():
        if found := re.search(r" df \*ABS\*\s+0+\s+(\S+)$", line):
            at = found[1].removesuffix(".c")
        elif found := re.match(r"(\w+) l +F \S+\s+(\w+)\s+(\S+)", line):
            symbols.setdefault(at, {})[int(found[1], 16)] = found[3], int(found[2], 16)
    lines = [
        (int(found[1], 16), found[2])
        for line in objdump("--disassemble", "--no-show-raw-insn").splitlines()
        if (found := re.match(r"\s+(\w+):\s+(.*)", line))
    ]
    functions: dict[str, dict[str, str]] = {level: {} for level in _core.levels()}
    for level in functions.keys() & symbols.keys():
        for start, (name, size) in symbols[level].items():
            first, end = (bisect_left(lines, (address, "")) for address in (start, start + size))
            functions[level][name] = "\n".join(text for _, text in lines[first:end])
    if not any(functions.values()):
        pytest.skip("the extension was stripped of its symbols")
    return functions


def test_every_level_says_its_width():
    assert dict(zip(_core.levels(), _core.vectors(), strict=True)) == {level: WIDTHS[level] for level in _core.levels()}


@pytest.mark.parametrize("level", _core.levels())
def test_machine_code(level):
    functions = code()[level]
    assert {"sum_rows", "neuron_rows", "moments"} <= set(functions)
    if level in HAS:
        for kernel in ("sum_rows", "neuron_rows"):
            assert re.search(HAS[level], functions[kernel]), f"{kernel} of level {level} has no vectors of its width"
    if level in HAS_NOT:
        wide = {name for name, text in functions.items() if re.search(HAS_NOT[level], text)}
        assert not wide, f"level {level} has instructions that its processors lack"
    contracted = {name for name, text in functions.items() if re.search(CONTRACTED, text)}
    assert not contracted
