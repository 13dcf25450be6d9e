"""libdsr through ctypes: the whole library where it was built, its reader alone where there is a compiler."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BUILT = Path(os.environ.get("DSR_LIBDSR", ROOT / "build" / "libdsr")) / "libdsr.so"
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
OK, BAD_ARGUMENT, NO_FILE, OTHER_FILE, OTHER_VERSION, DAMAGED, TOO_LARGE, NO_MEMORY, NOT_FINITE = range(9)


def build_reader(folder: Path, compiler: str = "gcc") -> Path:
    """A shared library of the reader of models."""
    path = folder / "reader.so"
    source = str(ROOT / "csrc" / "libdsr" / "read.c")
    subprocess.run([compiler, *FLAGS, "-shared", "-fPIC", source, "-o", str(path)], check=True)
    return path


class Library:
    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for name in ("inputs", "outputs", "timesteps"):
            function = getattr(self.c, f"dsr_model_{name}")
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_size_t
        self.c.dsr_model_free.argtypes, self.c.dsr_model_free.restype = [ctypes.c_void_p], None

    def read(self, content: bytes) -> tuple[int, str, int | None]:
        """Status, message, and the model."""
        model, message = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        status = self.c.dsr_model_read(content, ctypes.c_size_t(len(content)), ctypes.byref(model), message)
        return status, message.value.decode(), model.value

    def load(self, path: str) -> tuple[int, str, int | None]:
        model, message = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        status = self.c.dsr_model_load(os.fsencode(path), ctypes.byref(model), message)
        return status, message.value.decode(), model.value

    def free(self, model: int | None) -> None:
        self.c.dsr_model_free(model)

    def run(self, model: int, data: np.ndarray, moves: bool, timesteps: int, batch: int) -> tuple[int, str, np.ndarray]:
        array = np.ascontiguousarray(data, np.float32)
        rates = np.full((batch, self.c.dsr_model_outputs(model)), np.nan, np.float32)
        message = ctypes.create_string_buffer(256)
        status = self.c.dsr_model_run(
            ctypes.c_void_p(model),
            array.ctypes.data_as(ctypes.c_void_p),
            int(moves),
            ctypes.c_size_t(timesteps),
            ctypes.c_size_t(batch),
            rates.ctypes.data_as(ctypes.c_void_p),
            message,
        )
        return status, message.value.decode(), rates
