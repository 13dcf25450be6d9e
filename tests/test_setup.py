"""What setup.py does on platforms that the tests do not run on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[1] / "setup.py"


@pytest.fixture
def setup(monkeypatch):
    pytest.importorskip("setuptools")
    for name in ("DSR_OPENMP", "DSR_LIBOMP", "DSR_WERROR", "DSR_SANITIZE"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("dsr_setup", SETUP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def libomp(folder):
    for name in ("include/omp.h", "lib/libomp.dylib"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    return str(folder)


def test_openmp_on_linux(setup):
    assert setup.openmp_flags("linux") == (["-fopenmp"], ["-fopenmp"])


def test_openmp_of_homebrew(setup, tmp_path, capsys):
    """Apple's compiler refuses -fopenmp; the preprocessor's is the way that works."""
    found = libomp(tmp_path / "homebrew")
    compiling, linking = setup.openmp_flags("darwin", (str(tmp_path / "none"), found))
    assert compiling == ["-Xpreprocessor", "-fopenmp", f"-I{found}/include"]
    assert linking == [f"-L{found}/lib", "-lomp", f"-Wl,-rpath,{found}/lib"]
    assert capsys.readouterr().err == ""


def test_openmp_where_it_is_said_to_be(setup, tmp_path, monkeypatch):
    monkeypatch.setenv("DSR_LIBOMP", libomp(tmp_path / "mine"))
    assert f"-I{tmp_path}/mine/include" in setup.openmp_flags("darwin", ())[0]
    monkeypatch.setenv("DSR_LIBOMP", str(tmp_path / "wrong"))
    with pytest.raises(SystemExit, match=r"DSR_LIBOMP: expected a folder with include/omp\.h and .*, got .*/wrong"):
        setup.openmp_flags("darwin", (str(tmp_path / "mine"),))


def test_without_openmp_a_warning_says_what_to_install(setup, capsys):
    compiling, linking = setup.openmp_flags("darwin", ())
    assert not any("openmp" in flag for flag in compiling if not flag.startswith("-Wno-")) and linking == []
    told = capsys.readouterr().err
    assert "ONE THREAD" in told and "'brew install libomp'" in told


def test_without_openmp_on_purpose(setup, monkeypatch, capsys):
    monkeypatch.setenv("DSR_OPENMP", "0")
    for platform in ("linux", "darwin"):
        compiling, linking = setup.openmp_flags(platform)
        assert "-fopenmp" not in compiling + linking
    assert capsys.readouterr().err == ""


def test_values_that_mean_nothing_are_refused(setup, monkeypatch):
    monkeypatch.setenv("DSR_OPENMP", "no")
    with pytest.raises(SystemExit, match="DSR_OPENMP: expected 0 or 1, got no"):
        setup.openmp_flags("linux")


def test_files_of_an_earlier_version_are_not_installed(setup, tmp_path, monkeypatch):
    """Of a copy that was built before; `dsr` looks into all modules of a room, so an old one would be imported."""
    dist = pytest.importorskip("setuptools.dist")
    old, compiled = tmp_path / "dsr" / "nn" / "layers.py", tmp_path / "dsr" / "_core.abi3.so"
    old.parent.mkdir(parents=True)
    old.touch()
    compiled.touch()
    command, ran = setup.BuildPython(dist.Distribution()), []
    command.build_lib = str(tmp_path)
    monkeypatch.setattr(setup.build_py, "run", lambda self: ran.append(old.exists()))
    command.run()
    assert ran == [False]  # gone before the files of this version are copied
    assert compiled.exists()
