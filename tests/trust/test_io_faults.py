"""A failing disk: each call of a save that reaches the disk fails in turn, and nothing is lost but the save itself.

fault_shim.c is preloaded into a process that saves again and again; it answers the n-th call that opens for writing,
writes, syncs or renames below a folder with an error, or writes only a half, for every n until a save gets through
without a fault. After each fault:

- the error was raised, and says what and where (the cache, which can do without its file, warns);
- the old file is there bit for bit, or the new one if the call that failed came after the rename;
- no temporary file is there, and the next save works.

As a script: saves, under the shim; prints the number of faults by call as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

SHIM = Path(__file__).with_name("fault_shim.c")
ONCE, STICKY, SHORT, FULL = range(4)  # as in fault_shim.c
DISKS = {
    "EIO": (errno.EIO, ONCE),
    "ENOSPC": (errno.ENOSPC, ONCE),
    "EIO from then on": (errno.EIO, STICKY),
    "ENOSPC from then on": (errno.ENOSPC, STICKY),
    "half a write": (0, SHORT),
    "half a write, then ENOSPC": (errno.ENOSPC, FULL),
}
AFTER_RENAME = "fsync of the folder"
SCENARIOS = ["checkpoint", "cache", "metrics", "nir", "download", "training", "command"]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The built library."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the shim stands on glibc's names")
    if "lib" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip(f"LD_PRELOAD is {os.environ['LD_PRELOAD']}: it may not go together with the shim")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    subprocess.run([compiler, "-std=c11", "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_call_fails_once(shim, scenario, tmp_path, amount, figure):
    if scenario == "nir":
        pytest.importorskip("nir", reason="NIR files")
    every = {"training": amount(23, 1), "command": amount(7, 1)}.get(scenario, 1)
    environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-P", __file__, shim, scenario, tmp_path.resolve(), str(every)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    counted = json.loads(done.stdout.splitlines()[-1])
    figure(f"{sum(counted.values())} faults (" + ", ".join(f"{n} {call}" for call, n in counted.items()) + ")")
    calls = {"open", "write", "fsync", "rename", AFTER_RENAME}
    assert counted.keys() <= calls and (every > 1 or counted.keys() == calls)


class Told(Exception):
    """A warning, in the place of the error that it tells of."""


class Disk:
    """A folder, and the shim that lets calls below it fail."""

    def __init__(self, library: str, folder: Path, every: int) -> None:
        self.shim, self.folder, self.every = ctypes.CDLL(library), folder, every
        self.shim.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self.shim.fault_arm.restype = None
        self.shim.fault_disarm.restype = ctypes.c_char_p
        self.counted: Counter[str] = Counter()

    def each_fault(
        self,
        prepare: Callable[[], object],
        save: Callable[[], object],
        check: Callable[[str], object],
        without_harm: int = 0,
    ) -> None:
        """For each call of `save` and kind of fault: prepare, save, check what is left.

        `check` gets the name of the call that made the save fail, "" where it did not; the first calls, `without_harm`,
        may fail without that.
        """
        for disk, (number, mode) in DISKS.items():
            at, call = 1, "none yet"
            while call:
                prepare()
                error, call = self.attempt(save, at, number, mode)
                try:
                    if not call:
                        assert at > 1, "the shim does nothing"
                    if not call or mode == SHORT or (mode == ONCE and at <= without_harm):
                        assert error is None, f"unexpected: {error!r}"
                    else:
                        self.check_message(error, number)
                    if call:
                        self.counted[call] += 1
                        check("" if error is None else call)
                except BaseException as failure:
                    failure.add_note(f"{disk}, call {at}: {call or 'no fault'}")
                    raise
                at += self.every

    def attempt(self, save: Callable[[], object], at: int, number: int, mode: int) -> tuple[OSError | Told | None, str]:
        """The error of a save with a fault, and the first call that was hit."""
        self.shim.fault_arm(str(self.folder).encode(), at, number, mode)
        try:
            save()
        except (OSError, Told) as error:
            return error, self.shim.fault_disarm().decode()
        return None, self.shim.fault_disarm().decode()

    def check_message(self, error: OSError | Told | None, number: int) -> None:
        assert error is not None, "no error"
        assert str(self.folder) in str(error) and os.strerror(number) in str(error), f"does not say all: {error}"
        assert ".tmp" not in str(error), f"the name is not that of the target: {error}"
        if isinstance(error, OSError):
            assert error.errno == number and str(error.filename).startswith(f"{self.folder}/"), f"{error!r}"

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def replace(
        self,
        path: Path,
        save_old: Callable[[], object],
        save_new: Callable[[], object],
        check_new: Callable[[], object],
    ) -> None:
        """One file that is replaced; once more beside the leftover of a process that was killed."""
        old = b""
        leftover = path.with_name(f".{path.name}.0123456789abcdef.tmp")

        def prepare() -> None:
            nonlocal old
            save_old()
            old = path.read_bytes()  # not the same each time: safetensors writes metadata in any order
            assert self.files() == [path.name], self.files()

        def check(call: str) -> None:
            assert self.files() == [path.name], self.files()
            if call in ("", AFTER_RENAME):
                check_new()
            else:
                assert path.read_bytes() == old, "the old file is not what it was"

        def prepare_leftover() -> None:
            prepare()
            leftover.write_bytes(b"x")

        def check_leftover(call: str) -> None:
            leftover.unlink(missing_ok=True)  # where it could not be opened; prepare sees to it that the next can
            check(call)

        self.each_fault(prepare, save_new, check)
        self.each_fault(prepare_leftover, save_new, check_leftover, without_harm=1)


def checkpoint(disk: Disk) -> None:
    from dsr.files import checkpoint

    path = disk.folder / "run.safetensors"

    def save(value: int) -> None:
        checkpoint.save(path, {"x": np.full(100_000, value, np.float32), "y": np.arange(value)}, {"value": value})

    def check_new() -> None:
        arrays, metadata = checkpoint.load(path)
        assert metadata == {"value": 2}
        assert (arrays["x"] == 2).all() and arrays["y"].tolist() == [0, 1]

    disk.replace(path, lambda: save(1), lambda: save(2), check_new)


def cache(disk: Disk) -> None:
    from dsr.files.cache import cached

    def save(value: int, build: bool = True) -> None:
        def arrays() -> dict[str, np.ndarray]:
            assert build, "built again, though the entry was written"
            return {"x": np.full(100_000, value), "y": np.arange(value)}

        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = cached(disk.folder, "set", {"value": value}, arrays)
        assert (found["x"] == value).all() and found["y"].tolist() == list(range(value))
        assert not any(array.flags.writeable for array in found.values())
        if told:
            assert len(told) == 1 and told[0].category is RuntimeWarning, told
            raise Told(str(told[0].message))

    disk.replace(disk.folder / "set.cache", lambda: save(1), lambda: save(2), lambda: save(2, build=False))


def metrics(disk: Disk) -> None:
    from dsr.train import run_folder

    new = [{"epoch": epoch, "loss": 1 / epoch, "firing_rate": {"neuron1": 0.1}} for epoch in range(1, 60)]
    old = new[:-1]
    names = sorted([run_folder.METRICS, run_folder.TABLE])

    def check(call: str) -> None:
        table = (disk.folder / run_folder.TABLE).read_text()
        assert run_folder.load_metrics(disk.folder) in ([new] if call == "" else [old, new])
        assert table.count("\n") in ([60] if call == "" else [59, 60]) and table.endswith("\n")
        assert disk.files() == names

    def prepare() -> None:
        run_folder.write_metrics(disk.folder, old)
        assert run_folder.load_metrics(disk.folder) == old and disk.files() == names

    disk.each_fault(prepare, lambda: run_folder.write_metrics(disk.folder, new), check)


def nir(disk: Disk) -> None:
    import dsr
    import dsr.nir

    path = disk.folder / "net.nir"
    networks = [dsr.Network(dsr.Sequential(dsr.Linear(30, 20), dsr.IF(v_threshold=0.2)), 4, seed) for seed in (1, 2)]
    images = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    expected = [network.predict(images) for network in networks]
    assert not np.array_equal(*expected)

    def save(number: int) -> None:
        dsr.nir.save(networks[number], (30,), path)

    def check_new() -> None:
        assert np.array_equal(dsr.nir.load(path).predict(images), expected[1])

    disk.replace(path, lambda: save(0), lambda: save(1), check_new)


CONTENT = np.random.default_rng(3).bytes(2_300_000)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client has no more room
            self.wfile.write(CONTENT[start:])

    def log_message(self, format, *arguments):
        pass


def download(disk: Disk) -> None:
    from dsr.files.download import download

    target = disk.folder / "set.bin"
    checksum = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def get() -> None:
        download(f"http://127.0.0.1:{server.server_port}/", target, checksum, say=str)

    def prepare() -> None:
        if disk.files():
            get()
            assert disk.files() == [target.name] and target.read_bytes() == CONTENT
            target.unlink()

    def check(call: str) -> None:
        assert disk.files() in ([], [target.name], [f"{target.name}.part"])
        if target.exists():
            assert call in ("", AFTER_RENAME) and target.read_bytes() == CONTENT
        else:
            assert call != ""
            part = target.with_name(target.name + ".part")
            assert not part.exists() or CONTENT.startswith(part.read_bytes())

    disk.each_fault(prepare, get, check)
    server.shutdown()


def training(disk: Disk) -> None:
    from dsr import data, train
    from dsr.data import ArraySamples, DataSet
    from dsr.files import checkpoint
    from dsr.train import recipe, run_folder, tensorboard

    tensorboard.available = lambda: False  # its files are written by a thread of TensorBoard
    digits = data.load("digits")
    first = ArraySamples(digits.train.batch(np.arange(96)), digits.train.labels[:96])
    samples = DataSet("digits", digits.classes, digits.features, first, first)
    plan = recipe.load("digits", ["epochs=3", "width=4", "batch_size=48", "ema_decay=0.5", "warmup_steps=0"])
    folder, whole = disk.folder / "run", disk.folder.with_name("whole")

    def trainer(path: Path) -> train.Trainer:
        return train.Trainer(plan, samples, path, str, save_every=0)

    def content(path: Path) -> object:
        found = []
        for name in (run_folder.CHECKPOINT, run_folder.BEST):
            arrays, metadata = checkpoint.load(path / name)
            del metadata["metrics"]["seconds"], metadata["position"]["seconds"]
            found.append((metadata, {key: (a.dtype.str, a.shape, a.tobytes()) for key, a in arrays.items()}))
        lines = [{key: value for key, value in m.items() if key != "seconds"} for m in run_folder.load_metrics(path)]
        return found, lines

    trainer(whole).fit()
    expected = content(whole)
    accuracies = [m["test_accuracy"] for m in run_folder.load_metrics(whole)]
    improved = [a > max(accuracies[:i], default=-1) for i, a in enumerate(accuracies)]
    assert improved == [True] * 3, accuracies  # else less is tried than meant

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def check(call: str) -> None:
        files = {path.name for path in folder.iterdir()}
        assert files <= {run_folder.CHECKPOINT, run_folder.BEST, run_folder.METRICS, run_folder.TABLE}, files
        run_folder.load_metrics(folder)
        for name in files & {run_folder.CHECKPOINT, run_folder.BEST}:
            run_folder.load_run(folder, best=name == run_folder.BEST)
        again = trainer(folder)
        if run_folder.CHECKPOINT in files:
            again.resume()
        again.fit()
        assert content(folder) == expected, "the run that went on differs from one without faults"

    disk.each_fault(prepare, lambda: trainer(folder).fit(), check)


def command(disk: Disk) -> None:
    """What a person reads, and the exit status."""
    from dsr.__main__ import main
    from dsr.files import checkpoint, figures
    from dsr.train import run_folder, tensorboard

    tensorboard.available = figures.available = lambda: False
    folder = disk.folder / "run"
    words = [
        "train",
        "digits",
        "--out",
        str(folder),
        "--set",
        "width=2",
        "--set",
        "batch_size=512",
        "--set",
        "epochs=1",
    ]

    def save() -> None:
        errors = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            status = main(words)
        if status:
            assert status == 1 and errors.getvalue().startswith("dsr: "), errors.getvalue()
            assert errors.getvalue().count("\n") == 1, errors.getvalue()
            raise Told(errors.getvalue())

    def check(call: str) -> None:
        for name in (run_folder.CHECKPOINT, run_folder.BEST):
            if (folder / name).exists():
                checkpoint.load(folder / name)

    disk.each_fault(lambda: shutil.rmtree(folder, ignore_errors=True), save, check)


if __name__ == "__main__":
    library, scenario, base, every = sys.argv[1:]
    place = Path(base) / "disk"
    place.mkdir()
    tried = Disk(library, place, int(every))
    {f.__name__: f for f in (checkpoint, cache, metrics, nir, download, training, command)}[scenario](tried)
    print(json.dumps(tried.counted))
