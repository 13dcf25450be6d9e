"""Files are replaced whole or not at all, and what killed writers leave is told from what living ones write."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from dsr.files import atomic

SCRIPT = """
import sys, time
from dsr.files import atomic
with atomic.writing(sys.argv[1]) as file:
    file.write(b"half of it")
    file.flush()
    print("go", flush=True)
    time.sleep(600)
"""


@contextmanager
def writer(path):
    """A process in the middle of writing, killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-P", "-c", SCRIPT, path], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"go\n"
            yield process
        finally:
            process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_and_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"old", b"new", b""):
        atomic.write(str(path), content)
        assert path.read_bytes() == content and names(tmp_path) == ["file"]


def test_what_is_written_is_seen_at_the_end_only(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic.writing(path) as file:
        file.write(bytes(10**6))
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == bytes(10**6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def stopped():
        with atomic.writing(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        stopped()
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    path = tmp_path / "a[1]*.b"
    with writer(path):
        pass
    (left,) = names(tmp_path)
    with writer(path) as living:
        (living_one,) = names(tmp_path)  # the dead one's is gone already
        assert living_one != left
        with atomic.writing(path):
            assert len(names(tmp_path)) == 2
            atomic.write(path, b"another thread, another process")
            assert len(names(tmp_path)) == 3
        living.send_signal(signal.SIGSTOP)  # alive, however long it takes
        atomic.write(path, b"x")
        assert names(tmp_path) == sorted([living_one, path.name])
    atomic.write(path, b"y")
    assert names(tmp_path) == [path.name] and path.read_bytes() == b"y"


def test_files_of_others_stay(tmp_path):
    others = [
        ".file.tmp",
        ".file.part.0123456789abcdef.tmp",
        ".other.0123456789abcdef.tmp",
        "file.0123456789abcdef.tmp",
    ]
    for name in others:
        (tmp_path / name).write_text("mine")
    atomic.write(tmp_path / "file", b"x")
    assert names(tmp_path) == sorted([*others, "file"])


def test_a_leftover_that_cannot_be_opened_does_no_harm(tmp_path):
    folder = tmp_path / ".file.0123456789abcdef.tmp"
    folder.mkdir()
    atomic.write(tmp_path / "file", b"x")
    assert (tmp_path / "file").read_bytes() == b"x" and folder.is_dir()


def test_writers_at_the_same_time(tmp_path):
    """Each takes the others' files for what they are; what is there is always of one of them."""
    path, wrong = tmp_path / "file", []
    atomic.write(path, bytes(10**5))

    def work(number):
        try:
            for _ in range(40):
                atomic.write(path, bytes([number]) * 10**5)
                found = path.read_bytes()
                if len(found) != 10**5 or len(set(found)) != 1:
                    wrong.append(found)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and names(tmp_path) == ["file"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """Writing goes on; leftovers stay, since nobody can tell whose they are."""

    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    left = tmp_path / ".file.0123456789abcdef.tmp"
    left.write_text("")
    atomic.write(tmp_path / "file", b"x")
    assert names(tmp_path) == [left.name, "file"]


def test_a_file_that_is_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch):
    """Somebody removes it between its making and its lock."""
    real, removed = fcntl.flock, []

    def flock(file, operation):
        if len(removed) < 2:
            os.unlink(file.name)
            removed.append(file.name)
            if len(removed) == 1:
                raise BlockingIOError
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic.write(tmp_path / "file", b"x")
    assert len(set(removed)) == 2 and names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "raised"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True), (errno.ENOSPC, True)]
)
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, number, raised):
    """Some file systems have no such thing; with others it is an error, though the file is in its place."""
    real = os.fsync

    def fsync(file):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(number, os.strerror(number))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "file"
    if raised:
        with pytest.raises(OSError, match=rf"{os.strerror(number)}: '{path}'"):
            atomic.write(path, b"x")
    else:
        atomic.write(path, b"x")
    assert path.read_bytes() == b"x" and names(tmp_path) == ["file"]


def test_a_full_disk_names_the_target(tmp_path):
    """The device that is always full, in the place of the temporary file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write():
        with atomic.writing(path) as file, open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), file.fileno())
            file.write(bytes(10**6))

    with pytest.raises(OSError, match=rf"No space left on device: '{path}'") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_errors_of_the_block_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="other"), atomic.writing(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    with pytest.raises(OSError, match=r"^in my own words$"), atomic.writing(tmp_path / "file"):
        raise OSError("in my own words")


def test_places_that_are_no_files(tmp_path):
    """A rename would put a plain file in the place of a device; on a folder it would fail, when all is written."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(FileExistsError, match=rf"expected a file or nothing there.*: '.*{name}'"):
            atomic.write(tmp_path / name, b"x")
    with pytest.raises(FileNotFoundError, match="none"):
        atomic.write(tmp_path / "none" / "file", b"x")
    assert names(tmp_path) == ["folder", "pipe"]
