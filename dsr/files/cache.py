"""A cache of decoded arrays: one file an entry, replaced in one step, read back as memory maps.

    arrays = cached(cache_folder(), "nmnist-T10", {"sources": sources(paths), "timesteps": 10}, build)

`build` is called if there is no entry of this name and key, or if the entry is damaged. An entry with another key is
replaced, so whatever is to be kept side by side belongs into the name. An entry holds all its arrays in ONE file,
because one file can be replaced in one step: a reader sees the old entry or the new one. If two processes build at the
same time, both succeed, and the file of the last one stays.

Layout: `MAGIC`; length and CRC-32 of the header (little-endian, 8 and 4 bytes); the header in JSON: version, key, and
name, dtype, shape and CRC-32 of each array; then the arrays in the order of the header, each in C order and at the next
multiple of 64 bytes.

These are not safetensors files, because its reader copies arrays: the frames of a whole data set would be in memory,
256 MiB of a file as 256 MiB more. Its writer either takes twice the arrays (``save``) or replaces the file that
`dsr.files.atomic` has locked (``save_file``).
"""

from __future__ import annotations

import errno
import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.files import atomic

Arrays = dict[str, NDArray[Any]]

MAGIC = b"dsrcache"
VERSION = 1
ALIGNMENT = 64

_PREFIX = struct.Struct("<8sQI")


def cache_folder() -> Path:
    """``$DSR_CACHE``, else ``$XDG_CACHE_HOME/dsr``, else ``~/.cache/dsr``.

    Where nobody says where the home folder is, as for a user id without an entry in a container: a place where nothing
    can be written, so that `cached` goes on without a cache and warns.
    """
    if own := os.environ.get("DSR_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification: a relative path is to be ignored
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "dsr"
    except RuntimeError:
        return Path(os.devnull, "dsr")


def sources(paths: Iterable[Path]) -> list[list[Any]]:
    """What tells a file from any that takes its place, for a key: an entry is stale once one of the files changes.

    That is path, size, inode, and the times of the last change of content and of any change. A copy may keep the size
    and the first of the times (``cp -p``, tar, ``rsync -t``); nobody can set the last one.
    """
    stats = [(path.absolute(), path.stat()) for path in paths]
    return [[str(path), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in stats]


def cached(folder: Path, name: str, key: Mapping[str, Any], build: Callable[[], Mapping[str, NDArray[Any]]]) -> Arrays:
    """The arrays of an entry, which is built if necessary.

    Parameters
    ----------
    folder : Path
        Where the entries are; it is made if it does not exist.
    name : str
        Of the entry; a plain file name.
    key : mapping
        Everything that the arrays depend on, in values that JSON can hold: sources, parameters, a version of the code.
    build : callable
        Returns the arrays, of numbers or booleans; called without arguments.

    Returns
    -------
    dict of str to ndarray
        Read-only memory maps; arrays in memory, with a RuntimeWarning, if the file cannot be written.

    Raises
    ------
    ValueError
        `name` is not a plain file name.
    TypeError
        An array holds neither numbers nor booleans.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"cached: argument 'name': expected a plain file name, got {name!r}")
    entry = json.dumps({"version": VERSION, "key": dict(key)}, sort_keys=True)
    path = folder / f"{name}.cache"
    found = _read(path, entry)
    if found is not None:
        return found
    arrays = {label: np.asarray(array, order="C").view() for label, array in build().items()}
    for label, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise TypeError(f"cached: {name}: array '{label}': expected numbers or booleans, got dtype {array.dtype}")
    try:
        return _write(path, entry, arrays)
    except OSError as error:
        warnings.warn(
            f"cached: {path} cannot be written ({error.strerror or error}), so '{name}' will be built again next time; "
            "DSR_CACHE names another folder",
            RuntimeWarning,
            stacklevel=2,
        )
        for array in arrays.values():
            array.flags.writeable = False
        return arrays


def _write(path: Path, entry: str, arrays: Arrays) -> Arrays:
    """Write an entry, map it, and only then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        label: {"dtype": array.dtype.str, "shape": array.shape, "crc32": zlib.crc32(_bytes(array))}
        for label, array in arrays.items()
    }
    header = json.dumps({"entry": entry, "arrays": table}).encode()
    with atomic.writing(path) as file:
        file.write(_PREFIX.pack(MAGIC, len(header), zlib.crc32(header)) + header)
        for array in arrays.values():
            file.write(bytes(-file.tell() % ALIGNMENT))
            file.write(_bytes(array))
        file.flush()
        written = _read(Path(file.name), entry)
        if written is None:
            raise OSError(errno.EIO, "what was written does not read back")
    return written


def _read(path: Path, entry: str) -> Arrays | None:
    """The arrays of a file, or None if there is no file, it has another key, or it is not what was written."""
    try:
        with open(path, "rb") as file:
            data = np.memmap(file, np.uint8, "r")
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    start = _PREFIX.size
    if len(data) < start:
        return None
    magic, length, crc32 = _PREFIX.unpack(data[:start].tobytes())
    header = data[start : start + length].tobytes() if magic == MAGIC else b""
    if not header or zlib.crc32(header) != crc32:
        return None
    try:
        content = json.loads(header)
        return _arrays(data, start + length, content["arrays"]) if content["entry"] == entry else None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, SyntaxError, TypeError, ValueError):
        return None  # not a header that `_write` wrote


def _arrays(data: NDArray[np.uint8], position: int, table: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a table, from a byte on; None if they are not what was written."""
    arrays: Arrays = {}
    for label, about in table.items():
        position += -position % ALIGNMENT
        dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        if dtype.kind not in "biufc" or not all(type(length) is int and length >= 0 for length in shape):
            return None
        part = data[position : position + dtype.itemsize * prod(shape)]
        if zlib.crc32(part.data) != about["crc32"]:
            return None
        arrays[label] = part.view(dtype).reshape(shape)
        position += len(part)
    return arrays


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
