"""Checkpoints: safetensors files with a checksum; an interrupted save leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.files import atomic
from dsr.files.errors import reason

LAST, BEST = "checkpoint.safetensors", "best.safetensors"
"""Names in a run folder: the checkpoint of the last epoch, and of the best one."""

FORMAT = "dsr-checkpoint"
VERSION = 1
_LONGEST_HEADER = 16 << 20
"""Bytes; names and metadata of a large network have some 100,000."""


class CheckpointError(ValueError):
    """A file that is not a checkpoint of dsr, or is damaged."""


def save(path: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata.

    Parameters
    ----------
    path : path
        The file; an older one is replaced at the end, in one step.
    arrays : mapping of str to ndarray
        Numbers and booleans of any shape.
    metadata : mapping
        Whatever JSON holds.

    Raises
    ------
    OSError
        The file could not be written; an older one is as it was, see `dsr.files.atomic.writing`.
    """
    from safetensors.numpy import save as serialize

    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    text = json.dumps(dict(metadata), sort_keys=True)
    header = {"format": FORMAT, "version": str(VERSION), "metadata": text, "sha256": _digest(contiguous, text)}
    atomic.write(path, serialize(contiguous, header))


def load(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save` wrote: arrays and metadata.

    Raises
    ------
    CheckpointError
        The file is damaged, is not a checkpoint of dsr, or is of a newer version; the message says which.
    OSError
        The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except FileNotFoundError:
        raise FileNotFoundError(_missing(Path(path))) from None
    if length > _LONGEST_HEADER:
        raise CheckpointError(f"{path}: not a readable safetensors file (a header of {length:,} bytes)")
    try:
        with safe_open(path, "np") as file:  # the file as a memory map, and so no more than it and the arrays in memory
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({reason(error)})") from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of dsr")
    if header.get("version") != str(VERSION):
        raise CheckpointError(f"{path}: version {header.get('version')!s:.20}, this dsr reads version {VERSION}")
    text = header.get("metadata", "")
    if header.get("sha256") != _digest(arrays, text):
        raise CheckpointError(f"{path}: damaged (checksum does not match)")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata is not valid JSON ({reason(error)})") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: its metadata is not a JSON object")
    return arrays, metadata


def _missing(path: Path) -> str:
    """The message for a file that does not exist; for a file of a run folder it names the folder, which users give."""
    if path.name not in (LAST, BEST):
        return f"{path}: expected a run folder or a file of weights, found nothing"
    found = f"no {path.name} in it" if path.parent.is_dir() else "nothing"
    return f"{path.parent}: expected a run folder, found {found}"


def _digest(arrays: Mapping[str, NDArray[Any]], metadata: str) -> str:
    """SHA-256 over the metadata and over each array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
