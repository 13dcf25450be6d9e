"""What differs between operating systems, as far as Linux can show it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from dsr import system


def test_processors():
    assert system.processors() == os.sched_getaffinity(0)


def test_processors_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system.processors() == set(range(os.cpu_count()))


def test_peak_memory_of_a_process():
    script = """
from dsr import system
before = system.peak_memory()
block = b"x" * 100_000_000
print(system.peak_memory() - before)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert 90 < float(done.stdout) < 110


@pytest.mark.parametrize(("platform", "megabytes"), [("freebsd14", 5_000_000 / 1024), ("darwin", 5_000_000 / 2**20)])
def test_peak_memory_without_proc(monkeypatch, tmp_path, platform, megabytes):
    """What the system counts in: KB, and bytes on macOS."""
    monkeypatch.setattr(system, "Path", lambda name: tmp_path / "none")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=5_000_000))
    assert system.peak_memory() == megabytes


def test_signals_are_those_of_the_platform():
    assert system.STOP_SIGNALS[:2] == (signal.SIGINT, signal.SIGTERM)
    assert set(system.STOP_SIGNALS) == {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
    }


def test_macos_is_asked_to_empty_the_memory_of_the_disk(tmp_path, monkeypatch):
    asked, synced = [], []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, what: asked.append(what))
    monkeypatch.setattr(os, "fsync", synced.append)
    with open(tmp_path / "x", "wb") as file:
        system.sync(file.fileno())
    assert (asked, synced) == ([51], [])


@pytest.mark.parametrize(("number", "falls_back"), [(errno.ENOTSUP, True), (errno.ENOTTY, True), (errno.EIO, False)])
def test_file_systems_that_cannot_do_it(tmp_path, monkeypatch, number, falls_back):
    def fail(descriptor, what):
        raise OSError(number, os.strerror(number))

    synced = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", fail)
    monkeypatch.setattr(os, "fsync", synced.append)
    with open(tmp_path / "x", "wb") as file:
        if falls_back:
            system.sync(file.fileno())
        else:
            with pytest.raises(OSError, match="Input/output error"):
                system.sync(file.fileno())
    assert len(synced) == falls_back
