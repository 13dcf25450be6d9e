"""Damaged files of every format: one kind of error with path and reason, or the right content, and never anything else.

Mutated files are read in processes of their own (`mutated_reads`), so that a crash is a result too. A case that ends
otherwise is told with its bytes, or, if they are many, with the call that makes them again.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors
from shared_events import aedat2_bytes, nmnist_bytes
from test_data_cifar import NAMES10, batch10, made_up, pickled
from test_events import aedat31_bytes, dat_bytes, npy_bytes, npz_of, some_events
from test_foreign import archive, plain, tensor

import dsr
from dsr.files import checkpoint
from dsr.files.cache import cached
from dsr.train import recipe, run_folder
from dsr.train.build import build_network

HERE = Path(__file__).resolve().parent
CHUNK = 2500
"""Cases of a process."""
SHOWN = 6000
"""Bytes of a file that a message may hold."""

Files = dict[str, bytes]


def three_layers() -> dsr.Network:
    return dsr.Network(dsr.Sequential(linear=dsr.Linear(3, 2), bn=dsr.BatchNorm(2), neuron=dsr.IF()), 2)


def a_checkpoint(folder: Path) -> None:
    """Such as a training writes, of 1 KiB."""
    rng = np.random.default_rng(0)
    arrays = {f"network.layer{n}.weight": rng.normal(size=(4, 3)).astype(np.float32) for n in range(3)}
    arrays |= {
        "count": np.array([1, 2], np.uint32),
        "scalar": np.array(0.5),
        "none": np.empty((0, 3)),
        "b": np.ones(3, bool),
    }
    checkpoint.save(folder / "a.safetensors", arrays, {"step": 7, "recipe": {"name": "später", "epochs": 3}})


def a_run(folder: Path) -> None:
    """A run of the smallest network."""

    made = recipe.load("digits", ["width=2", "timesteps=2"])
    network = build_network(made, (1, 8, 8), 2)
    arrays = {f"network.{name}": array for name, array in network.state().items()}
    about = {
        "recipe": made.to_dict(),
        "features": [1, 8, 8],
        "classes": ["0", "1"],
        "position": {"epoch": 1, "step": 9},
    }
    checkpoint.save(folder / run_folder.CHECKPOINT, arrays, about)


def metrics(folder: Path) -> None:
    entry = {"loss": 0.5, "train_accuracy": 0.75, "firing_rate": {"a": 0.25}, "v_threshold": {"a": 1.0}, "seconds": 2}
    run_folder.write_metrics(folder, [{"epoch": epoch, **entry} for epoch in (1, 2, 3)])
    (folder / run_folder.TABLE).unlink()


def a_cache(folder: Path) -> None:
    arrays = {"frames": np.arange(60, dtype=np.uint8).reshape(5, 12), "sensor_size": np.array([34, 34, 2])}
    cached(folder, "entry", {"timesteps": 10, "sources": [["a", 1]]}, lambda: arrays)


def a_recipe(folder: Path) -> None:
    lines = Path(dsr.__file__).with_name("recipes").joinpath("digits.toml").read_text()
    more = 'flip = true\nschedule = "triangular"\nv_threshold_lower_bound = 1e-3\nmodel = "digits"\n'
    (folder / "a.toml").write_text(lines.replace('model = "digits"\n', more))


def cifar_files() -> tuple[Files, Files]:
    """Of the binary and of the Python version."""
    batches = {
        name: made_up(2, (10,), n) for n, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"])
    }
    binary = {f"{name}.bin": records.tobytes() for name, records in batches.items()}
    pickles = {name: pickled(batch10(records)) for name, records in batches.items()}
    return binary | {"batches.meta.txt": "\n".join(NAMES10).encode()}, pickles | {
        "batches.meta": pickled({"label_names": NAMES10})
    }


def write(files: Files) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return make


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(f"folder/{name}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def images(ending: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        from PIL import Image

        for place in ("train/a/x", "train/b/x", "val/a/x", "val/b/x"):
            (folder / place).parent.mkdir(parents=True)
            pixels = np.random.default_rng(0).integers(256, size=(12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{place}.{ending}")

    return make


def recordings() -> Files:
    files = {
        f"{split}/{name}/{n}.npz": npz_of(some_events(9, n))
        for split in ("train", "test")
        for n, name in enumerate("ab")
    }
    return files | {"sensor_size.txt": b"128 128\n"}


def weights() -> Files:
    """Of the small network, by its names, in three formats."""
    state = {name: np.asarray(array + np.float32(0.25)) for name, array in three_layers().state().items()}
    npz = io.BytesIO()
    np.savez(npz, **state)
    items = b"".join(
        plain(name) + tensor(key=str(n), shape=a.shape, strides=tuple(s // 4 for s in a.strides), count=a.size)
        for n, (name, a) in enumerate(state.items())
    )
    storages = {str(n): array.tobytes() for n, array in enumerate(state.values())}
    return {"w.safetensors": to_safetensors(state), "w.npz": npz.getvalue(), "w.pth": archive(items, data=storages)}


def a_graph(folder: Path) -> None:
    import dsr.nir

    dsr.nir.save(three_layers(), (3,), folder / "a.nir")


EVENT_FILES = {
    "2.aedat": aedat2_bytes,
    "31.aedat": aedat31_bytes,
    "a.bin": nmnist_bytes,
    "a.dat": dat_bytes,
    "a.npz": npz_of,
    "a.npy": npy_bytes,
}


def event_files(name: str) -> Callable[[Path], None]:
    return write({name: EVENT_FILES[name](some_events(12))})


FORMATS: dict[str, tuple[str, Callable[[Path], None], dict[str, str]]] = {
    "run": ("run", a_run, {run_folder.CHECKPOINT: "safetensors"}),
    "metrics": ("metrics", metrics, {run_folder.METRICS: "jsonl"}),
    "cache": ("cache", a_cache, {"entry.cache": "cache"}),
    "recipe": ("recipe", a_recipe, {"a.toml": "text"}),
    "cifar-binary": (
        "cifar",
        write(cifar_files()[0]),
        {"data_batch_2.bin": "", "test_batch.bin": "", "batches.meta.txt": "text"},
    ),
    "cifar-python": ("cifar", write(cifar_files()[1]), {"data_batch_2": "pickle", "batches.meta": "pickle"}),
    "cifar-tar": ("cifar", write({"a.tar.gz": tarred(cifar_files()[0])}), {"a.tar.gz": "tar.gz"}),
    "jpeg": ("images", images("jpg"), {"train/a/x.jpg": ""}),
    "png": ("images", images("png"), {"train/a/x.png": "png"}),
    "webp": ("images", images("webp"), {"train/a/x.webp": ""}),
    "bmp": ("images", images("bmp"), {"train/a/x.bmp": ""}),
    "aedat-2": ("events", event_files("2.aedat"), {"2.aedat": ""}),
    "aedat-3.1": ("events", event_files("31.aedat"), {"31.aedat": ""}),
    "nmnist": ("events", event_files("a.bin"), {"a.bin": ""}),
    "dat": ("events", event_files("a.dat"), {"a.dat": ""}),
    "events-npz": ("events", event_files("a.npz"), {"a.npz": "zip"}),
    "events-npy": ("events", event_files("a.npy"), {"a.npy": "npy"}),
    "recordings": ("recordings", write(recordings()), {"train/a/0.npz": "zip", "sensor_size.txt": "text"}),
    "safetensors": ("weights", write({"w.safetensors": weights()["w.safetensors"]}), {"w.safetensors": "safetensors"}),
    "weights-npz": ("weights", write({"w.npz": weights()["w.npz"]}), {"w.npz": "zip"}),
    "pth": ("weights", write({"w.pth": weights()["w.pth"]}), {"w.pth": "zip"}),
    "nir": ("nir", a_graph, {"a.nir": ""}),
}
NEEDS = {"jpeg": "PIL", "png": "PIL", "webp": "PIL", "bmp": "PIL", "nir": "nir"}


def read_mutated(name: str, reader: str, folder: Path, targets: dict[str, str], cases: int) -> str:
    """Reads so many mutated files in other processes; how many came to what."""
    totals, peak = {"refused": 0, "equal": 0, "well formed": 0}, 0
    for first in range(0, cases, CHUNK):
        job = {"reader": reader, "folder": str(folder), "targets": targets, "seed": name, "first": first}
        command = [sys.executable, "-X", "faulthandler", str(HERE / "mutated_reads.py")]
        process = subprocess.Popen(
            [*command, json.dumps(job | {"count": min(CHUNK, cases - first)})],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=1200)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail(f"{name}: does not end; {_case(folder)}")
        if process.returncode != 0:
            pytest.fail(f"{name}: exit status {process.returncode}; {_case(folder)}\n{err[-3000:]}")
        assert not err, err
        found = json.loads(out.splitlines()[-1])
        if found["wrong"]:
            pytest.fail(f"{name}: {found['words']}; {_case(folder)}")
        peak = max(peak, found["peak"])
        for key in totals:
            totals[key] += found[key]
    assert sum(totals.values()) == cases
    return (
        f"{cases} files: {', '.join(f'{n} {k}' for k, n in totals.items())}; at most {peak / 2**20:.1f} MiB more memory"
    )


def _case(folder: Path) -> str:
    """The case that was under way: its number, its file and the bytes of this."""
    note = folder.with_name("case")
    if not note.exists():
        return "before the first case"
    number, _, file = note.read_text().partition(" ")
    content = Path(file).read_bytes()
    shown = base64.b64encode(content[:SHOWN]).decode() + ("..." if len(content) > SHOWN else "")
    return f"case {number}, {file}, {len(content)} bytes, in base64: {shown}"


def test_mutated_checkpoints(tmp_path, amount, figure):
    folder = tmp_path / "files"
    folder.mkdir()
    a_checkpoint(folder)
    figure(read_mutated("checkpoint", "checkpoint", folder, {"a.safetensors": "safetensors"}, amount(1000, 100_000)))


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files(tmp_path, amount, figure, name):
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    reader, make, targets = FORMATS[name]
    folder = tmp_path / "files"
    folder.mkdir()
    make(folder)
    # a whole data set of recordings is slow; its files are tried one by one as events-npz
    figure(read_mutated(name, reader, folder, targets, amount(100, 2000 if name == "recordings" else 20_000)))
