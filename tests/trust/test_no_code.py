"""Loading a file never runs what is in it: programs in pickles, NumPy files and PyTorch files are refused, unrun."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_foreign import archive

import dsr
from dsr.data.cifar import load_cifar10
from dsr.data.events.reading import read_events
from dsr.files.errors import DataError
from dsr.weights.loading import load_state


class Call:
    """Pickled as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class State:
    """Pickled as an object whose class sets its state."""

    folder: Path

    def __setstate__(self, state: Any) -> None:
        Path(state).mkdir()

    def __getstate__(self) -> str:
        return str(self.folder)


class Arguments:
    """Pickled as an object whose class takes arguments."""

    folder: Path

    def __new__(cls, folder: str | None = None) -> Arguments:
        if folder is not None:
            Path(folder).mkdir()
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return (str(self.folder),)


def state(folder: Path) -> Any:
    found = State()
    found.folder = folder
    return found


def arguments(folder: Path) -> Any:
    found = Arguments()
    found.folder = folder
    return found


PROGRAMS: dict[str, Callable[[Path], Any]] = {
    "os.mkdir": lambda folder: Call(os.mkdir, (str(folder),)),
    "os.system": lambda folder: Call(os.system, (f"mkdir '{folder}'",)),
    "subprocess": lambda folder: Call(subprocess.call, (["mkdir", str(folder)],)),
    "eval": lambda folder: Call(eval, (f"__import__('os').mkdir({str(folder)!r})",)),
    "exec": lambda folder: Call(exec, (f"import os; os.mkdir({str(folder)!r})",)),
    "getattr": lambda folder: Call(getattr, (Call(Path, (str(folder),)), "mkdir")),
    "items": lambda folder: Call(list, ([],), None, iter([Call(os.mkdir, (str(folder),))])),
    "setstate": state,
    "arguments": arguments,
}
RUNS = sorted(PROGRAMS.keys() - {"getattr"})
"""Those that make the folder when they are unpickled; the other one gives a method."""


def value(program: Any, place: str) -> Any:
    """A program as a value of a dict, as a key, or deep in a value."""
    return {"value": {"data": program}, "list": {"data": [1, (2, [program])]}, "alone": program}[place]


def refused(load: Callable[[], Any], folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        load()
    assert not folder.exists()
    assert str(folder.parent) in str(caught.value)


def cifar_file(folder: Path, content: bytes) -> Callable[[], Any]:
    (folder / "data_batch_1").write_bytes(content)
    return lambda: load_cifar10(folder)


def torch_weights(folder: Path, content: bytes) -> Callable[[], Any]:
    (folder / "w.pth").write_bytes(archive(program=content))
    network = dsr.Network(dsr.Sequential(linear=dsr.Linear(3, 2)), 1)
    return lambda: load_state(network, folder / "w.pth")


READERS = [cifar_file, torch_weights]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", ["value", "list", "alone"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_in_pickles(tmp_path, name, protocol, place, reader):
    folder = tmp_path / "canary"
    content = pickle.dumps(value(PROGRAMS[name](folder), place), protocol)
    refused(reader(tmp_path, content), folder)


@pytest.mark.parametrize("name", RUNS)
def test_the_standard_reader_would_run_them(tmp_path, name):
    """Else the test above tells nothing."""
    pickle.loads(pickle.dumps(PROGRAMS[name](tmp_path / "canary"), 2))
    assert (tmp_path / "canary").is_dir()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "opcodes",
    [
        b"(S'{}'\nios\nmkdir\n.",
        b"(cos\nmkdir\nS'{}'\no.",
        b"cos\nmkdir\nS'{}'\n\x85\x81.",
        b"\x80\4\x8c\2os\x8c\5mkdir\x93S'{}'\n\x85R.",
        b"\x80\2cos\nmkdir\nS'{}'\n\x85}\x92.",
        b"P{}\n.",
        b"S'{}'\nQ.",
        b"S'{}'\n\x82\1.",
        b"\x80\5\x97.",
        b"ctorch._utils\n_rebuild_tensor_v2\ncos\nmkdir\nS'{}'\n\x85R\x85R.",
        b"ccollections\nOrderedDict\n)Rcos\nmkdir\nS'{}'\n\x85Rb.",
        b"cnumpy.core.multiarray\n_reconstruct\n)Rcos\nmkdir\nS'{}'\n\x85Rb.",
    ],
)
def test_opcodes_that_call(tmp_path, opcodes, reader):
    folder = tmp_path / "canary"
    refused(reader(tmp_path, opcodes.replace(b"{}", str(folder).encode())), folder)


@pytest.mark.parametrize("name", PROGRAMS)
def test_objects_in_files_of_numpy(tmp_path, name):
    """Such files unpickle where that is allowed."""
    folder = tmp_path / "canary"
    objects = np.array([PROGRAMS[name](folder), None], object)
    np.savez(tmp_path / "w.npz", **{"linear.weight": objects})
    network = dsr.Network(dsr.Sequential(linear=dsr.Linear(3, 2)), 1)
    refused(lambda: load_state(network, tmp_path / "w.npz"), folder)
    np.savez(tmp_path / "e.npz", x=objects, y=objects, t=objects, p=objects, sensor_size=(2, 2))
    np.save(tmp_path / "e.npy", objects)
    for file in ("e.npz", "e.npy"):
        refused(lambda file=file: read_events(tmp_path / file, (2, 2)), folder)
    fields = io.BytesIO()
    np.save(fields, np.array([(1, objects[0])], [("x", "i2"), ("t", object)]))
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr("events.npy", fields.getvalue())
    refused(lambda: read_events(tmp_path / "f.npz", (2, 2)), folder)
