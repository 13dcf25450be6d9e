"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from dsr import _core

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run, and no limit on the time of one: a test fails because of the code alone.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("fixed")


_FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--long``: tests that repeat something do so as often as it takes to be trusted, not only to catch a mistake."""
    parser.addoption("--long", action="store_true", help="repeat in full what is repeated a few times without")


def pytest_configure(config: pytest.Config) -> None:
    """Figures start empty, and signals that tests send are not ignored, as they are in background jobs and by nohup."""
    config.stash[_FIGURES] = []
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted, whatever the verbosity."""
    if figures := terminalreporter.config.stash[_FIGURES]:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def amount(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """``amount(short, full)``: how often to repeat something, the full number with ``--long``."""
    return lambda short, full: full if pytestconfig.getoption("--long") else short


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``figure(text)``: a line for the summary at the end, after the test's name."""
    return lambda text: request.config.stash[_FIGURES].append(f"{request.node.name}: {text}")


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
