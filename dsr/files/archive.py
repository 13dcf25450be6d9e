"""What is in ZIP archives (.npz, .pth) and NumPy's .npy, with sizes that are checked before anything is made.

Nothing that an archive says of itself is believed: a file in it is a part of the archive, or what the part
decompresses to, and its checksum has to fit.
"""

from __future__ import annotations

import io
import warnings
import zlib
from math import prod
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from dsr.files.errors import DataError, reason

_MOST_FILES = 20_000
_MOST_GROWTH = 20
_MOST_GROWN = 64 << 20
"""Compressed files may come to this many times the archive, and so many bytes more: zeros come to 1,000 times."""
_PIECE = 1 << 16
_HEADER = 30
_LONGEST_HEADER = 16384
"""Bytes of a .npy file that hold its header; NumPy itself reads none beyond 10,000."""


class Archive:
    """The files of a ZIP archive.

    Parameters
    ----------
    data : bytes
        The archive.
    shown : str
        Its name, for messages.

    Attributes
    ----------
    files : dict of str to ZipInfo
        By name, in the order of the archive.

    Raises
    ------
    DataError
        It is damaged or cut short.
    """

    def __init__(self, data: bytes, shown: str) -> None:
        self.shown, self._data, self._grown = shown, memoryview(data), 0
        if data.count(b"PK\1\2") > _MOST_FILES:
            raise DataError(f"{shown}: a ZIP archive of more than {_MOST_FILES:,} files")
        try:
            with ZipFile(io.BytesIO(data)) as archive:
                listed = archive.infolist()
        except Exception as error:  # zipfile raises a dozen kinds of errors
            raise DataError(f"{shown}: no readable ZIP archive, damaged or cut short ({reason(error)})") from None
        self.files: dict[str, ZipInfo] = {entry.filename: entry for entry in listed}
        if len(self.files) != len(listed):
            raise DataError(f"{shown}: a ZIP archive in which two files have one name")

    def read(self, name: str) -> memoryview:
        """The content of a file; a part of the archive's own bytes where it is not compressed.

        Raises
        ------
        DataError
            It is damaged, cut short, or compressed in another way than by NumPy, or to less than its 20th part.
        """
        entry = self.files[name]
        header = self._data[entry.header_offset : entry.header_offset + _HEADER] if entry.header_offset >= 0 else b""
        if len(header) != _HEADER or header[:4] != b"PK\3\4" or entry.flag_bits & 1:
            raise self._failed(name, "no such file where the directory says")
        start = entry.header_offset + _HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        content = self._data[start : start + entry.compress_size]
        if len(content) != entry.compress_size:
            raise self._failed(name, f"{entry.compress_size} bytes expected, {len(content)} left")
        if entry.compress_type == ZIP_DEFLATED:
            content = self._decompressed(name, content, entry.file_size)
        elif entry.compress_type != ZIP_STORED:
            raise self._failed(name, f"compressed by the unknown method {entry.compress_type}")
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise self._failed(name, "its length or checksum does not match")
        return content

    def _decompressed(self, name: str, content: memoryview, size: int) -> memoryview:
        self._grown += size
        most = _MOST_GROWTH * len(self._data) + _MOST_GROWN
        if self._grown > most:
            raise self._failed(name, f"files of {self._grown:,} bytes in all, expected no more than {most:,}")
        made, engine, place = bytearray(size), zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            for start in range(0, len(content), _PIECE):
                piece: bytes | memoryview = content[start : start + _PIECE]
                while piece and place < size:  # piece by piece, lest the content be in memory twice
                    part = engine.decompress(piece, min(size - place, 16 * _PIECE))
                    made[place : place + len(part)] = part
                    place, piece = place + len(part), engine.unconsumed_tail
        except zlib.error as error:
            raise self._failed(name, reason(error)) from None
        return memoryview(made)[:place]

    def _failed(self, name: str, why: str) -> DataError:
        return DataError(f"{self.shown}: {name}: damaged or cut short ({why})")


def read_npy(data: bytes | memoryview, shown: str) -> NDArray[Any]:
    """The array of a .npy file, as a view of its bytes.

    Parameters
    ----------
    data : bytes or memoryview
        The file.
    shown : str
        Its name, for messages.

    Raises
    ------
    DataError
        It is damaged or cut short, or holds objects, which would have to be unpickled.
    """
    file = io.BytesIO(data[:_LONGEST_HEADER])
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers by Python 2, and of odd ones
            shape, by_columns, dtype = read(file)
    except Exception as error:  # NumPy's parser of headers raises a dozen kinds of errors
        raise DataError(f"{shown}: a damaged .npy header: {reason(error)}") from None
    if dtype.hasobject:
        raise DataError(f"{shown}: expected numbers, got Python objects ({str(dtype)[:80]}): nothing is unpickled")
    count, start = prod(shape), file.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize != len(data) - start:
        raise DataError(
            f"{shown}: expected the bytes of an array of shape {str(shape)[:80]} and {str(dtype)[:80]} after the "
            f"header, got {len(data) - start}: cut short?"
        )
    try:
        return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if by_columns else "C")
    except (TypeError, ValueError) as error:  # more axes than NumPy has, sides that are True, or no bytes
        raise DataError(f"{shown}: no array of shape {str(shape)[:80]}: {reason(error)}") from None
