"""What README and the pages say works: each command of dsr is one that the command line accepts.

The blocks of README are run by .ci/run, those of the pages by test_guides.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dsr.__main__ import _parser
from dsr.train import recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("notebooks/*.md")]}
STAND_INS = {"T": "5", "KEY=VALUE": "epochs=1", "RECIPE": "digits", "NAME": "digits"}


def commands(page: str) -> list[str]:
    """All of `dsr ...`, in running text, tables and blocks."""
    text = re.sub(r"(?<=\w)\n(?=\w|--)", " ", page)  # a command may be broken over lines of running text
    quoted = re.findall(r"`([^`\n]*\bdsr [a-z][^`\n]*)`", text)
    blocks = re.findall(r"(?:```|~~~)bash\n(.*?)(?:```|~~~)", page, re.DOTALL)
    found = [*quoted, *(line for block in blocks for line in block.splitlines() if re.search(r"\bdsr [a-z]", line))]
    return [command[re.search(r"\bdsr [a-z]", command).start() :] for command in found]


@pytest.mark.parametrize("name", PAGES)
def test_commands_are_accepted(name):
    for command in commands(PAGES[name]):
        words = [STAND_INS.get(word, word) for word in shlex.split(command.partition(" > ")[0])[1:] if word != "..."]
        if words == ["train"]:  # "mpirun -n 4 dsr train ..."
            words.append("digits")
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{name} has: {command}")


def test_there_are_commands():
    assert len(commands(PAGES["README.md"])) >= 2 and len(commands(PAGES["commands.md"])) >= 12


def test_recipes_of_the_table_exist():
    page = PAGES["commands.md"]
    text = page[page.index("## Recipes") : page.index("## Models by name")]
    known = set(recipe.names())
    named = {
        name
        for name in re.findall(r"`([a-z0-9-]+)`", text)
        if name.split("-")[0] in ("cifar10", "cifar100", "dvs", "imagenet", "imagenette", "digits")
    }
    named -= {"cifar10", "cifar100", "dvs-cifar10"}  # names of data
    assert named
    assert named <= known
