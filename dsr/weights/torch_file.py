"""Reads the tensors of a PyTorch file (.pth, .pt) without PyTorch, and runs nothing that is in it.

`torch.save` writes a ZIP archive whose files are not compressed: ``NAME/data.pkl``, a pickle in which a tensor is a
call, ``torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, ...)``; ``NAME/data/KEY``, the numbers of a
storage; and ``NAME/byteorder``. Tensors are found in the pickle by `dsr.files.pickles`, which imports and calls
nothing.
Lengths and offsets are checked against the file before anything is allocated. Numbers are read when an array is asked
for, so that an optimiser's state in the same file costs nothing.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsr.files.archive import Archive
from dsr.files.errors import DataError
from dsr.files.pickles import NUMPY_SCALARS, Calls, Name, of_kind, read_pickle

_WHAT = "plain values and tensors"
_BFLOAT16 = "torch BFloat16Storage"
_STORAGES = {
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    _BFLOAT16: "u2",
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_MOST_AXES = 32


class Tensor:
    """A tensor of a file; ``numpy.asarray`` reads it.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    """

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.shape = shape
        self._storage, self._offset, self._strides = storage, offset, strides

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The numbers, not to be written to: tensors may share them. bfloat16 comes as float32."""
        values = self._storage.values()[self._offset :]
        steps = tuple(stride * values.itemsize for stride in self._strides)
        array = np.lib.stride_tricks.as_strided(values, self.shape, steps, writeable=False)
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))


class _Archive:
    """The files of a ZIP archive, by their names without its folder."""

    def __init__(self, data: bytes, shown: str) -> None:
        self.shown, self.zip = shown, Archive(data, shown)
        names = list(self.zip.files)
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"{shown}: a ZIP archive, but not of torch.save: expected one file NAME/data.pkl in it")
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}constants.pkl" in names:
            raise DataError(
                f"{shown}: a TorchScript program; save its weights with torch.save(program.state_dict(), ...)"
            )
        self.order = "<"
        if f"{self.folder}byteorder" in names:
            self.order = {b"little": "<", b"big": ">"}.get(bytes(self.read("byteorder")), "")
            if not self.order:
                raise DataError(f"{shown}: byteorder: expected little or big")

    def length(self, name: str) -> int:
        """Bytes of a file; one that is compressed, and may be longer than it looks, is refused."""
        entry = self.zip.files.get(self.folder + name)
        if entry is None:
            raise ValueError(f"the archive has no {name}")
        if entry.compress_type != ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{name}: expected a file that is not compressed")
        return entry.file_size

    def read(self, name: str) -> memoryview:
        try:
            self.length(name)
        except ValueError as error:
            raise DataError(f"{self.shown}: {error}") from None
        return self.zip.read(self.folder + name)


class _Storage:
    """The numbers that tensors lie in."""

    def __init__(self, archive: _Archive, key: str, kind: str, count: int) -> None:
        dtype = np.dtype(_STORAGES[kind])
        length = archive.length(f"data/{key}")
        if of_kind(count, int) * dtype.itemsize != length:
            raise ValueError(f"data/{key}: expected {count} values of {dtype.itemsize} bytes, got {length} bytes")
        self.archive, self.key, self.kind, self.count = archive, key, kind, count
        self._values: NDArray[Any] | None = None

    def values(self) -> NDArray[Any]:
        if self._values is None:
            dtype = np.dtype(self.archive.order + _STORAGES[self.kind])
            values = np.frombuffer(self.archive.read(f"data/{self.key}"), dtype)
            if self.kind == _BFLOAT16:  # the upper half of a float32
                values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
            self._values = values
        return self._values


def read_torch(path: str | Path) -> Any:
    """What `torch.save` wrote: plain values, with a `Tensor` for each tensor and parameter.

    Parameters
    ----------
    path : path
        Of a file written by PyTorch 1.6 or newer.

    Raises
    ------
    DataError
        The file is damaged, cut short, of another format, or holds other things than plain values and tensors, such as
        a whole module; the message says what to save instead.
    OSError
        The file cannot be read.
    """
    data, shown = Path(path).read_bytes(), str(path)
    if data.startswith(_LEGACY):
        raise DataError(
            f"{shown}: the format of PyTorch before 1.6; with a newer one, save it again: "
            f"torch.save(torch.load(file, map_location='cpu'), file)"
        )
    if not data.startswith(b"PK\x03\x04"):
        raise DataError(f"{shown}: expected a ZIP archive of torch.save, got {data[:12]!r}")
    archive = _Archive(data, shown)
    storages: dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        mark, kind, key, _, count = of_kind(identity, tuple)
        if of_kind(mark, str) != "storage" or of_kind(kind, Name).text not in _STORAGES:
            raise ValueError(f"expected a storage of real numbers, got {mark} {of_kind(kind, Name).text}")
        found = storages.setdefault(of_kind(key, str), _Storage(archive, key, kind.text, count))
        if (found.kind, found.count) != (kind.text, count):
            raise ValueError(f"data/{key}: described in two ways")
        return found

    try:
        return read_pickle(
            bytes(archive.read("data.pkl")), f"{shown}: data.pkl", _CALLS, what=_WHAT, persistent=storage
        )
    except DataError as error:
        if "would call" in str(error):
            raise DataError(f"{error}; save the weights alone, with torch.save(model.state_dict(), file)") from None
        raise


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """What ``_rebuild_tensor_v2`` stands for; neither outside its storage nor larger than that."""
    count = of_kind(storage, _Storage).count
    lengths, steps = _naturals("shape", shape), _naturals("strides", strides)
    (start,) = _naturals("offset", (offset,))
    if len(lengths) != len(steps):
        raise ValueError(f"expected as many strides as axes, {len(lengths)}, got {len(steps)}")
    elements = prod(lengths)
    last = start + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True)) if elements else start
    if elements > count or last >= count + (elements == 0):
        raise ValueError(f"a tensor of shape {lengths} does not lie within its storage of {count} values")
    return Tensor(storage, start, lengths, steps if elements else (0,) * len(steps))


def _naturals(name: str, values: Any) -> tuple[int, ...]:
    if len(of_kind(values, tuple)) > _MOST_AXES or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise ValueError(f"expected {name} of at most {_MOST_AXES} integers >= 0")
    return tuple(values)


def _parameter(data: Any, *_: Any) -> Tensor:
    return of_kind(data, Tensor)


class _OrderedDict(dict[Any, Any]):
    """A state dict; the versions of modules that come with it are passed over."""

    def __init__(self) -> None:
        super().__init__()

    def set_state(self, state: Any) -> None:
        of_kind(state, dict)


_CALLS: Calls = {
    **NUMPY_SCALARS,
    "collections OrderedDict": _OrderedDict,
    "torch Size": lambda lengths: lengths,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
