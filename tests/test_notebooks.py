"""The notebooks run, in small form and without Jupyter; what is committed is valid, and its text tells the truth."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_runner import fingerprint
from patience import patiently

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NAMES = [
    "01_one_neuron",
    "02_gradient",
    "03_train_digits",
    "04_cifar10",
    "05_where_the_time_goes",
    "06_deploy_nir",
    "13_streams",
]


def load(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def markdown(notebook):
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")


def printed(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_small_form(name, tmp_path):
    pytest.importorskip("matplotlib", reason="notebooks draw with matplotlib: pip install dsr[plot]")
    if name == "06_deploy_nir":
        pytest.importorskip("nir", reason="this notebook writes NIR files: pip install dsr[nir]")
    environment = os.environ | {"DSR_NOTEBOOK_SMALL": "1", "MPLBACKEND": "Agg"}
    environment.pop("DSR_CIFAR10", None)
    command = [sys.executable, "-W", "error", ROOT / "tests" / "notebook_runner.py", FOLDER / f"{name}.ipynb"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=patiently(600)
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_is_a_valid_notebook(name):
    notebook = load(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id) for id in ids)
    for cell in notebook["cells"]:
        expected = {"cell_type", "id", "metadata", "source"}
        expected |= {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == expected and "".join(cell["source"]).strip()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_of_this_code(name):
    notebook = load(name)
    assert notebook["metadata"]["code_sha256"] == fingerprint(notebook), "run tests/notebook_runner.py --write"
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    pictures = 0
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] in ("stream", "display_data")
        if output["output_type"] == "display_data":
            assert base64.b64decode(output["data"]["image/png"]).startswith(b"\x89PNG\r\n")
            pictures += 1
    assert pictures >= 2
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_has_no_path_of_some_machine(name):
    notebook = load(name)
    everything = "\n".join("".join(cell["source"]) for cell in notebook["cells"]) + printed(notebook)
    assert not re.search(r"(?<![\w.)])/(home|root|tmp|work|Users|usr|opt|var|mnt)/|\b[A-Z]:\\\\", everything)


def test_bold_numbers_in_the_text_are_printed_by_a_cell():
    bold = {name: re.findall(r"\*\*(-?\d[\d.,]*)\*\*", markdown(load(name))) for name in NAMES}
    assert sum(map(len, bold.values())) >= 12
    missing = [
        (name, number)
        for name, numbers in bold.items()
        for number in numbers
        if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\.?\d)", printed(load(name)))
    ]
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", markdown(load(name)))
    missing = [link for link in links if not link.startswith("https://") and not (FOLDER / link).exists()]
    assert links and not missing
