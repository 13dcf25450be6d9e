"""The pages run: every block of code between ```, in order, prints what stands below it; between ~~~ it is only shown.

Guides have a number; the other pages of the site may have no code at all.
"""

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
from patience import patiently

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
GUIDES = [name for name in PAGES if name[0].isdigit()]
WITH_CODE = [name for name in PAGES if "```" in PAGES[name]]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"python", "bash", "toml", "c", "text"}


def execute(code, namespace):
    """Run a block of Python; what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<guide>", "exec"), namespace)
    return printed.getvalue()


def command(line):
    """Run a command of dsr; what it prints goes to the file behind ``>``, if there is one."""
    line, _, file = line.partition(" > ")
    program, *words = shlex.split(line)
    assert program == "dsr", line
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dsr", *words], capture_output=True, text=True, timeout=patiently(300)
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    if file:
        Path(file).write_text(done.stdout, encoding="utf-8")


@pytest.mark.parametrize("name", WITH_CODE)
def test_runs(name, tmp_path, monkeypatch):
    """A block that begins with ``# file: NAME`` or ``// file: NAME`` is written to that file."""
    code = "".join(code for kind, code in BLOCK.findall(PAGES[name]) if kind == "python")
    for mark, module in (("import dsr.nir", "nir"), ("dsr.Spiking", "sklearn")):
        if mark in code:
            pytest.importorskip(module, reason=f"this page needs an extra: pip install dsr[{module}]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "MPLBACKEND", "Agg")
    namespace, output = {"__name__": "__main__"}, None
    for kind, code in BLOCK.findall(PAGES[name]):
        file = re.match(r"(?:#|//) file: (\S+)\n", code)
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


@pytest.mark.parametrize("name", WITH_CODE)
def test_blocks_are_of_a_known_kind(name):
    blocks = BLOCK.findall(PAGES[name])
    assert {kind for kind, _ in blocks} <= KINDS
    assert PAGES[name].count("```") == 2 * len(blocks)


@pytest.mark.parametrize("name", GUIDES)
def test_guides_have_code(name):
    assert sum(kind == "python" for kind, _ in BLOCK.findall(PAGES[name])) >= 5


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", PAGES[name])
    assert links or name not in GUIDES
    assert not [link for link in links if not link.startswith("https://") and not (FOLDER / link).exists()]


def test_these_are_all():
    numbers = [int(name[:2]) for name in [*GUIDES, *(path.stem for path in FOLDER.glob("*.ipynb"))]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1)) and len(GUIDES) >= 6


def test_every_page_is_in_the_contents():
    contents = re.findall(r"^([\w/]+)$", PAGES["index"], re.MULTILINE)
    pages = {path.stem for path in FOLDER.iterdir() if path.suffix in (".md", ".ipynb")} - {"index"}
    assert sorted(contents) == sorted(pages | {"api/index"})


def test_no_path_of_some_machine():
    for text in PAGES.values():
        assert not re.search(r"(?<![\w.)])/(home|root|tmp|work|Users|usr|opt|var|mnt)/", text)
