"""The command line and the names of recipes and NIR graphs, with wild words: exit status 0, 1 or 2, errors of a line.

Commands that would train or measure for long are given only what is refused before that.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wild
from hypothesis import strategies as st

import dsr
from dsr.__main__ import main
from dsr.train import recipe

SHORT, FULL = 30, 10000
OLD = Path(__file__).resolve().parents[1] / "data" / "run-v1"

WORDS = ["", "-", "--", "digits", "no-such-recipe", "x.toml", "/", "/dev/null", ".", "\0", "é", "=", "1", "0", "-1"]
WORDS += ["nan", "inf", "1e999", "9" * 400, "None", "[", "'", '"', "--help", "--version", "--json", "--best", "a" * 300]
NUMBERS = ["1", "0", "-1", "2", "1.5", "nan", "inf", "-inf", "x", "", "1e400", "9" * 30, "0x10", "1_0"]
KEYS = [*recipe.load("digits").to_dict(), "", "widht", "=", "data.model", "a b"]
VALUES = [*NUMBERS, "true", "'if'", "relu", "[]", "{}", "[1", '"', "1979-05-27", "'''", "1" * 5000, "[" * 3000, "adam"]
SETTINGS = st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES))
OPTIONS = {
    "summary": ["--features", "--classes", "--data", "--spikes", "--set"],
    "evaluate": ["--timesteps", "--best", "--data", "--workers"],
    "export": ["--out", "--delta-t", "--euler", "--diagonal", "--best"],
    "inspect": ["--samples", "--timesteps", "--alpha", "--json", "--out", "--data", "--best"],
    "train": ["--resume", "--from", "--out", "--save-every", "--workers", "--data"],
    "download": ["--out"],
    "bench": ["kernels", "step", "--threads", "--model"],
    "info": ["--json"],
}


def calls(folder: Path) -> st.SearchStrategy[list[str]]:
    """Words of a command; nothing that is accepted takes long, and nothing is written beside `folder`."""
    words = st.sampled_from([*WORDS, *NUMBERS, str(folder / "run"), str(folder), str(folder / "new")])

    def of(command: str) -> st.SearchStrategy[list[str]]:
        option = st.sampled_from(OPTIONS.get(command, ["--x"]))
        pair = st.tuples(option, words).map(list)
        setting = SETTINGS.map(lambda text: ["--set", text])
        rest = st.lists(st.one_of(pair, setting, words.map(lambda word: [word])), max_size=4)
        return rest.map(lambda parts: [command, *(word for part in parts for word in part)])

    return st.sampled_from([*OPTIONS, "", "trian", "--help"]).flatmap(of)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a run, where nothing is trained, fetched or measured."""
    shutil.copytree(OLD, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dsr.train.Trainer.fit", lambda self: _metrics())
    monkeypatch.setattr("dsr.files.figures.available", lambda: False)
    monkeypatch.setattr("dsr.files.download.fetch", _nothing, raising=False)
    monkeypatch.setattr("dsr.data.cifar.download_cifar", _nothing)
    for kind in ("kernels", "step"):
        monkeypatch.setattr(f"dsr.bench.{kind}.measure_all", lambda *a, **k: [])
        monkeypatch.setattr(f"dsr.bench.{kind}.table", lambda results: "")
    return tmp_path


def _metrics() -> dict[str, Any]:
    return {"test_accuracy": 0.5, "validation_accuracy": 0.5}


def _nothing(*_: Any) -> Any:
    raise OSError(101, "Network is unreachable")


def test_commands(folder, amount, figure, capsys):
    seen = [0, 0, 0]

    def check(words: list[str]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                status = main(words)
        except SystemExit as stop:  # argparse
            status = int(stop.code or 0)
        output = capsys.readouterr()
        assert status in (0, 1, 2), words
        seen[status] += 1
        assert "Traceback" not in output.err + output.out
        if status == 1:
            assert output.err.startswith("dsr: ") and len(output.err.splitlines()) == 1, output.err
        if status == 2:
            assert "error: " in output.err.splitlines()[-1]

    wild.repeat(10 * amount(SHORT // 3, FULL // 10), calls(folder), check)
    figure(f"exit status 0: {seen[0]}, 1: {seen[1]}, 2: {seen[2]}")
    assert all(seen)


def test_recipes_by_name(amount, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = st.one_of(
        st.sampled_from([*recipe.names(), *WORDS]), st.text(st.characters(max_codepoint=300), max_size=20)
    )

    def check(case: tuple[str, list[str]]) -> None:
        try:
            made = recipe.load(*case)
        except ValueError as error:
            assert str(error).startswith(("recipe", "--set: ")) and len(str(error).splitlines()) == 1, error
        except OSError as error:
            assert error.strerror
        else:
            assert recipe.from_dict(made.to_dict()) == made

    wild.repeat(
        amount(SHORT, FULL),
        st.tuples(
            names, st.lists(st.one_of(SETTINGS, st.text(st.characters(max_codepoint=300), max_size=20)), max_size=3)
        ),
        check,
    )


NIR = ("to_nir: ", "from_nir: ", "load: ", "save: ")


def test_nir(amount, figure):
    pytest.importorskip("nir", reason="NIR graphs need the package nir")
    network = dsr.Network(dsr.Sequential(dsr.Linear(4, 3), dsr.BatchNorm(3), dsr.LIF(0.3, 1.0, 0.1)), 2)
    graph, counts = dsr.nir.to_nir(network, (4,)), [0, 0]

    def valid(kind: int) -> list[Any]:
        return [network, (4,), 0.1, False, False] if kind else [graph, 2, 0.1, False]

    def call(kind: int, values: list[Any]) -> Any:
        if kind:
            body, features, delta_t, euler, diagonal = values
            return dsr.nir.to_nir(body, features, delta_t=delta_t, euler=euler, diagonal=diagonal)
        given, timesteps, delta_t, euler = values
        return dsr.nir.from_nir(given, timesteps, delta_t=delta_t, euler=euler)

    def check(case: wild.Case) -> None:
        kind = case.seed % 2
        arguments = wild.changed(valid(kind), case, lambda: valid(kind))
        state, before = network.state(), wild.bytes_of(arguments)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(kind, arguments)
        except (TypeError, ValueError) as error:
            counts[1] += 1
            assert str(error).startswith(NIR) and len(str(error).splitlines()) == 1, error
        else:
            counts[0] += 1
        assert wild.bytes_of(arguments) == before
        assert all(np.array_equal(array, state[name]) for name, array in network.arrays())

    wild.repeat(amount(SHORT, FULL), wild.cases(), check)
    figure(f"{counts[0]} results, {counts[1]} refusals")
    assert all(counts)
