"""One process at a time writes into a folder.

    with FolderLock(folder):
        ...

The folder has a file ``.lock``, which is locked (``flock``) as long as the block lasts, and removed at its end. The
lock belongs to the open file, so the system releases it when the process ends, also by kill -9; a ``.lock`` that such a
process leaves behind is not locked and is taken over. It holds between the processes of a computer on every local file
system. On NFS, Linux makes a lock of the server of it, which holds between hosts too, unless the mount has ``nolock``
or ``local_lock``; after the crash of a whole host the server releases it when the host's lease ends (NFSv4) or when it
starts again (NFSv3). Where a file system has no locks, a warning says so, and nothing keeps a second process out.
"""

from __future__ import annotations

import os
import socket
import warnings
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

from dsr import system
from dsr.files.atomic import naming

NAME = ".lock"


class FolderInUseError(OSError):
    """Another process writes into the folder."""


class FolderLock:
    """The right to write into a folder; entered again by its owner, it stays taken until the outermost block ends.

    Parameters
    ----------
    folder : path
        Made if it does not exist.

    Raises
    ------
    FolderInUseError
        On entering: another process, or another lock of this one, has it; the message says which process.
    OSError
        On entering: the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._entered = 0
        self._file: FileIO | None = None

    def __enter__(self) -> FolderLock:
        if self._entered == 0:
            self._file = self._take()
        self._entered += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._entered -= 1
        if self._entered == 0 and self._file is not None:
            with suppress(OSError):  # a file that stays is not locked
                os.unlink(self._file.name)
            self._file.close()
            self._file = None

    def _take(self) -> FileIO:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / NAME
        while True:
            file = FileIO(str(path), "a+")
            try:
                if self._locked(file):
                    self._sign(file)
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _sign(self, file: FileIO) -> None:
        """Say in the file whose it is, for the message of others."""
        try:
            with naming(Path(str(file.name))):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except BaseException:
            os.unlink(file.name)
            raise

    def _locked(self, file: FileIO) -> bool:
        """Lock the file; False if it was removed by the process that had it until now."""
        try:
            mine = system.lock(file)
        except OSError as error:
            mine = True
            warnings.warn(
                f"{self.folder}: its file system has no locks ({error.strerror}), so nothing keeps a second run out",
                RuntimeWarning,
                stacklevel=5,
            )
        if not mine:
            file.seek(0)
            owner = file.read(200).decode("utf-8", "replace") or "another process"
            raise FolderInUseError(
                f"{self.folder} is in use: {owner} is writing a run into it; wait for its end, or choose another folder"
            )
        with suppress(FileNotFoundError):
            return os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
        return False
