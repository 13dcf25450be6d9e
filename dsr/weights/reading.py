"""Reads weight files of safetensors, NumPy, PyTorch and dsr. Which of them a file is, its first bytes tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.files import checkpoint
from dsr.files.archive import Archive, read_npy
from dsr.files.errors import DataError, reason
from dsr.weights.formats import WIDTHS, Unreadable, as_float32

_WRAPPERS = ("state_dict", "model_state_dict", "net", "model")
_MOST_NAMED = 8
_START = 64
"""Bytes that tell the kind of a file."""
_EXPECTED = "expected a file of safetensors, NumPy (.npz) or PyTorch (torch.save)"
_OTHERS = {
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "the format of PyTorch before 1.6; load it with PyTorch and save it again: "
    "torch.save(torch.load(file, map_location='cpu'), file)",
    b"version https://git-lfs": "a pointer of Git LFS in place of the weights; `git lfs pull` fetches them",
    b"\x89HDF\r\n": f"{_EXPECTED}, got HDF5",
    b"\x93NUMPY": "a single array without a name; save it by its name, with numpy.savez",
}
"""Bytes near the beginning of other files, and what the message says of them."""
_SAFETENSORS = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""Names in safetensors of the formats that NumPy lacks."""


def read_arrays(function: str, source: str | Path) -> Mapping[str, Any]:
    """The arrays of a file, or of the best checkpoint in a run folder; of a checkpoint of dsr those of its network.

    Parameters
    ----------
    function : str
        The name that errors begin with.
    source : path
        The file or the folder.

    Returns
    -------
    mapping of str to ndarray
        Numbers of bfloat16 and float8 are converted to float32. A tensor that is not read is `Unreadable`; other values
        of a PyTorch file, such as a number, are returned unchanged.

    Raises
    ------
    ValueError
        The file is damaged or of another format.
    OSError
        It cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        path = path / checkpoint.BEST
    with open(path, "rb") as file:
        start = file.read(_START)
    try:
        if start.startswith(b"PK"):
            return _read_zip(path)
        if start[8:9] == b"{":
            return _read_safetensors(path)
        others = (why for mark, why in _OTHERS.items() if mark in start)
        raise DataError(f"{path}: {next(others, f'{_EXPECTED}, got one that begins with {start[:12]!r}')}")
    except (DataError, checkpoint.CheckpointError) as error:
        raise type(error)(f"{function}: {error}") from None


def _read_zip(path: Path) -> Mapping[str, Any]:
    """A file of `numpy.savez` or `torch.save`: both are ZIP archives."""
    from dsr.weights.torch_file import Tensor, read_torch

    archive = Archive(path.read_bytes(), str(path))
    if archive.files and all(name.endswith(".npy") for name in archive.files):
        return {name.removesuffix(".npy"): read_npy(archive.read(name), f"{path}: {name}") for name in archive.files}
    found = unwrapped(str(path), read_torch(archive))
    return {name: np.asarray(item) if isinstance(item, Tensor) else item for name, item in found.items()}


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:  # which checks the header
            if (file.metadata() or {}).get("format") != checkpoint.FORMAT:
                header, start = _header(path)
                return {name: _tensor(path, start, header[name], file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({reason(error)})") from None
    saved, _ = checkpoint.load(path)
    for kind in ("average.", "network."):
        arrays = {name.removeprefix(kind): array for name, array in saved.items() if name.startswith(kind)}
        if arrays:
            return arrays
    raise DataError(f"{path}: a checkpoint of dsr without a network")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the numbers begin."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _tensor(path: Path, start: int, about: dict[str, Any], file: Any, name: str) -> NDArray[Any] | Unreadable:
    """A tensor of a safetensors file; those of formats that NumPy lacks are not read by the library."""
    kind = _SAFETENSORS.get(about["dtype"])
    if kind is not None:
        first, last = about["data_offsets"]
        bits = np.dtype(WIDTHS[kind]).newbyteorder("<")
        found = np.fromfile(path, bits, (last - first) // bits.itemsize, offset=start + first)
        return as_float32(kind, found).reshape(about["shape"])
    try:
        return file.get_tensor(name)
    except (AttributeError, TypeError):  # NumPy has no such dtype
        return Unreadable(f"of dtype {about['dtype']}")


def unwrapped(origin: str, value: Any) -> Mapping[str, Any]:
    """The arrays in a state dict, or in a dict that holds one under a usual name."""
    for _ in _WRAPPERS:  # a damaged file may hold a dict that holds itself
        if isinstance(value, Mapping):
            value = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), value)
    if not isinstance(value, Mapping):
        raise DataError(f"{origin}: expected a dict of arrays, got a {type(value).__name__}")
    odd = [str(key) for key, item in value.items() if not isinstance(key, str) or isinstance(item, Mapping)]
    if odd:
        raise DataError(f"{origin}: expected arrays by their names, got others: {listed(odd)}")
    return value


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    rest = len(every) - _MOST_NAMED
    return (", ".join(every[:_MOST_NAMED]) or "none") + (f" and {rest} more" if rest > 0 else "")
