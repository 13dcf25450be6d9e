"""Decoded pictures that are kept for all epochs: in memory, or in one file that any number of processes map.

What is kept is what no random number changes: the whole picture where a random part of it is taken, else the picture at
its final size. So batches have the same bits as without.

The file lies in the cache folder (`dsr.files.cache.cache_folder`). Its layout: `MAGIC`; the pixels of each picture,
rows of red, green and blue; a table of height, width and CRC-32 of each picture; the key in JSON; at the very end the
lengths of table and key and the CRC-32 of both. It takes its name only when it is whole and on the disk
(`dsr.files.atomic`), so a kill leaves nothing that looks like it. The key holds everything that the pixels depend on:
the decoder, the version of Pillow, and of each file or archive its size, inode and times (`dsr.files.cache.sources`),
so a source that has changed is noticed. The CRC-32 of a picture is checked when a process first reads it. A process
that has mapped the file keeps it when another one replaces it.

Not `dsr.files.cache`: it takes arrays that are in memory already, and reads a file whole to check it.
"""

from __future__ import annotations

import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain
from math import isnan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsr import system
from dsr.data.augment import Bytes
from dsr.data.images import Decoder, size_of
from dsr.data.tars import Member, Members
from dsr.data.workers import call_ahead
from dsr.files import atomic
from dsr.files.cache import cache_folder, sources
from dsr.files.errors import DataError
from dsr.files.progress import progress

MAGIC = b"dsrpict1"
_TABLE = np.dtype("<u4")
_END = struct.Struct("<QQI8s")
_AT_ONCE = 16
"""Pictures that a process decodes at a time."""
_LOOKED_AT = 64
"""Pictures whose sizes are looked up to tell how many bytes all of them will be."""

Files = Sequence[str | Member]
Where = Literal["memory", "disk"]


@dataclass(frozen=True, eq=False)
class Kept:
    """Decoded pictures.

    Attributes
    ----------
    pictures : sequence of ndarray of uint8, shape (H, W, 3), or None
        By number; they must not be changed. None: it is not kept, since the file was damaged.
    whole : bool
        Whether they are as they were decoded; else they have their final size.
    """

    pictures: Sequence[Bytes | None]
    whole: bool


