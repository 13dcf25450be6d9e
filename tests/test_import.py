"""`import dsr` loads what every script needs; the rest is loaded when it is used."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import dsr
from dsr import _core

LATER = ("dsr.train", "dsr.data", "dsr.models", "dsr.inspect", "dsr.nir", "dsr.bench", "dsr.sklearn", "dsr.weights")


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, text=True).stdout


def test_what_is_not_loaded():
    loaded = set(run("import dsr, sys; print(*sys.modules)").split())
    assert "dsr._core" in loaded
    assert not loaded & {*LATER, "safetensors", "importlib.metadata", "multiprocessing", "sklearn", "nir", "PIL"}


@pytest.mark.parametrize("name", [*dsr.__all__, "SpikingClassifier", "SpikingRegressor", "__version__"])
def test_every_name_is_found_at_its_first_use(name):
    if name in ("SpikingClassifier", "SpikingRegressor"):
        pytest.importorskip("sklearn")
    assert run(f"import dsr; print(dsr.{name} is dsr.{name})") == "True\n"


def test_threads_sleep_while_they_wait():
    """The policy is set before the compiled part is loaded, and the environment is as it was afterwards."""
    program = "import os, dsr; print('OMP_WAIT_POLICY' in os.environ)"
    policies = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {key: value for key, value in os.environ.items() if key not in policies}
    for first in ("dsr", "dsr.functional", "dsr.ops", "dsr._core"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import {first}; {program}"],
            check=True,
            capture_output=True,
            text=True,
            env=environment | {"OMP_DISPLAY_ENV": "true"},
        )
        assert done.stdout == "False\n"
        assert re.search("OMP_WAIT_POLICY ?= ?'PASSIVE'", done.stderr) or not _core.openmp()[0]


def test_all_names_are_listed():
    assert set(dsr.__all__) | {"__version__"} <= set(dir(dsr))


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'dsr' has no attribute 'trian'"):
        dsr.trian  # noqa: B018
