"""`dsr info`: what a report of a fault needs."""

from __future__ import annotations

import json
import mmap

import numpy as np
import pytest

import dsr
from dsr import _core
from dsr.__main__ import main
from dsr.commands.info import about


def test_json(capsys, monkeypatch):
    monkeypatch.setenv("OMP_PLACES", "cores")
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == about()
    assert list(found["vector_bytes"]) == list(_core.levels())
    assert found["level"] in found["vector_bytes"]
    assert found["environment"]["OMP_PLACES"] == "cores"
    assert (found["dsr"], found["numpy"], found["page_bytes"]) == (dsr.__version__, np.__version__, mmap.PAGESIZE)
    assert found["compiler"].split()[0] in ("gcc", "clang")
    assert found["openmp"] is None or found["openmp"]["version"] >= 201307
    assert found["threads"] == dsr.get_num_threads() and found["processors"] >= 1


def test_lines(capsys):
    assert main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == [
        *("dsr", "level", "vectors", "threads", "OpenMP", "BLAS", "compiler", "Python", "system", "settings")
    ]
    assert lines["vectors"] == f"{about()['vector_bytes'][_core.level()]} bytes"
    assert lines["system"].endswith(f"pages of {mmap.PAGESIZE} bytes")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_build_without_openmp_says_so(capsys, monkeypatch, compiled):
    """Threads that are asked for and not there are a warning."""
    if compiled:
        if _core.openmp()[0]:
            pytest.skip("this build has OpenMP")
    else:
        monkeypatch.setattr(_core, "openmp", lambda: (0, None))
    assert about()["openmp"] is None
    assert main(["info"]) == 0
    assert "OpenMP    none: this build uses one thread\n" in capsys.readouterr().out
    before = dsr.get_num_threads()
    try:
        dsr.set_num_threads(1)
        with pytest.warns(RuntimeWarning, match="2 threads are wanted, but dsr was built without OpenMP and uses one"):
            dsr.set_num_threads(2)
        assert not compiled or dsr.get_num_threads() == 1
    finally:
        _core.set_threads(before)
