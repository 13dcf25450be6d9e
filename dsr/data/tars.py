"""Pictures in tar archives, read in place: an index of their offsets is made once and kept in the cache.

An archive may hold others, as that of ImageNet's training pictures does, whose members are then indexed as well. The
index belongs to size, inode and times of the archive (`dsr.files.cache.sources`): one of another archive, or older than
it, is made anew. Each picture is read with a file of its own, so any number of processes may read at once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsr.data import layout
from dsr.files.cache import cache_folder, cached, sources
from dsr.files.errors import DataError, reason

CLASS = ".cls"
"""Ending of the members of WebDataset shards that hold a class number."""
NO_NUMBER, WRONG_NUMBER = -1, -2
_VERSION = 1
_LONGEST_NUMBER = 32


class Member(NamedTuple):
    """Where a file lies in an archive; as text it is what messages call it."""

    archive: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"


def content(file: str | Path | Member) -> bytes:
    """The bytes of a file, or of a member of an archive.

    Raises
    ------
    DataError
        The archive ends before the member does.
    OSError
        It cannot be read.
    """
    if not isinstance(file, Member):
        return Path(file).read_bytes()
    with open(file.archive, "rb") as archive:
        archive.seek(file.offset)
        found = archive.read(file.size)
    if len(found) < file.size:
        raise DataError(f"{file}: cut short: the archive ends after {len(found):,} of its {file.size:,} bytes")
    return found


@dataclass(frozen=True, eq=False)
class Index:
    """The files of an archive, in its order.

    Attributes
    ----------
    path : str
        Of the archive.
    names : list of str
        Of the members; those of an inner archive begin with its name and a slash.
    offsets, sizes : ndarray of int64
        In bytes.
    numbers : ndarray of int64
        What a member that ends in `CLASS` holds; `NO_NUMBER` for all others, `WRONG_NUMBER` where it is no number >= 0.
    """

    path: str
    names: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]


class Members(Sequence[Member]):
    """Some members of archives, as a sequence that keeps only numbers for each.

    Parameters
    ----------
    indices : sequence of Index
        Of the archives.
    chosen : sequence of (int, int)
        For each member: which archive, and its number there.
    """

    def __init__(self, indices: Sequence[Index], chosen: Sequence[tuple[int, int]]) -> None:
        self.indices, self.chosen = indices, np.array(chosen, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Member:  # type: ignore[override]
        which, place = self.chosen[number]
        index = self.indices[which]
        return Member(index.path, index.names[place], int(index.offsets[place]), int(index.sizes[place]))


def index_of(path: Path) -> Index:
    """The index of an archive, from the cache or made now.

    Raises
    ------
    DataError
        It is no tar archive, compressed, damaged, cut short or empty, or holds links; two members have one name.
    OSError
        It cannot be read.
    """
    key = {"sources": sources([path]), "version": _VERSION}
    name = f"tar-{path.stem}-{sha256(str(path.absolute()).encode()).hexdigest()[:16]}"
    found = cached(cache_folder(), name, key, lambda: _scanned(path))
    names = found["text"].tobytes().decode("utf-8", "surrogateescape").split("\n")
    return Index(str(path), names, found["offsets"], found["sizes"], found["numbers"])


def _scanned(path: Path) -> dict[str, NDArray[np.generic]]:
    names, places, seen = list[str](), list[tuple[int, int, int]](), set[str]()
    with open(path, "rb") as file:
        length = file.seek(0, io.SEEK_END)
        for name, offset, size in _members(file, 0, length, str(path)):
            if name in seen or "\n" in name:
                raise DataError(f"{path}: {name}: expected one member of this name, without line breaks")
            seen.add(name)
            names.append(name)
            places.append((offset, size, _number(file, name, offset, size)))
    if not names:
        raise DataError(f"{path}: the archive is empty")
    columns = np.array(places, np.int64)
    text = np.frombuffer("\n".join(names).encode("utf-8", "surrogateescape"), np.uint8)
    return {"text": text, "offsets": columns[:, 0], "sizes": columns[:, 1], "numbers": columns[:, 2]}


def _number(file: BinaryIO, name: str, offset: int, size: int) -> int:
    if not name.endswith(CLASS):
        return NO_NUMBER
    file.seek(offset)
    text = file.read(size).strip() if size <= _LONGEST_NUMBER else b""
    return int(text) if text.isdigit() and len(text) < 10 else WRONG_NUMBER


def _members(file: BinaryIO, start: int, length: int, shown: str, inner: str = "") -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of the files in the archive that lies in some bytes of a file."""
    part, place = _Part(file, start, length), shown + (f": {inner.removesuffix('/')}" if inner else "")
    last = "its beginning"
    try:
        with tarfile.open(fileobj=part, mode="r:") as archive:
            while (member := archive.next()) is not None:
                last, name, offset = member.name, inner + member.name, start + member.offset_data
                archive.members = []  # type: ignore[attr-defined]  # it would keep all that it has seen, a kilobyte each
                if member.isdir() or any(map(layout.is_left_behind, Path(member.name).parts)):
                    continue
                if not member.isreg():
                    raise DataError(f"{place}: {member.name}: expected a file, found a link or a device")
                if member.offset_data + member.size > length:
                    raise DataError(f"{place}: {member.name}: cut short: the archive ends before it does")
                if not inner and name.endswith(".tar"):
                    yield from _members(file, offset, member.size, shown, f"{name}/")
                else:
                    yield name, offset, member.size
            part.seek(archive.offset)
    except tarfile.ReadError as error:
        part.seek(0)
        compressed = part.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        if compressed:
            raise DataError(
                f"{place}: compressed: expected a plain tar, in which pictures can be read in place"
            ) from None
        raise DataError(f"{place}: no tar archive, or cut short after {last} ({reason(error)})") from None
    if part.read(512) != bytes(512):
        raise DataError(f"{place}: damaged or cut short after {last}: the mark of its end is missing")


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self.file, self.start, self.length, self.position = file, start, length, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.length}[whence]
        self.position = base + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(self.length - self.position, 0)
        self.file.seek(self.start + self.position)
        found = self.file.read(left if size < 0 else min(size, left))
        self.position += len(found)
        return found
