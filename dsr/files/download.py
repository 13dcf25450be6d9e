"""Downloads of large files: resumed where they stopped, checked, and put in place in one step."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

from dsr import system
from dsr.files import atomic
from dsr.files.errors import DataError
from dsr.files.progress import progress

MB = 10**6
SECONDS_OF_SILENCE = 60.0
_DIGITS = {"md5": 32, "sha256": 64}


def download(
    url: str, target: str | Path, checksum: str, size: int | None = None, say: Callable[[str], object] = print
) -> Path:
    """Download a file, unless it is already there and its checksum is right.

    If the connection breaks or the program is stopped, what has arrived stays beside the target under its name and
    ``.part``; the next call continues from there if the server can.

    Parameters
    ----------
    url : str
        Where the file is: http or https.
    target : path
        Where to save it; the folder is made if it does not exist.
    checksum : str
        ``"sha256:..."`` or ``"md5:..."``, in hexadecimal digits.
    size : int, optional
        Bytes of the file, if they are known.
    say : callable
        Called with lines of progress.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    DataError
        What arrived, or was already there, does not have this checksum or size.
    OSError
        The server cannot be reached or does not have the file, the connection broke, or the disk is full.
    ValueError
        `url` or `checksum` is not as described.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"download: argument 'url': expected http:// or https://, got {url!r}")
    kind, digits = _parsed(checksum)
    target = Path(target)
    if target.exists():
        if _digest(target, kind) != digits:
            raise DataError(
                f"download: {target} exists, but its {kind} is not {digits}: it is damaged or another file; "
                "remove it to download it again"
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    with _locked(part) as file, atomic.naming(part):
        try:
            _receive(url, target, file, size, say)
            got, found = file.tell(), _digest(part, kind)
            if size is not None and got != size:
                file.truncate(0)
                raise DataError(f"download: {url}: expected {size:,} bytes, got {got:,}; what arrived was removed")
            if found != digits:
                file.truncate(0)
                raise DataError(f"download: {url}: expected {kind} {digits}, got {found}; what arrived was removed")
            atomic.place(file, target)
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
    return target


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """The file, open at its end and locked against other processes that would write it."""
    with open(part, "ab") as file:
        # the process that had the lock before may have moved the file to its place
        if not (system.lock(file) and part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno()))):
            raise OSError(f"download: {part} is being written by another process")
        yield file


def _receive(url: str, target: Path, file: BinaryIO, size: int | None, say: Callable[[str], object]) -> None:
    """Append what is missing of a file to what has arrived before."""
    by_hand = f"or download it in another way and save it as {target}"
    done = file.tell()
    headers = {"User-Agent": "dsr"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS_OF_SILENCE)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:  # nothing is missing; if something is, the checksum will show it
                return
            raise OSError(
                f"download: {url}: the server answers {error.code} {error.reason}: try again later, {by_hand}"
            ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise OSError(f"download: {url} cannot be reached ({reason}): try again later, {by_hand}") from None
    with response:
        if done and not _goes_on(response, done):
            file.truncate(file.seek(0))
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else size
        about = f", {total / MB:.0f} MB" if total else ""
        say(f"{url}{about}, to {target}" + (f", from {done / MB:.0f} MB on" if done else ""))
        chunks: Iterator[bytes] = _chunks(response)
        if total:
            chunks = progress(chunks, f"{target.name}, MB", ceil(total / MB), done // MB, say=say, unit="MB")
        try:
            for chunk in chunks:
                file.write(chunk)
            broken = f"ended after {file.tell():,} of {total:,} bytes" if total and file.tell() < total else ""
        except _Broken as error:
            broken = f"broke after {file.tell():,} bytes ({error})"
        finally:
            file.flush()
            system.sync(file.fileno())
    if broken:
        raise OSError(f"download: {url}: the connection {broken}; call again to continue from there, {by_hand}")


class _Broken(Exception):
    """The connection, not the disk."""


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(MB)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk


def _goes_on(response: Any, done: int) -> bool:
    """Whether the answer is the rest of the file, and not the whole file."""
    return response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {done}-")


def _parsed(checksum: str) -> tuple[str, str]:
    kind, _, digits = checksum.partition(":")
    if kind not in _DIGITS or not re.fullmatch(f"[0-9a-f]{{{_DIGITS[kind]}}}", digits):
        raise ValueError(
            f"download: argument 'checksum': expected 'sha256:' and 64 or 'md5:' and 32 digits 0-9a-f, got {checksum!r}"
        )
    return kind, digits


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
