"""What Linux, macOS and Windows do in different ways, in one place.

Linux is what the tests run on; for macOS and Windows the types are checked, by ``mypy --platform``.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource

_NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)

# What asks a process to stop: Ctrl-C, `kill`, a terminal that is closed, and what batch systems send before the end.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def processors() -> set[int]:
    """Numbers of the processors that this process may use; all of them where the system does not say."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def peak_memory() -> float:
    """Largest resident size of this process so far, in MB; NaN where it is not known."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss also counts the process that this one was forked from
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    if sys.platform != "win32":
        unit = 1 if sys.platform == "darwin" else 1024  # bytes, or KB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    return float("nan")


def resident_memory() -> float:
    """Resident size of this process now, in MB; where the system does not say, the largest so far."""
    statm = Path("/proc/self/statm")
    if sys.platform == "linux" and statm.exists():
        return int(statm.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return peak_memory()


def memory_limit() -> float:
    """Most memory that this process can have, in MB: the machine's, or less by a control group; NaN: not known.

    Containers and batch systems limit by control groups, of version 2 or 1, each of which its parents limit, too. What
    other processes need of it is not known.
    """
    if sys.platform == "win32":
        return float("nan")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text(encoding="utf-8").splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, name = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers else _UNIFIED
        # within a container the path may be that of the machine, which is not there; its own limits are at the root
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            file = Path(root, *parts[:depth], name)
            if file.exists() and (text := file.read_text(encoding="utf-8").strip()).isdecimal():  # else "max"
                limits.append(int(text))
    return min(limits) / 2**20


_UNIFIED = ("/sys/fs/cgroup", "memory.max")


def lock(file: BinaryIO | FileIO) -> bool:
    """Lock an open file for this process alone, without waiting; the lock goes when the file is closed.

    Returns
    -------
    bool
        Whether this process has the lock now; otherwise another has it.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    if sys.platform == "win32":
        # a byte behind the content, since nobody else can read what is locked
        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        os.lseek(file.fileno(), 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(file.fileno(), position, os.SEEK_SET)
    else:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def sync(descriptor: int) -> None:
    """Bring an open file down to the disk, so that it is there after a power failure; OSError if that failed.

    On macOS `fsync` leaves it in the disk's own memory; F_FULLFSYNC, where the file system has it, does not.
    """
    if sys.platform != "win32" and (full := getattr(fcntl, "F_FULLFSYNC", None)) is not None:
        try:
            fcntl.fcntl(descriptor, full)
            return
        except OSError as error:
            if error.errno not in (*_NO_SYNC_OF_FOLDERS, errno.ENOTTY):
                raise
    os.fsync(descriptor)


def rename(file: BinaryIO, target: Path) -> None:
    """Give an open file another name in its folder, which goes down to the disk; OSError as of `os.replace`.

    Windows renames no open file, so there it is closed first, and folders are not brought down to the disk.
    """
    if sys.platform == "win32":
        file.close()
        os.replace(file.name, target)
        return
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.replace(file.name, target)
        try:
            sync(folder)
        except OSError as error:
            if error.errno not in _NO_SYNC_OF_FOLDERS:
                raise
    finally:
        os.close(folder)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, and in processes that it starts, which inherit that."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # otherwise the start of a process does it, and unblocks interrupts after that
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unblock_interrupts() -> None:
    """Ctrl-C reaches this thread again."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
