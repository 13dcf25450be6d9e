"""Checkpoints: safetensors files with a checksum; an interrupted save leaves the old file or the new one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "dsr-checkpoint"
VERSION = 1


class CheckpointError(ValueError):
    """A file that is no checkpoint of dsr, or not the one that was written."""


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
        The file could not be written; an older one is as it was.
    """
    from safetensors.numpy import save as serialize

    target = Path(path)
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    text = json.dumps(dict(metadata), sort_keys=True)
    header = {"format": FORMAT, "version": str(VERSION), "metadata": text, "sha256": _digest(contiguous, text)}
    data = serialize(contiguous, header)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `save` wrote: arrays and metadata.

    Raises
    ------
    CheckpointError
        The file is damaged, or no checkpoint of dsr, or of a newer version; the message says which.
    OSError
        The file cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    data = Path(path).read_bytes()
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        arrays = parse(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: no readable safetensors file ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: no checkpoint of dsr")
    if header.get("version") != str(VERSION):
        raise CheckpointError(f"{path}: version {header.get('version')}, this dsr reads version {VERSION}")
    text = header.get("metadata", "")
    if header.get("sha256") != _digest(arrays, text):
        raise CheckpointError(f"{path}: damaged (checksum does not match)")
    return arrays, json.loads(text)


def _digest(arrays: Mapping[str, NDArray[Any]], metadata: str) -> str:
    """SHA-256 over the metadata and over each array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(metadata.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
