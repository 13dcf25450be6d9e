"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from dsr import _core

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run, and no limit on the time of one: a test fails because of the code alone.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and data sets that lies beside the repository; a test without it is skipped."""
    folder = Path(os.environ.get("DSR_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is no folder (DSR_SHARED names another)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20220622)


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of threads that the operations use during the test."""
    before = _core.threads()
    _core.set_threads(request.param)
    yield request.param
    _core.set_threads(before)
