"""Reads NIR files in a process of its own: HDF5 crashes on some damaged files, and never ends on others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from dsr.files.errors import DataError, reason

_PROGRAM = Path(__file__).with_name("hdf5_process.py")
_SECONDS = 30
_BYTES_A_SECOND = 5_000_000
"""How long a reader may take: so many seconds, and one more for so many bytes."""


def read_file(nir: Any, path: str | Path) -> Any:
    """The graph of a NIR file, given the package nir.

    Raises
    ------
    DataError
        The file is damaged, or no NIR graph.
    OSError
        It cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
    try:
        tree = _read(os.fspath(path), _SECONDS + size / _BYTES_A_SECOND)
        # shapes are checked by from_nir, node by node; nir's own check refuses all grouped convolutions
        return nir.dict2NIRNode(tree | {"type_check": False})
    except DataError as error:
        raise DataError(f"load: {path}: not a readable NIR graph ({error})") from None
    except Exception as error:  # nir raises a dozen kinds of errors
        raise DataError(f"load: {path}: not a readable NIR graph ({type(error).__name__}: {reason(error)})") from None


def _read(path: str, seconds: float) -> dict[str, Any]:
    """Groups of the file as dicts, with arrays and strings."""
    # the program is to find the h5py that this process would
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_PROGRAM), os.path.abspath(path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"HDF5 did not end in {seconds:.0f} seconds") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"HDF5 crashed on it, exit status {done.returncode}: {words[-1] if words else 'no message'}")
    end = 8 + int.from_bytes(done.stdout[:8], "little")
    found = json.loads(done.stdout[8:end])
    if "error" in found:
        kind, message = found["error"]
        raise DataError(f"{kind}: {message[:200]}")
    return _values(found["tree"], memoryview(done.stdout)[end:])


def _values(tree: dict[str, Any], data: memoryview) -> dict[str, Any]:
    """What `hdf5_process` wrote as it was read."""
    values: dict[str, Any] = {}
    for name, item in tree.items():
        if isinstance(item, dict):
            values[name] = _values(item, data)
        elif isinstance(item, str):
            values[name] = item
        elif item[0] is None:
            values[name] = np.array([part.encode() for part in item[2]], object).reshape(item[1])
        else:
            dtype, shape, start = np.dtype(item[0]), item[1], item[2]
            array = np.frombuffer(data, dtype, prod(shape), start) if prod(shape) else np.empty(0, dtype)
            values[name] = array.reshape(shape)[()]
    return values
