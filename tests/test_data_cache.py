"""The cache of arrays: valid entries are used, anything else is built again, and an interruption harms nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dsr.files.cache import cache_folder, cached, sources

KEY = {"sources": [["a", 1, 2]], "timesteps": 5}
ARRAYS = {
    "frames": np.arange(60, dtype=np.uint8).reshape(3, 4, 5),
    "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "big-endian": np.arange(5, dtype=">i4"),
    "flags": np.array([True, False, True]),
    "number": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


class Builder:
    def __init__(self, arrays=ARRAYS) -> None:
        self.arrays, self.calls = arrays, 0

    def __call__(self):
        self.calls += 1
        return self.arrays


def check(found, arrays=ARRAYS) -> None:
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)


def test_an_entry_is_built_once_and_mapped_read_only(tmp_path):
    build, folder = Builder(), tmp_path / "deep" / "folder"
    for _ in range(3):
        found = cached(folder, "set", KEY, build)
        check(found)
        assert isinstance(found["frames"].base, np.memmap | np.ndarray)
        with pytest.raises(ValueError, match="read-only"):
            found["frames"][0] = 1
        assert all(array.ctypes.data % 64 == 0 for array in found.values() if array.size)
    assert build.calls == 1
    assert [file.name for file in folder.iterdir()] == ["set.cache"]
    assert ARRAYS["frames"].flags.writeable


def test_another_key_is_another_entry(tmp_path):
    build = Builder()
    cached(tmp_path, "set", KEY, build)
    cached(tmp_path, "set", KEY | {"timesteps": 6}, build)
    assert build.calls == 2
    cached(tmp_path, "other", KEY, build)
    cached(tmp_path, "set", KEY | {"timesteps": 6}, build)
    assert build.calls == 3


def test_sources_change_with_their_files(tmp_path):
    file, other = tmp_path / "data.bin", tmp_path / "other.bin"
    file.write_bytes(b"abc")
    before = sources([file])
    assert sources([file]) == before
    os.utime(file, ns=(0, 123))
    assert sources([file]) != before
    with pytest.raises(FileNotFoundError):
        sources([tmp_path / "none"])
    other.write_bytes(b"abc")
    assert sources([file]) != sources([other])


@pytest.mark.parametrize("how", ["cp -p", "mv", "tar", "in place", "touch -r"])
def test_sources_change_where_size_and_time_are_kept(tmp_path, how):
    """Another file in the place of one was read as the old one."""
    file, other = tmp_path / "data.bin", tmp_path / "new" / "data.bin"
    other.parent.mkdir()
    for path, content in ((file, b"old"), (other, b"new")):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    before = sources([file])
    if how == "in place":
        file.write_bytes(b"new")
        os.utime(file, ns=(10**18, 10**18))
    elif how == "tar":
        subprocess.run(["tar", "cf", "a.tar", "-C", "new", "data.bin"], cwd=tmp_path, check=True)
        subprocess.run(["tar", "xf", "a.tar"], cwd=tmp_path, check=True)
    elif how == "touch -r":
        file.write_bytes(b"new")
        subprocess.run(["touch", "-r", other, file], check=True)
    else:
        subprocess.run([*how.split(), other, file], check=True)
    assert file.read_bytes() == b"new" and (file.stat().st_size, file.stat().st_mtime_ns) == (3, 10**18)
    assert sources([file]) != before


def test_damage_anywhere_is_noticed(tmp_path):
    """Bytes changed, files cut short; only the padding before arrays, fewer than 128 bytes here, counts for nothing."""
    file = tmp_path / "set.cache"
    arrays = {"a": np.arange(100, dtype=np.uint8), "b": np.arange(9, dtype=np.float32)}
    cached(tmp_path, "set", KEY, Builder(arrays))
    whole = file.read_bytes()
    untouched = 0
    for position in range(0, len(whole), 3):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :])
        build = Builder(arrays)
        check(cached(tmp_path, "set", KEY, build), arrays)
        untouched += build.calls == 0
    assert untouched < 128 / 3
    for length in range(0, len(whole), 17):
        file.write_bytes(whole[:length])
        build = Builder(arrays)
        check(cached(tmp_path, "set", KEY, build), arrays)
        assert build.calls == 1


def test_builders_at_the_same_time_all_succeed(tmp_path):
    barrier, found = threading.Barrier(4), []

    def build():
        barrier.wait()
        return {"x": np.arange(100_000)}

    threads = [threading.Thread(target=lambda: found.append(cached(tmp_path, "set", KEY, build))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for arrays in found:
        check(arrays, {"x": np.arange(100_000)})
    assert [file.name for file in tmp_path.iterdir()] == ["set.cache"]


SCRIPT = """
import sys, numpy as np
from pathlib import Path
from dsr.files.cache import cached
print("go", flush=True)
for number in range(10**6):
    cached(Path(sys.argv[1]), "set", {"number": number}, lambda: {"x": np.full(300_000, number)})
"""


def test_a_kill_leaves_the_old_entry_or_the_new_one(tmp_path):
    with subprocess.Popen([sys.executable, "-P", "-c", SCRIPT, tmp_path], stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        for _ in range(30):
            time.sleep(0.007)
            program.send_signal(signal.SIGSTOP)
            if (tmp_path / "set.cache").exists():  # what whoever comes next would find
                assert (tmp_path / "set.cache").stat().st_size > 2_400_000
            program.send_signal(signal.SIGCONT)
        program.kill()
    assert len(list(tmp_path.glob(".*.tmp"))) <= 1
    cached(tmp_path, "set", KEY, Builder())
    assert [file.name for file in tmp_path.iterdir()] == ["set.cache"]


def test_an_error_of_the_builder_leaves_nothing(tmp_path):
    def build():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "set", KEY, build)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match=r"cached: .*set\.cache cannot be written \(.*DSR_CACHE"):
        found = cached(tmp_path / "file" / "below", "set", KEY, Builder())
    check(found)
    assert not found["frames"].flags.writeable and ARRAYS["frames"].flags.writeable


def test_a_full_disk(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        check(cached(tmp_path, "set", KEY, Builder()))
    assert list(tmp_path.iterdir()) == []


def test_arguments(tmp_path):
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(ValueError, match="cached: argument 'name'"):
            cached(tmp_path, name, KEY, Builder())
    with pytest.raises(TypeError, match="array 'x': expected numbers or booleans, got dtype object"):
        cached(tmp_path, "set", KEY, Builder({"x": np.array([object()])}))


def test_default_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("DSR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/somebody/.cache/dsr")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/somebody/.cache/dsr")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/c")
    assert cache_folder() == Path("/var/c/dsr")
    monkeypatch.setenv("DSR_CACHE", "/own")
    assert cache_folder() == Path("/own")
