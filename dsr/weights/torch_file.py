"""Reads the tensors of a PyTorch file without PyTorch, and runs nothing that is in the file.

`torch.save` writes a ZIP archive whose files are not compressed: ``NAME/data.pkl``, a pickle in which a tensor is a
call, ``torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, ...)``; ``NAME/data/KEY``, the numbers of a
storage; and ``NAME/byteorder``. Tensors are found in the pickle by `dsr.files.pickles`, which imports and calls
nothing. Lengths and offsets are checked against the file before anything is allocated. The numbers of a tensor are
read when its array is asked for, so the state of an optimiser in the same file costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal
from zipfile import ZIP_STORED

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dsr.files.archive import Archive
from dsr.files.errors import DataError
from dsr.files.pickles import NUMPY_SCALARS, Calls, Name, of_kind, read_pickle
from dsr.weights.formats import WIDTHS, Unreadable, as_float32

_WHAT = "plain values and tensors"
_BYTES = "torch.storage UntypedStorage"
_STORAGES = {
    _BYTES: "uint8",
    "torch DoubleStorage": "float64",
    "torch FloatStorage": "float32",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
    "torch ComplexDoubleStorage": "complex128",
    "torch ComplexFloatStorage": "complex64",
    "torch QInt8Storage": "int8",
    "torch QUInt8Storage": "uint8",
    "torch QInt32Storage": "int32",
}
_DTYPES = {name: name for name in (*_STORAGES.values(), "uint16", "uint32", "uint64")} | WIDTHS
"""PyTorch's name of a dtype, and NumPy's of what is in the file."""
_MOST_AXES = 32
_MOST_ELEMENTS = 1 << 56
"""Of a tensor: NumPy counts its bytes in 63 bits. Memory is bounded by the file, as tensors are views of it."""


class Tensor:
    """A tensor of a file; ``numpy.asarray`` reads it.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    """

    def __init__(
        self, storage: _Storage, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], minus: bool
    ) -> None:
        self.shape = shape
        self._storage, self._dtype, self._minus = storage, dtype, minus
        self._offset, self._strides = offset, strides

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """The numbers, read-only because tensors may share them. bfloat16 and float8 are converted to float32."""
        values = self._storage.values(self._dtype, self._minus)[self._offset :]
        steps = tuple(stride * values.itemsize for stride in self._strides)
        array = np.lib.stride_tricks.as_strided(values, self.shape, steps, writeable=False)
        return array.astype(array.dtype if dtype is None else dtype, copy=bool(copy))


class _Archive:
    """The files of a ZIP archive, by their names without its folder."""

    def __init__(self, file: Archive) -> None:
        self.zip, shown = file, file.shown
        names = list(file.files)
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise DataError(
                f"{shown}: a ZIP archive, not of NumPy or PyTorch: expected files NAME.npy, or one file NAME/data.pkl"
            )
        self.folder = pickles[0].removesuffix("data.pkl")
        if f"{self.folder}constants.pkl" in names:
            raise DataError(
                f"{shown}: a TorchScript program; save its weights with torch.save(program.state_dict(), ...)"
            )
        self.order: Literal["<", ">"] = "<"
        if f"{self.folder}byteorder" in names:
            written = bytes(self.read("byteorder"))
            if written not in (b"little", b"big"):
                raise DataError(f"{shown}: byteorder: expected little or big, got {written[:12]!r}")
            self.order = "<" if written == b"little" else ">"

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
            raise DataError(f"{self.zip.shown}: {error}") from None
        return self.zip.read(self.folder + name)


class _Storage:
    """The bytes that tensors lie in."""

    def __init__(self, archive: _Archive, key: str, kind: str, count: int) -> None:
        self.dtype = _STORAGES[kind]
        size, length = np.dtype(_DTYPES[self.dtype]).itemsize, archive.length(f"data/{key}")
        if of_kind(count, int) * size != length:
            raise ValueError(f"data/{key}: expected {count} values of {size} bytes, got {length} bytes")
        self.archive, self.key, self.kind, self.count, self.length = archive, key, kind, count, length
        self._values: dict[tuple[str, bool], NDArray[Any]] = {}

    def values(self, dtype: str, minus: bool) -> NDArray[Any]:
        """All numbers of the storage as `dtype`, or their negatives; made once, however many tensors ask for them."""
        if (dtype, minus) not in self._values:
            if minus:
                values = np.negative(self.values(dtype, False))
            else:
                kind = np.dtype(_DTYPES[dtype]).newbyteorder(self.archive.order)
                content = self.archive.read(f"data/{self.key}")
                values = np.frombuffer(content, kind, self.length // kind.itemsize)
                if dtype in WIDTHS:
                    values = as_float32(dtype, values)
            self._values[dtype, minus] = values
        return self._values[dtype, minus]


def read_torch(file: Archive) -> Any:
    """What `torch.save` wrote: plain values, with a `Tensor` for each tensor and parameter.

    Parameters
    ----------
    file : Archive
        A file written by PyTorch 1.6 or newer.

    Returns
    -------
    object
        Complex, sparse and quantised tensors, and those of a dtype that dsr does not know, are `Unreadable`.

    Raises
    ------
    DataError
        The file is damaged, cut short, of another format, or holds other things than plain values and tensors, such as
        a whole module; the message says what to save instead.
    """
    archive, shown = _Archive(file), file.shown
    storages: dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        mark, kind, key, _, count = of_kind(identity, tuple)
        if of_kind(mark, str) != "storage" or of_kind(kind, Name).text not in _STORAGES:
            raise ValueError(f"expected a storage of numbers, got {mark} {of_kind(kind, Name).text}")
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


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, metadata: Any = None
) -> Tensor | Unreadable:
    """What ``_rebuild_tensor_v2`` stands for: a view that lies within its storage."""
    return _view(of_kind(storage, _Storage), storage.dtype, offset, shape, strides, metadata)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor | Unreadable:
    """What ``_rebuild_tensor_v3`` stands for: a tensor of a dtype that has no kind of storage, such as float8."""
    name = of_kind(dtype, Name).text.removeprefix("torch ")
    return _view(of_kind(storage, _Storage), name, offset, shape, strides, metadata)


def _view(storage: _Storage, dtype: str, offset: Any, shape: Any, strides: Any, metadata: Any) -> Tensor | Unreadable:
    lengths, steps = _naturals("shape", shape), _naturals("strides", strides)
    (start,) = _naturals("offset", (offset,))
    if len(lengths) != len(steps):
        raise ValueError(f"expected as many strides as axes, {len(lengths)}, got {len(steps)}")
    if prod(max(length, 1) for length in lengths) > _MOST_ELEMENTS:
        raise ValueError(f"expected a shape of at most {_MOST_ELEMENTS} elements, got {lengths}")
    marks = {key for key, value in of_kind({} if metadata is None else metadata, dict).items() if value}
    if dtype not in _DTYPES or dtype.startswith("complex"):
        return Unreadable(f"of dtype {dtype:.40}")
    if marks - {"neg"} or (marks and dtype == "bool"):
        return Unreadable(f"with the metadata {', '.join(sorted(map(str, marks)))[:80]}, which is not understood")
    count, elements = storage.length // np.dtype(_DTYPES[dtype]).itemsize, prod(lengths)
    last = start + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True)) if elements else start
    if last >= count + (elements == 0):
        raise ValueError(f"a tensor of shape {lengths} does not lie within its storage of {count} values")
    return Tensor(storage, dtype, start, lengths, steps if elements else (0,) * len(steps), bool(marks))


def _naturals(name: str, values: Any) -> tuple[int, ...]:
    if len(of_kind(values, tuple)) > _MOST_AXES or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise ValueError(f"expected {name} of at most {_MOST_AXES} integers >= 0")
    return tuple(values)


def _parameter(data: Any, *_: Any) -> Tensor | Unreadable:
    return data if isinstance(data, Unreadable) else of_kind(data, Tensor)


def _with_attributes(rebuild: Any, kind: Any, arguments: Any, _: Any) -> Tensor | Unreadable:
    """What ``_rebuild_from_type_v2`` stands for: a tensor with attributes of its own, or of a subclass."""
    name = of_kind(rebuild, Name).text
    if of_kind(kind, Name).text not in ("torch Tensor", "torch.nn.parameter Parameter") or name not in _TENSORS:
        return Unreadable(f"of the class {kind.text.replace(' ', '.'):.80}")
    return _TENSORS[name](*of_kind(arguments, tuple))


def _unreadable(why: str) -> Callable[..., Unreadable]:
    return lambda *_: Unreadable(why)


class _OrderedDict(dict[Any, Any]):
    """A state dict; the versions of modules that come with it are passed over."""

    def __init__(self) -> None:
        super().__init__()

    def set_state(self, state: Any) -> None:
        of_kind(state, dict)


_TENSORS: Calls = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._utils _rebuild_sparse_tensor": _unreadable("a sparse tensor; save tensor.to_dense() in its place"),
    "torch._utils _rebuild_qtensor": _unreadable("a quantised tensor; save tensor.dequantize() in its place"),
    "torch._utils _rebuild_nested_tensor": _unreadable("a nested tensor"),
    "torch._utils _rebuild_meta_tensor_no_storage": _unreadable("a tensor of the meta device, which has no numbers"),
}
_CALLS: Calls = {
    **NUMPY_SCALARS,
    **_TENSORS,
    "collections OrderedDict": _OrderedDict,
    "torch Size": lambda lengths: lengths,
    "torch device": lambda *name: name,
    "torch.serialization _get_layout": lambda name: name,
    "torch._tensor _rebuild_from_type_v2": _with_attributes,
}
