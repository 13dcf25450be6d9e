"""Reads ZIP archives (.npz, .pth) and NumPy's .npy files, and checks each size before memory is taken for it.

The standard library's zipfile parses archives and expands what is compressed, and NumPy parses the headers of arrays.
``numpy.load`` alone would not do: it takes the memory that a header of 192 bytes asks for before it looks for the
content, and 500 MiB for 0.5 MiB of compressed zeros.
"""

from __future__ import annotations

import io
import shutil
import warnings
from math import prod
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dsr.files.errors import DataError, reason

_MOST_FILES = 20_000
_MOST_GROWTH = 20
_MOST_GROWN = 64 << 20
"""Compressed files may expand to this many times the archive, and this many bytes more; deflate itself allows 1,032."""
_PIECE = 1 << 20
_HEADER = 30
_LONGEST_HEADER = 16384
"""Bytes at the start of a .npy file that hold its header; NumPy reads no header of more than 10,000."""


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
        if data.count(b"PK\1\2") > _MOST_FILES:  # of which zipfile would take some 600 bytes each
            raise DataError(f"{shown}: a ZIP archive of more than {_MOST_FILES:,} files")
        try:
            self._zip = ZipFile(io.BytesIO(data))
        except MemoryError:
            raise
        except Exception as error:
            raise DataError(f"{shown}: not a readable ZIP archive, damaged or cut short ({reason(error)})") from None
        self.files: dict[str, ZipInfo] = {entry.filename: entry for entry in self._zip.infolist()}
        if len(self.files) != len(self._zip.infolist()):
            raise DataError(f"{shown}: a ZIP archive in which two files have the same name")

    def read(self, name: str) -> memoryview:
        """The content of a file; a part of the archive's own bytes where it is not compressed.

        Raises
        ------
        DataError
            It is damaged or cut short, compressed by another method than NumPy's, or too large for the archive.
        """
        entry = self.files[name]
        try:
            if entry.compress_type == ZIP_STORED:
                content = self._stored(entry)
            elif entry.compress_type == ZIP_DEFLATED:
                content = self._expanded(entry)
            else:
                raise ValueError(f"compressed by the unknown method {entry.compress_type}")
            if len(content) != entry.file_size or crc32(content) != entry.CRC:
                raise ValueError("its length or checksum does not match")
        except MemoryError:
            raise
        except Exception as error:  # zipfile raises a dozen kinds of errors
            raise DataError(f"{self.shown}: {name}: damaged or cut short ({reason(error)})") from None
        return content

    def _stored(self, entry: ZipInfo) -> memoryview:
        """A view: zipfile would copy, and a load would take three times the size of the file, not twice."""
        header = self._data[entry.header_offset : entry.header_offset + _HEADER] if entry.header_offset >= 0 else b""
        if len(header) != _HEADER or header[:4] != b"PK\3\4" or entry.flag_bits & 1:
            raise ValueError("no such file where the directory says")
        start = entry.header_offset + _HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        return self._data[start : start + entry.compress_size]

    def _expanded(self, entry: ZipInfo) -> memoryview:
        self._grown += entry.file_size
        most = _MOST_GROWTH * len(self._data) + _MOST_GROWN
        if self._grown > most:
            raise ValueError(f"files of {self._grown:,} bytes in all, expected no more than {most:,}")
        content = io.BytesIO()
        with self._zip.open(entry) as file:  # which yields no more than `file_size` bytes
            shutil.copyfileobj(file, content, _PIECE)
        return content.getbuffer().toreadonly()


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
        It is damaged or cut short, or holds Python objects, which would have to be unpickled.
    """
    file = io.BytesIO(data[:_LONGEST_HEADER])
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers by Python 2, and of odd ones
            shape, by_columns, dtype = read(file)
    except Exception as error:  # NumPy's parser of headers raises a dozen kinds of errors
        raise DataError(f"{shown}: not a readable .npy header ({reason(error)})") from None
    if dtype.hasobject:
        raise DataError(f"{shown}: expected numbers, got Python objects ({str(dtype)[:80]}), which are not unpickled")
    count, start = prod(shape), file.tell()
    if min(shape, default=0) < 0 or dtype.itemsize == 0 or count * dtype.itemsize != len(data) - start:
        raise DataError(
            f"{shown}: the header describes an array of shape {str(shape)[:80]} and dtype {str(dtype)[:80]}, but "
            f"{len(data) - start:,} bytes follow it: damaged or cut short"
        )
    try:
        return np.frombuffer(data, dtype, count, start).reshape(shape, order="F" if by_columns else "C")
    except (TypeError, ValueError) as error:  # more axes than NumPy has, sides that are True, or no bytes
        raise DataError(f"{shown}: not a shape of an array: {str(shape)[:80]} ({reason(error)})") from None
