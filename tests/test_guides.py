"""The guides run: every block of code, in order, prints what stands below it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
GUIDES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"python", "bash", "toml", "text"}


def execute(code, namespace):
    """Run a block of Python; what it prints. One that begins with ``# file: NAME`` is written to the file instead."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<guide>", "exec"), namespace)
    return printed.getvalue()


def command(line):
    """Run a command of dsr; what it prints goes to the file behind ``>``, if there is one."""
    line, _, file = line.partition(" > ")
    program, *words = shlex.split(line)
    assert program == "dsr", line
    done = subprocess.run([sys.executable, "-P", "-m", "dsr", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if file:
        Path(file).write_text(done.stdout, encoding="utf-8")


@pytest.mark.parametrize("name", GUIDES)
def test_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    namespace, output = {"__name__": "__main__"}, None
    for kind, code in BLOCK.findall(GUIDES[name]):
        file = re.match(r"# file: (\S+)\n", code)
        if kind == "text":
            assert output is not None, f"{name}: a block of text that belongs to no code"
            pattern = re.escape(code.strip()).replace(r"\.\.\.", ".*")
            assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"{name} has\n{code}\nbut it prints\n{output}"
            output = None
            continue
        assert not output, f"{name}: prints, but this is not shown:\n{output}"
        if file:
            Path(file[1]).write_text(code, encoding="utf-8")
        elif kind == "python":
            output = execute(code, namespace)
        elif kind == "bash":
            for line in code.splitlines():
                command(line)
    assert not output, f"{name}: prints, but this is not shown:\n{output}"


@pytest.mark.parametrize("name", GUIDES)
def test_blocks_are_of_a_known_kind(name):
    blocks = BLOCK.findall(GUIDES[name])
    assert {kind for kind, _ in blocks} <= KINDS
    assert sum(kind == "python" for kind, _ in blocks) >= 5
    assert GUIDES[name].count("```") == 2 * len(blocks)


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", GUIDES[name])
    assert links and not [link for link in links if not link.startswith("https://") and not (FOLDER / link).exists()]


def test_these_are_all():
    assert list(GUIDES) == [
        "07_your_own_data",
        "08_your_own_network",
        "09_write_a_layer",
        "10_write_a_neuron",
        "11_graded_spikes",
    ]


def test_no_path_of_some_machine():
    for text in GUIDES.values():
        assert not re.search(r"(?<![\w.)])/(home|root|tmp|work|Users|usr|opt|var|mnt)/", text)
