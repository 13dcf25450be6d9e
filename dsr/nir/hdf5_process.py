"""Reads what is in a NIR file and writes it to standard output, as a program: on a damaged file HDF5 may crash.

It has limits of its own, too, since HDF5 takes whatever memory a damaged file asks for. It imports nothing of dsr.

The output is the length of a JSON text (8 bytes, little-endian), the text, and the bytes of the arrays. The text is
``{"error": ...}``, or ``{"tree": ...}`` of groups as objects; arrays as ``[dtype, shape, first byte]``; strings; and
arrays of strings as ``[null, shape, strings]``.
"""

from __future__ import annotations

import json
import struct
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_MOST_GROWTH = 20
_MOST_GROWN = 64 << 20
"""Arrays may have this many times the file's bytes, and so many more: they are compressed."""
_REFERENCE = struct.Struct("<IQI")
"""Of a string: its length, the place of the heap that has it, and its number there."""
_HEAP_HEADER = 16
_OBJECT = struct.Struct("<H6xQ")
"""In a heap: its number there, 0 for what is free, and its size."""
_MOST_ENTRIES = 100_000
_DEEPEST = 32


class _Tree:
    """Groups and values of a file, as they are written."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bytes_left = _MOST_GROWTH * len(data) + _MOST_GROWN
        self.entries_left = _MOST_ENTRIES
        self.whole_heaps: set[int] = set()
        self.arrays: list[bytes] = []
        self.written = 0

    def read(self, path: str) -> dict[str, Any]:
        h5py: Any = import_module("h5py")
        with h5py.File(path, "r") as file:
            return self._group(h5py, file["node"], 0)

    def _group(self, h5py: Any, group: Any, depth: int) -> dict[str, Any]:
        if not isinstance(group, h5py.Group) or depth > _DEEPEST:
            raise ValueError(f"expected groups no deeper than {_DEEPEST}")
        values: dict[str, Any] = {}
        for name in group:
            self.entries_left -= 1
            if self.entries_left < 0 or not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"'{name}': a link to elsewhere, or more than {_MOST_ENTRIES:,} entries")
            entry = group[name]
            if isinstance(entry, h5py.Dataset):
                values[name] = self._value(name, entry)
            else:
                values[name] = self._group(h5py, entry, depth + 1)
        return values

    def _value(self, name: str, entry: Any) -> Any:
        self.bytes_left -= entry.nbytes
        if self.bytes_left < 0 or entry.is_virtual or entry.external:
            raise ValueError(f"'{name}': {entry.nbytes:,} bytes are too many for this file, or in another")
        if entry.dtype.kind == "O":
            self._check_strings(name, entry)
        elif entry.dtype.kind not in "biufcS":
            raise ValueError(f"'{name}': expected numbers or strings, got {entry.dtype}")
        value = entry[()]
        if isinstance(value, bytes | str):
            return value.decode("utf8") if isinstance(value, bytes) else value
        if value.dtype.kind == "O":
            strings = [part.decode("utf8") if isinstance(part, bytes) else part for part in value.reshape(-1).tolist()]
            return [None, list(value.shape), strings]
        self.arrays.append(value.tobytes())
        self.written += value.nbytes
        return [value.dtype.str, list(value.shape), self.written - value.nbytes]

    def _check_strings(self, name: str, entry: Any) -> None:
        """Raise ValueError where strings are not in the file's heaps: HDF5 makes room before it looks."""
        start = entry.id.get_offset()
        if start is None:
            raise ValueError(f"'{name}': strings that are compressed or not there")
        for place in range(start, start + _REFERENCE.size * entry.size, _REFERENCE.size):
            length, heap, _ = _REFERENCE.unpack_from(self.data, place)
            size = int.from_bytes(self.data[heap + 8 : heap + 16], "little")
            inside = self.data[heap : heap + 4] == b"GCOL" and length <= size <= len(self.data) - heap
            self.bytes_left -= length
            if (length or heap) and not (inside and self.bytes_left >= 0 and self._is_whole(heap, heap + size)):
                raise ValueError(f"'{name}': a string that is not in the file")

    def _is_whole(self, heap: int, end: int) -> bool:
        """Whether the objects of a heap follow each other to its end: of an empty one HDF5 never gets to the next."""
        place = heap + _HEAP_HEADER
        while heap not in self.whole_heaps and place + _OBJECT.size <= end:
            number, size = _OBJECT.unpack_from(self.data, place)
            if number == 0:  # what is free is the rest
                if size != end - place:
                    return False
                break
            place += _OBJECT.size + (size + 7) // 8 * 8
        if place > end:
            return False
        self.whole_heaps.add(heap)
        return True


def main(path: str) -> None:
    """Write what is in the file, or what is wrong with it."""
    tree = _Tree(Path(path).read_bytes())
    try:
        text = json.dumps({"tree": tree.read(path)}).encode()
    except Exception as error:  # HDF5 raises a dozen kinds of errors
        text, tree.arrays = json.dumps({"error": [type(error).__name__, str(error)]}).encode(), []
    sys.stdout.buffer.write(len(text).to_bytes(8, "little") + text)
    for array in tree.arrays:
        sys.stdout.buffer.write(array)


if __name__ == "__main__":
    main(sys.argv[1])
