"""Memory of a load: at most twice the file, or what is in it where that is larger, and an allowance that is fixed.

Measured as the largest resident memory of another process, which reads nothing else. Packed events and compressed
arrays are larger in memory than in their file: then twice the content is the limit.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_mutations as files
from safetensors.numpy import save_file
from test_data_cifar import batch10, made_up, pickled
from test_events import AEDAT31_HEADER, packet, polarity_words, some_events
from test_foreign import archive, plain, tensor

import dsr
from dsr.data.events import array
from dsr.data.events.reading import read_events
from dsr.files import checkpoint
from dsr.files.errors import DataError

MIB = 1 << 20
ALLOWANCE = 32 * MIB
"""Of whole files: what decoding a block of events takes, and the like."""
HUGE_ALLOWANCE = 160 * MIB
"""Of files that claim what they have not: as much as the limits of the readers let through."""

MEASURE = """
import json, re, sys
from pathlib import Path

import numpy as np
import safetensors.numpy, zipfile

def status(key):
    return 1024 * int(re.search(key + r":\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

job = json.loads(sys.argv[1])
exec(job["load"])
results = []
for path in map(Path, job["paths"]):
    Path("/proc/self/clear_refs").write_text("5")
    start, said = status("VmRSS"), ""
    try:
        content = load(path)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    results.append([status("VmHWM") - start, said])
    content = None
print(json.dumps(results))
"""

LOADS = {
    "checkpoint": "from dsr.files.checkpoint import load",
    "events": "from dsr.data.events.reading import read_events\n"
    "load = lambda path: read_events(path, (128, 128) if path.suffix in ('.bin', '.npy') else None)",
    "pickle": "from dsr.files.pickles import read_dict\nload = lambda path: read_dict(path.read_bytes(), path)",
    "weights": "import dsr\nfrom dsr.weights import load_state\n"
    "network = dsr.Network(dsr.Sequential(linear=dsr.Linear(1024, 8192 * {mib} // 32)), 1)\n"
    "load = lambda path: load_state(network, path)",
    "cifar": "from dsr.data.cifar import load_cifar10 as load",
    "image": "from dsr.data.images import Decoder\nload = lambda path: Decoder(8).one(str(path))",
    "nir": "from dsr.nir import load",
}


def measured(load: str, paths: list[Path]) -> list[tuple[int, str]]:
    """Largest memory of each load beyond that before it, and the error that it ended in."""
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("ASan keeps freed memory")
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not tell the memory of a part of a process")
    job = json.dumps({"load": load, "paths": list(map(str, paths))})
    command = [sys.executable, "-P", "-X", "faulthandler", "-c", MEASURE, job]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [(peak, said) for peak, said in json.loads(done.stdout.splitlines()[-1])]


def events_of(mib: int) -> np.ndarray:
    events = some_events(mib * MIB // 8)
    events["t"] = np.sort(events["t"].astype(np.int64) * 40 % (1 << 22))
    return events


def aedat31(events: np.ndarray) -> bytes:
    parts = [packet(polarity_words(events[n : n + 8192])) for n in range(0, len(events), 8192)]
    return AEDAT31_HEADER + b"".join(parts)


def torch_file(state: dict[str, np.ndarray]) -> bytes:
    items = b"".join(
        plain(name) + tensor(key=str(n), shape=a.shape, strides=tuple(s // 4 for s in a.strides), count=a.size)
        for n, (name, a) in enumerate(state.items())
    )
    return archive(items, data={str(n): a.tobytes() for n, a in enumerate(state.values())})


KINDS = ["checkpoint", "safetensors", "npz", "npz-compressed", "pth", "pickle", *files.EVENT_FILES]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files(tmp_path, amount, figure, kind):
    mib = amount(16, 64)
    content, load = 0, LOADS["weights"].format(mib=mib)
    rng, path = np.random.default_rng(0), tmp_path / kind
    if kind == "checkpoint":
        load = LOADS["checkpoint"]
        checkpoint.save(path, {"a": rng.random(mib * MIB // 4, np.float32), "b": np.zeros(3)}, {"step": 1})
    elif kind == "pickle":
        load = LOADS["pickle"]
        path.write_bytes(pickled(batch10(made_up(mib * MIB // 3073, (10,), 1))))
    elif kind in files.EVENT_FILES:
        load, path = LOADS["events"], path.with_name(f"x{kind}")
        events = events_of(mib)
        content = events.nbytes
        path.write_bytes(aedat31(events) if kind == "31.aedat" else files.EVENT_FILES[kind](events))
    else:
        network = dsr.Network(dsr.Sequential(linear=dsr.Linear(1024, 8192 * mib // 32)), 1)
        state = network.state()
        content = sum(array.nbytes for array in state.values())
        if kind == "safetensors":
            path = path.with_name("w.safetensors")
            save_file(state, path)
        elif kind == "pth":
            path = path.with_name("w.pth")
            path.write_bytes(torch_file(state))
        else:
            path = path.with_name("w.npz")
            (np.savez if kind == "npz" else np.savez_compressed)(path, **state)
    size = path.stat().st_size
    ((peak, said),) = measured(load, [path])
    assert said == ""
    figure(f"{size / MIB:.0f} MiB in the file, {peak / MIB:.0f} MiB of memory, {peak / size:.2f} times")
    assert peak <= 2 * max(size, content) + ALLOWANCE


def bomb(name: str, size: int = 200 << 20) -> bytes:
    """A ZIP archive of a file of zeros, 1,000 times as long as the archive."""
    buffer, about = io.BytesIO(), zipfile.ZipInfo(name)
    about.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w") as file, file.open(about, "w") as member:
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def npy_claim(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(64)


def zipped(content: bytes, name: str = "linear.weight.npy") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, content)
    return buffer.getvalue()


def safetensors_claim(shape: list[int]) -> bytes:
    stop = 4 * shape[0]
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, stop]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(64)


def png_claim(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def tar_claim() -> bytes:
    about = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    about.size = 1 << 40
    return gzip.compress(about.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


HUGE: dict[str, dict[str, Callable[[], bytes]]] = {
    "checkpoint": {
        "shape.safetensors": lambda: safetensors_claim([1 << 40]),
        "header.safetensors": lambda: (1 << 62).to_bytes(8, "little") + b"{}",
        "long.safetensors": lambda: (60 << 20).to_bytes(8, "little") + b" " * (60 << 20),
    },
    "weights": {
        "shape.safetensors": lambda: safetensors_claim([1 << 40]),
        "shape.npz": lambda: zipped(npy_claim((1 << 40,))),
        "axes.npz": lambda: zipped(npy_claim((1 << 31, 1 << 31, 1 << 31))),
        "bomb.npz": lambda: bomb("linear.weight.npy"),
        "entries.npz": lambda: zipped(npy_claim((1,))) + b"PK\1\2" * (8 << 20),
        "count.pth": lambda: archive(plain("w") + tensor(count=1 << 40)),
        "copies.pth": lambda: archive(plain("w") + tensor(shape=(1 << 30,), strides=(0,))),
        "bomb.pth": lambda: bomb("archive/data.pkl"),
        "lists.pth": lambda: archive(program=b"\x80\2" + b"]" * (16 << 20) + b"."),
    },
    "events": {
        "capacity.aedat": lambda: AEDAT31_HEADER + packet([[1, 1]], capacity=(1 << 28) - 1),
        "shape.npy": lambda: npy_claim((1 << 40,)),
        "shape.npz": lambda: zipped(npy_claim((1 << 40,)), "x.npy"),
        "bomb.npz": lambda: bomb("x.npy"),
    },
    "pickle": {
        "text": lambda: b"\x80\2T\xff\xff\xff\x7fabc.",
        "bytes": lambda: b"\x80\4\x8e" + b"\xff" * 7 + b"\x7fabc.",
        "bytearray": lambda: b"\x80\5\x96" + b"\xff" * 7 + b"\x7fabc.",
        "memo": lambda: b"\x80\2Nr\xff\xff\xff\x7f.",
        "dicts": lambda: b"\x80\2" + b"}" * (16 << 20) + b".",
        "encoded": lambda: (
            b"\x80\2X"
            + (1 << 19).to_bytes(4, "little")
            + b"x" * (1 << 19)
            + b"q\0X\6\0\0\0latin1q\1"
            + b"c_codecs\nencode\nh\0h\1\x86R" * 4000
            + b"."
        ),
    },
    "cifar": {"member.tar.gz": tar_claim},
    "image": {"large.png": lambda: png_claim(60_000), "wide.png": lambda: png_claim(9_999)},
}


@pytest.mark.parametrize("kind", HUGE)
def test_files_that_claim_to_be_huge(tmp_path, figure, kind):
    if kind == "image":
        pytest.importorskip("PIL", reason="images need Pillow")
    paths = [tmp_path / name for name in HUGE[kind]]
    for path in paths:
        path.write_bytes(HUGE[kind][path.name]())
    found = measured(LOADS[kind].format(mib=1), paths)
    for path, (peak, said) in zip(paths, found, strict=True):
        assert said.startswith(("DataError: ", "CheckpointError: ", "ValueError: ")) and str(path) in said, said
        assert peak <= 2 * path.stat().st_size + HUGE_ALLOWANCE, f"{path.name}: {peak / MIB:.0f} MiB: {said[:300]}"
    figure(", ".join(f"{path.name} {peak / MIB:.0f} MiB" for path, (peak, _) in zip(paths, found, strict=True)))


def test_graphs_that_claim_to_be_huge(tmp_path, figure):
    pytest.importorskip("nir", reason="NIR files need the package nir")
    h5py = pytest.importorskip("h5py", reason="NIR files are HDF5")
    paths = [tmp_path / "shape.nir", tmp_path / "links.nir", tmp_path / "zeros.nir"]
    with h5py.File(paths[0], "w") as file:
        file.create_dataset("node/weight", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))
    with h5py.File(paths[1], "w") as file:
        group = file.create_group("node")
        for _ in range(40):  # each has the next twice
            following = group.create_group("a")
            group["b"] = following
            group = following
    with h5py.File(paths[2], "w") as file:
        file.create_dataset("node/weight", (1 << 27,), "f8", compression="gzip", chunks=(1 << 20,))
    found = measured(LOADS["nir"], paths)
    for path, (peak, said) in zip(paths, found, strict=True):
        assert said.startswith(f"DataError: load: {path}: "), said
        assert peak <= 2 * path.stat().st_size + HUGE_ALLOWANCE, f"{path.name}: {peak / MIB:.0f} MiB: {said[:300]}"
    figure(", ".join(f"{path.name} {peak / MIB:.0f} MiB" for path, (peak, _) in zip(paths, found, strict=True)))


@pytest.mark.parametrize("block", [1, 2, 7])
@pytest.mark.parametrize("kind", ["2.aedat", "31.aedat", "a.bin", "a.dat"])
def test_blocks_make_no_difference(tmp_path, monkeypatch, kind, block):
    """With clocks that end, records that are skipped, and times that go back, between blocks and within them."""
    events, path = some_events(40), tmp_path / kind
    events["t"] += 1 << 21
    content = files.EVENT_FILES[kind](events)
    if kind == "2.aedat":
        trigger, early = b"\0\0\x80\0" + bytes(4), b"\0\0\x43\x90" + b"\xff" * 4
        content += trigger + early + files.EVENT_FILES[kind](events).split(b"\n")[-1][-8:] + trigger
    elif kind == "a.bin":
        content = b"\0\xf0\0\0\0" * 3 + content + b"\0\xf0\0\0\0"
    path.write_bytes(content)
    size = (128, 128) if kind == "a.bin" else None
    whole = read_events(path, size)
    backwards = tmp_path / f"b{kind}"
    backwards.write_bytes(content + content[-16:-8] if kind == "a.dat" else content + b"\0\0\0\0\1")
    monkeypatch.setattr(array, "BLOCK", block)
    parts = read_events(path, size)
    np.testing.assert_array_equal(parts.events, whole.events)
    assert (parts.sensor_size, parts.skipped) == (whole.sensor_size, whole.skipped)
    if kind in ("a.bin", "a.dat"):
        with pytest.raises(DataError, match=rf"byte {len(content)}: time goes back"):
            read_events(backwards, size)
