"""Replace a file whole or not at all.

    with atomic.writing(path) as file:
        file.write(data)

The content goes into a temporary file beside the target, ``.NAME.RANDOM.tmp``, and down to the disk; only then does it
take the target's name, in one step. So a reader finds the old file or the new one, whenever the program is killed or
the power fails.

A process that is killed leaves its temporary file behind. The next writer of the same target removes it, and recognises
it by its lock (``flock``): a living writer, be it a thread, another process or, on a network file system with locks,
another host, holds its lock; that of a dead one has gone with it. Unlike a process number, a lock is never taken over
by another process. Where the file system has no locks, such files stay.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dsr import system


def write(path: str | Path, data: bytes) -> None:
    """Replace a file by one with this content; errors as for `writing`."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes its place at the end of the ``with`` block, unless an exception leaves it.

    Parameters
    ----------
    path : path
        The target; its folder exists.

    Yields
    ------
    file
        Empty and open for writing; its ``name`` is that of the temporary file.

    Raises
    ------
    OSError
        The file could not be written; it names the target, and an older file is as it was. With one exception: when
        the disk fails at the very end, as the folder is written, the new file is in its place and whole, but after a
        power failure the old one may be there again.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        # a device would be lost: rename puts a plain file in its place
        raise FileExistsError(errno.EEXIST, "expected a file or nothing there, not a folder or device", str(target))
    _remove_leftovers(target)
    with naming(target), _temporary(target) as file:
        yield file
        place(file, target)


def place(file: BinaryIO, target: Path) -> None:
    """Bring a file down to the disk, give it its name, in the same folder, and bring that down to the disk too.

    Raises
    ------
    OSError
        As for `writing`.
    """
    file.flush()
    system.sync(file.fileno())
    system.rename(file, target)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system that name no file, or a temporary one for `path`, get this name."""
    try:
        yield
    except OSError as error:
        names = (error.filename, error.filename2)
        if error.errno is None or not (names == (None, None) or any(_is_temporary(name, path) for name in names)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _temporary(target: Path) -> Iterator[BinaryIO]:
    """A new file beside the target, locked; removed when an exception leaves the block."""
    while True:
        path = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            with open(path, "xb") as file:
                # between `open` and here another writer may have removed the file as left over
                if _lock(file) is not False and path.exists():
                    yield file
                    return
        except BaseException:
            with suppress(OSError):  # the first error is the one to tell; the next writer removes the file
                path.unlink(missing_ok=True)
            raise


def _remove_leftovers(target: Path) -> None:
    for name in os.listdir(target.parent):
        if _is_temporary(name, target):
            path = target.with_name(name)
            # OSError: it belongs to another user, or another writer was faster
            with suppress(OSError), open(path, "r+b") as file:
                if _lock(file):
                    path.unlink()


def _is_temporary(name: object, target: Path) -> bool:
    return isinstance(name, str | os.PathLike) and bool(
        re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp", Path(name).name)
    )


def _lock(file: BinaryIO) -> bool | None:
    """Whether this process has the lock now; None where there are no locks."""
    try:
        return system.lock(file)
    except OSError:
        return None
