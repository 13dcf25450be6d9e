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
OK, BAD_ARGUMENT, NO_FILE, OTHER_FILE, OTHER_VERSION, DAMAGED, TOO_LARGE, NO_MEMORY, NOT_FINITE, BUSY = range(10)
PROBABILITY, MARGIN = range(2)
READER = [*sorted(map(str, ROOT.glob("csrc/libdsr/read*.c"))), str(ROOT / "csrc" / "ops" / "scratch.c")]
"""What reads models, and what it needs."""


def build_reader(folder: Path, compiler: str = "gcc") -> Path:
    """A shared library of the reader of models."""
    path = folder / "reader.so"
    subprocess.run([compiler, *FLAGS, "-shared", "-fPIC", *READER, "-o", str(path)], check=True)
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
        array, rates = _floats(data), self._new_rates(model, batch)
        message = ctypes.create_string_buffer(256)
        arguments = _pointer(array), int(moves), _size(timesteps), _size(batch), _pointer(rates), message
        status = self.c.dsr_model_run(ctypes.c_void_p(model), *arguments)
        return status, message.value.decode(), rates

    def start(self, model: int | None, batch: int) -> tuple[int, str, Stream | None]:
        stream, message = ctypes.c_void_p(), ctypes.create_string_buffer(256)
        status = self.c.dsr_stream_start(ctypes.c_void_p(model), _size(batch), ctypes.byref(stream), message)
        made = None if stream.value is None else Stream(self, stream, batch, self.c.dsr_model_outputs(model))
        return status, message.value.decode(), made

    def _new_rates(self, model: int | None, batch: int) -> np.ndarray:
        return np.full((batch, self.c.dsr_model_outputs(model)), np.nan, np.float32)


class Exit(ctypes.Structure):
    _fields_ = (("by", ctypes.c_int), ("threshold", ctypes.c_double), ("least", ctypes.c_size_t))


class Stream:
    """A stream, freed with this; functions give status, message and rates, and `leave` steps."""

    def __init__(self, library: Library, handle: ctypes.c_void_p, batch: int, outputs: int) -> None:
        self.c, self.handle, self.batch, self.outputs = library.c, handle, batch, outputs

    def _call(self, function: str, *arguments: object) -> tuple[int, str]:
        message = ctypes.create_string_buffer(256)
        return getattr(self.c, function)(self.handle, *arguments, message), message.value.decode()

    def _new_rates(self, samples: int) -> np.ndarray:
        return np.full((samples, self.outputs), np.nan, np.float32)

    def step(self, frame: np.ndarray) -> tuple[int, str, np.ndarray]:
        array, rates = _floats(frame), self._new_rates(self.batch)
        return *self._call("dsr_stream_step", _pointer(array), _pointer(rates)), rates

    def reset(self, samples: list[int] | None = None) -> tuple[int, str]:
        numbers = None if samples is None else (ctypes.c_size_t * len(samples))(*samples)
        return self._call("dsr_stream_reset", numbers, _size(len(samples or [])))

    def run(self, data: np.ndarray, moves: bool, timesteps: int, samples: int) -> tuple[int, str, np.ndarray]:
        array, rates = _floats(data), self._new_rates(samples)
        arguments = _pointer(array), int(moves), _size(timesteps), _size(samples), _pointer(rates)
        return *self._call("dsr_stream_run", *arguments), rates

    def leave(
        self, data: np.ndarray, moves: bool, timesteps: int, samples: int, rule: Exit
    ) -> tuple[int, str, np.ndarray, list[int]]:
        """With early exit."""
        array, rates, steps = _floats(data), self._new_rates(samples), (ctypes.c_size_t * samples)()
        arguments = _pointer(array), int(moves), _size(timesteps), _size(samples), ctypes.byref(rule), _pointer(rates)
        return *self._call("dsr_stream_exit", *arguments, steps), rates, list(steps)

    def passes(self) -> int:
        """Over the layers, of the last run."""
        function = self.c.dsr_stream_passes
        function.restype = ctypes.c_size_t
        return function(self.handle)

    def free(self) -> None:
        self.c.dsr_stream_free(self.handle)


def _floats(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data, np.float32)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def _size(number: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(number)