class _Mapped(Sequence["Bytes | None"]):
    """The pictures of a file that `keep` wrote; a KeyError where it is another one, or has another key."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            self._data: NDArray[np.uint8] = np.memmap(file, np.uint8, "r")
        table, found = _end_of(self._data)
        if found != key:
            raise KeyError(key)
        self._sizes, self._crcs = table[:, :2].astype(np.int64), table[:, 2]
        lengths = 3 * self._sizes.prod(axis=1)
        self._ends = len(MAGIC) + np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._checked = np.zeros(len(table), bool)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Bytes | None:  # type: ignore[override]
        """A view of the file; None, with a RuntimeWarning, also where the file is damaged."""
        found = self._data[self._starts[number] : self._ends[number]]
        if not len(found):
            return None
        if not self._checked[number]:
            if zlib.crc32(found.data) != self._crcs[number]:
                warnings.warn(
                    f"{self.path}: picture {number} is damaged, and is decoded from its source instead; remove the "
                    "file to have it made anew",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return None
            self._checked[number] = True
        return found.reshape(*self._sizes[number], 3)


def _end_of(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], str]:
    """Table and key, as they stand at the end of a file; a KeyError if they do not."""
    if len(data) < len(MAGIC) + _END.size:
        raise KeyError("too short")
    rows, length, crc32, magic = _END.unpack(data[-_END.size :].tobytes())
    start = len(data) - _END.size - length - 3 * _TABLE.itemsize * rows
    if magic != MAGIC or data[: len(MAGIC)].tobytes() != MAGIC or start < len(MAGIC):
        raise KeyError("not a file of pictures")
    end = data[start : -_END.size].tobytes()
    table = np.frombuffer(end, _TABLE, 3 * rows).reshape(rows, 3)
    pixels = 3 * int(table[:, :2].astype(np.int64).prod(axis=1).sum())
    if zlib.crc32(end) != crc32 or len(MAGIC) + pixels != start:
        raise KeyError("damaged")
    return table, end[table.nbytes :].decode()


def keep(
    files: Files,
    decoder: Decoder,
    where: Where,
    *,
    training: bool,
    name: str,
    workers: int = 0,
    skip: bool = False,
    say: Callable[[str], object] = print,
) -> Kept:
    """Decode all pictures, or find the file in which they are kept.

    Parameters
    ----------
    files : sequence of str or Member
        One a picture.
    decoder : Decoder
        Decodes them.
    where : {"memory", "disk"}
        Where they are kept.
    training : bool
        Whether pictures are asked for with draws, so that they are kept whole if a random part is taken of them.
    name : str
        Of the data set and its part, such as "imagenette train", for lines and the name of the file.
    workers : int
        Processes that decode, as of `dsr.data.workers.call_ahead`.
    skip : bool
        Whether damaged pictures are left out, to be found by whoever asks for them; else the first one is a DataError.
    say : callable
        Gets a line when it begins, and one a minute.

    Raises
    ------
    ValueError
        They are too large for the memory, or for the disk.
    DataError, OSError
        A picture is damaged or cannot be read; the file cannot be written.
    """
    whole = training and decoder.random_resized_crop
    key = _key(files, decoder, whole)
    path = _path(files, decoder, whole, name)
    if where == "disk" and (found := _found(path, key)) is not None:
        return Kept(found, whole)
    needed = expected_bytes(files, decoder, whole, skip)
    _require_room(needed, where, path, name)
    place = "memory" if where == "memory" else path
    say(f"{name}: decoding {len(files):,} pictures to keep them, about {needed / 1e6:,.0f} MB, in {place}")
    chunks = [[files[n] for n in range(i, min(i + _AT_ONCE, len(files)))] for i in range(0, len(files), _AT_ONCE)]
    with closing(call_ahead(_Decode(decoder, whole, skip), chunks, workers)) as decoded:
        pictures = chain.from_iterable(progress(decoded, f"{name}: decoding", len(chunks), say=say, unit="chunk"))
        return Kept(list(pictures) if where == "memory" else _written(path, key, pictures), whole)


def decode(files: Files, decoder: Decoder, whole: bool, skip: bool = False) -> list[Bytes | None]:
    """Some pictures as `Kept` has them, decoded in this process."""
    return _Decode(decoder, whole, skip)(files)


def expected_bytes(files: Files, decoder: Decoder, whole: bool, skip: bool = False) -> float:
    """Bytes of all pixels; of whole pictures, as many as the sizes of `_LOOKED_AT` of them let expect."""
    if not whole:
        side = decoder.image_size
        return 3.0 * len(files) * (side * side if side else np.prod(decoder.size or (0, 0)))
    sizes = []
    for number in np.unique(np.linspace(0, len(files) - 1, _LOOKED_AT).astype(np.int64)):
        try:
            width, height = size_of(files[number], decoder.least)
        except DataError:
            if not skip:
                raise
            continue
        sizes.append(3 * width * height)
    return float(np.mean(sizes)) * len(files) if sizes else 0.0


@dataclass(frozen=True)
class _Decode:
    """Decodes some pictures, ``(H, W, 3)``; None where one is damaged and to be left out."""

    decoder: Decoder
    whole: bool
    skip: bool

    def __call__(self, files: Files) -> list[Bytes | None]:
        return [self._one(file) for file in files]

    def _one(self, file: str | Member) -> Bytes | None:
        try:
            picture = self.decoder.opened(file)
            return np.array(picture if self.whole else self.decoder.resized(picture, file))
        except DataError:
            if self.skip:
                return None
            raise


def _found(path: Path, key: str) -> _Mapped | None:
    try:
        return _Mapped(path, key)
    except (KeyError, OSError, ValueError):  # none, of another key, damaged, or empty
        return None


def _written(path: Path, key: str, pictures: Iterator[Bytes | None]) -> _Mapped:
    path.parent.mkdir(parents=True, exist_ok=True)
    table: list[tuple[int, int, int]] = []
    with atomic.writing(path) as file:
        file.write(MAGIC)
        for picture in pictures:
            if picture is None:
                table.append((0, 0, 0))
                continue
            file.write(picture.reshape(-1).data)
            table.append((*picture.shape[:2], zlib.crc32(picture.reshape(-1).data)))
        end = np.array(table, _TABLE).tobytes() + key.encode()
        file.write(end + _END.pack(len(table), len(key.encode()), zlib.crc32(end), MAGIC))
    return _Mapped(path, key)


def _key(files: Files, decoder: Decoder, whole: bool) -> str:
    """What the pixels depend on."""
    import PIL

    settings: dict[str, Any] = {**asdict(decoder), "colours": None, "whole": whole, "pillow": PIL.__version__}
    if whole:  # but for the part of the size at which JPEG is decoded, which follows from `least`
        settings |= {"image_size": 0, "size": None, "same_size": None, "least": decoder.least}
    digest = sha256()
    if isinstance(files, Members):
        digest.update(json.dumps(sources(Path(index.path) for index in files.indices)).encode())
        digest.update(files.chosen.tobytes())
    else:
        for file in files:
            digest.update(json.dumps(sources([Path(str(file))])).encode())
    return json.dumps({"settings": settings, "count": len(files), "sources": digest.hexdigest()}, sort_keys=True)


def _path(files: Files, decoder: Decoder, whole: bool, name: str) -> Path:
    """The file for these pictures: one for each place and size, so that runs do not take turns in replacing it."""
    first = files[0]
    place = [str(Path(first.archive if isinstance(first, Member) else first).absolute().parent), name]
    place += [str(whole), str(decoder.least if whole else decoder.image_size)]
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return cache_folder() / f"pictures-{plain}-{sha256(json.dumps(place).encode()).hexdigest()[:16]}.kept"


def _require_room(needed: float, where: Where, path: Path, name: str) -> None:
    if where == "memory":
        room = 0.9 * (system.memory_limit() - system.resident_memory()) * 2**20
        instead = 'cache = "disk" keeps them in a file that is mapped, and "none" decodes them when they are needed'
    else:
        existing = next(folder for folder in path.parents if folder.is_dir())
        room = shutil.disk_usage(existing).free
        instead = 'DSR_CACHE names a folder on another disk, and cache = "none" decodes them when they are needed'
    if not isnan(room) and needed > room:
        raise ValueError(
            f"cache: the decoded pictures of {name} need about {needed / 1e6:,.0f} MB, but there is room for "
            f"{max(room, 0) / 1e6:,.0f} MB in {'memory' if where == 'memory' else path.parent}; {instead}"
        )
