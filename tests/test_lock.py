"""A folder that one process at a time writes into."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from dsr.files.lock import NAME, FolderInUseError, FolderLock

HOLD = """
import sys, time
from dsr.files.lock import FolderLock
with FolderLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
TRY = """
import sys
from dsr.files.lock import FolderInUseError, FolderLock
wins = 0
for _ in range(300):
    try:
        with FolderLock(sys.argv[1]):
            with open(sys.argv[1] + "/alone", "x") as file:  # FileExistsError: somebody else is inside
                pass
            import os
            os.unlink(sys.argv[1] + "/alone")
            wins += 1
    except FolderInUseError:
        pass
print(wins)
"""


def process(code, folder):
    return subprocess.Popen([sys.executable, "-P", "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


def test_a_second_one_is_told_whose_it_is(tmp_path):
    folder = tmp_path / "new" / "run"
    with FolderLock(folder):
        assert os.listdir(folder) == [NAME]
        words = rf"{re.escape(str(folder))} is in use: process {os.getpid()} on .* is writing a run into it"
        with pytest.raises(FolderInUseError, match=words), FolderLock(folder):
            pass
    assert os.listdir(folder) == []
    with FolderLock(folder):
        pass


def test_its_owner_may_enter_it_again(tmp_path):
    lock = FolderLock(tmp_path)
    with lock:
        with lock:
            pass
        with pytest.raises(FolderInUseError), FolderLock(tmp_path):
            pass


def test_a_killed_process_releases_it(tmp_path):
    holder = process(HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUseError, match=f"process {holder.pid} on"), FolderLock(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert os.listdir(tmp_path) == [NAME]  # what it left behind is not locked
    with FolderLock(tmp_path):
        assert (tmp_path / NAME).read_text().startswith(f"process {os.getpid()} on")
    assert os.listdir(tmp_path) == []


def test_never_two_at_a_time(tmp_path):
    """Four processes take and release it as fast as they can, so that the file is removed while others open it."""
    tries = [process(TRY, tmp_path) for _ in range(4)]
    wins = [int(one.communicate()[0]) for one in tries]
    assert [one.returncode for one in tries] == [0] * 4
    assert sum(wins) > 100


def test_never_two_threads_at_a_time(tmp_path):
    inside, most, wins = 0, 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most, wins
        for _ in range(100):
            try:
                with FolderLock(tmp_path):
                    with guard:
                        inside, wins = inside + 1, wins + 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except FolderInUseError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and wins > 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=str(tmp_path)), FolderLock(tmp_path):
        pass


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), FolderLock(tmp_path / "file"):
        pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    words = r"no locks \(No locks available\), so nothing keeps a second run out"
    with pytest.warns(RuntimeWarning, match=words), FolderLock(tmp_path):
        pass
