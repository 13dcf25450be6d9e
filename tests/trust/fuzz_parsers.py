"""Coverage-guided fuzzing of everything that reads files: ``python tests/trust/fuzz_parsers.py --seconds 60``.

Needs atheris, of PyPI (``pip install atheris``), and dsr; what nir, h5py and Pillow read is left out where they are
missing. The first byte of an input names the reader, the rest is the file. Each reader raises what it documents, with a
message that names the file, or it has read the file; anything else, a warning, or more than `MOST_MEMORY`, is a
finding: it is printed once, and its input is kept in the folder ``findings`` beside the corpus.
``--replay FILE`` runs one input.

ZIP archives and .tar.gz are guarded by checksums that random bytes never meet, so that they are tried twice: as they
are, and with the input put into a sound archive.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
MOST_MEMORY = 3 << 30
LONGEST = 1 << 15
SECONDS_OF_ONE_INPUT = 60

try:
    import atheris
except ImportError:
    sys.exit("fuzz_parsers: atheris is not installed; pip install atheris (in an environment of its own will do)")

with atheris.instrument_imports(include=["dsr"]):
    import dsr.nn.layers

    import dsr.data.cifar
    import dsr.data.events.recordings
    import dsr.data.folder
    import dsr.data.images
    import dsr.files.cache
    import dsr.files.checkpoint
    import dsr.files.pickles
    import dsr.nir
    import dsr.nn.layer
    import dsr.nn.network
    import dsr.nn.neurons
    import dsr.train.recipe
    import dsr.weights.reading
    import dsr.weights.torch_file
    from dsr.data.events.reading import EVENT, read_events
    from dsr.files.archive import Archive
    from dsr.files.errors import DataError


class Reader(NamedTuple):
    """One way to read a file."""

    suffix: str
    read: Callable[[Path, bytes], object]
    errors: tuple[type[BaseException], ...]
    pack: Callable[[bytes], bytes] = bytes  # from the input to the file
    needs: str = "dsr"
    names_file: bool = True


# ---- reading ---------------------------------------------------------------------------------------------------------
def torch_tensors(path: Path, _: bytes) -> None:
    """All numbers of all tensors."""
    todo, seen = [dsr.weights.torch_file.read_torch(Archive(path.read_bytes(), str(path)))], set()
    while todo:
        value = todo.pop()
        if isinstance(value, dsr.weights.torch_file.Tensor):
            np.asarray(value)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value


def cifar_archive(path: Path, _: bytes) -> None:
    for _ in dsr.data.cifar._members(path, {"data_batch_1.bin", "batches.meta", "data_batch_1"}):
        pass


def cifar_batch(path: Path, data: bytes) -> None:
    kind = dsr.data.cifar._CIFAR100 if len(data) % 2 else dsr.data.cifar._CIFAR10
    dsr.data.cifar._pickled(kind, data, str(path), 2)


def cifar_names(path: Path, data: bytes) -> None:
    dsr.data.cifar._names(dsr.data.cifar._CIFAR10, dsr.data.cifar._CIFAR10.python, data, str(path))


def cache_entry(path: Path, _: bytes) -> None:
    """An entry that is damaged is built again, and holds what was built."""
    made = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = dsr.files.cache.cached(path.parent, path.stem, {"a": 1}, lambda: {"made": made})
    np.testing.assert_array_equal(found["made"], made)


def image(path: Path, _: bytes) -> None:
    dsr.data.images.Decoder(image_size=8).one(str(path))


def texts(path: Path, _: bytes) -> None:
    try:
        dsr.data.events.recordings._sensor_size(path)
    except DataError:
        shutil.copy(path, path.with_name("classes.txt"))
        dsr.data.folder._names(path.parent, ["n01", "n02"])


def nir_graph(_: Path, data: bytes) -> None:
    """A graph of nodes that the input chooses, with edges mostly from one to the next."""
    graph = random_graph(atheris.FuzzedDataProvider(data))
    if graph is None:
        return
    network = dsr.nir.from_nir(graph)
    if network.timesteps > 100:
        return
    given = tuple(int(length) for length in graph.nodes["in"].input_type["input"])
    rate = network.forward(np.zeros((1, *given), np.float32))
    if not np.isfinite(rate).all():
        raise AssertionError("a network whose rates are not finite")


def random_graph(given: Any) -> Any:
    """None where nir itself refuses."""
    import nir

    floats = (1.0, 0.5, 2.0, 0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 3, -2)
    sizes = (1, 2, 3, 4, 0, -1, 7)

    def size() -> int:
        return sizes[given.ConsumeIntInRange(0, len(sizes) - 1) if given.ConsumeIntInRange(0, 7) == 0 else 1]

    def array(*shape: int) -> Any:
        if given.ConsumeIntInRange(0, 15) == 0:
            shape = tuple(abs(size()) for _ in range(given.ConsumeIntInRange(0, 5)))
        values = np.full([abs(length) for length in shape], floats[given.ConsumeIntInRange(0, len(floats) - 1)])
        if values.size > 1:
            values.flat[given.ConsumeIntInRange(0, values.size - 1)] = given.ConsumeRegularFloat()
        return values.astype(("f4", "f8", "i4", "O", "c8")[min(4, given.ConsumeIntInRange(0, 40))])

    def pair() -> Any:
        return (size(), (size(), size()), np.array([size(), size()]), "same", "valid", 1)[given.ConsumeIntInRange(0, 5)]

    image, nodes = (2, 4, 4), {}
    makers = {
        "affine": lambda: nir.Affine(array(3, 32), array(3)),
        "linear": lambda: nir.Linear(array(2, 3)),
        "conv": lambda: nir.Conv2d(None, array(2, 2, 3, 3), pair(), pair(), pair(), size(), array(2)),
        "avg": lambda: nir.AvgPool2d(pair(), pair(), pair()),
        "sum": lambda: nir.SumPool2d(pair(), pair(), pair()),
        "flatten": lambda: nir.Flatten({"input": np.array(image)}, size(), size()),
        "scale": lambda: nir.Scale(array(*image)),
        "if": lambda: nir.IF(array(*image), array(*image), array(*image)),
        "lif": lambda: nir.LIF(array(3), array(3), array(3), array(3), array(3)),
        "one lif": lambda: nir.LIF(array(), array(), array(), array(), array()),
        "delay": lambda: nir.Delay(array(3)),
    }
    try:
        nodes["in"] = nir.Input({"input": np.array(image if given.ConsumeIntInRange(0, 3) else [size(), size()])})
        for number in range(given.ConsumeIntInRange(0, 6)):
            kind = tuple(makers)[given.ConsumeIntInRange(0, len(makers) - 1)]
            nodes[f"{number}"] = makers[kind]()
        nodes["out"] = nir.Output({"output": np.array([3])})
        names = list(nodes)
        edges = list(pairwise(names))
        for _ in range(given.ConsumeIntInRange(0, 2)):
            edges.append((names[given.ConsumeIntInRange(0, len(names) - 1)], names[-1 - given.ConsumeIntInRange(0, 1)]))
        about: dict[str, Any] = {"timesteps": (2, "2", -1, 2.5, None, [1], 1 << 70)[given.ConsumeIntInRange(0, 6)]}
        about["dt"] = floats[given.ConsumeIntInRange(0, len(floats) - 1)]
        if given.ConsumeIntInRange(0, 3) == 0:
            about |= {"v_threshold": {"2": 1.0}, "alpha": ({"2": "x"}, 1, {"2": 0.5})[given.ConsumeIntInRange(0, 2)]}
        return nir.NIRGraph(nodes, edges, metadata=about, type_check=False)
    except Exception:  # nir's
        return None


# ---- packing ---------------------------------------------------------------------------------------------------------
def in_torch_zip(data: bytes) -> bytes:
    """The input as the pickle of a file of torch.save with two storages."""
    return zipped({"archive/data.pkl": data, "archive/data/0": bytes(range(16)), "archive/data/1": bytes(8)})


def in_npz(data: bytes) -> bytes:
    """The input as up to four arrays, each behind its length."""
    names, files = iter(("events.npy", "x.npy", "y.npy", "t.npy", "p.npy", "sensor_size.npy")), {}
    while len(data) > 2 and (name := next(names, None)):
        length = int.from_bytes(data[:2], "little")
        if length:
            files[name] = data[2 : 2 + length]
        data = data[2 + length :]
    return zipped(files)


def in_tar(data: bytes) -> bytes:
    return gzip.compress(data, 0, mtime=0)


def as_checkpoint(data: bytes) -> bytes:
    """The input as a checkpoint's metadata, with the checksum that belongs to it."""
    text = data.decode("latin-1")
    about = {"format": "dsr-checkpoint", "version": "1", "metadata": text}
    header = json.dumps({"__metadata__": about | {"sha256": hashlib.sha256(text.encode()).hexdigest()}}).encode()
    return struct.pack("<Q", len(header)) + header


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


WRONG = (ValueError,)
NIR = (TypeError, ValueError, FloatingPointError)
READERS = {
    "events": Reader(".bin", lambda path, _: read_events(path), (DataError,)),
    "events, size given": Reader(".bin", lambda path, _: read_events(path, (128, 128)), (DataError,)),
    "npz of events": Reader(".npz", lambda path, _: read_events(path, (128, 128)), (DataError,), in_npz),
    "torch": Reader(".pth", torch_tensors, (DataError,)),
    "pickle of torch": Reader(".pth", torch_tensors, (DataError,), in_torch_zip),
    "pickle": Reader(".pkl", lambda path, data: dsr.files.pickles.read_dict(data, path), (DataError,)),
    "batch of cifar": Reader(".pkl", cifar_batch, (DataError,)),
    "names of cifar": Reader(".pkl", cifar_names, (DataError,)),
    "archive of cifar": Reader(".tar.gz", cifar_archive, (DataError,)),
    "tar of cifar": Reader(".tar.gz", cifar_archive, (DataError,), in_tar),
    "checkpoint": Reader(
        ".safetensors", lambda path, _: dsr.files.checkpoint.load(path), (dsr.files.checkpoint.CheckpointError,)
    ),
    "metadata": Reader(
        ".safetensors",
        lambda path, _: dsr.files.checkpoint.load(path),
        (dsr.files.checkpoint.CheckpointError,),
        as_checkpoint,
    ),
    "safetensors": Reader(".safetensors", lambda path, _: dsr.weights.reading.read_arrays("load_state", path), WRONG),
    "npz": Reader(".npz", lambda path, _: dsr.weights.reading.read_arrays("load_state", path), WRONG),
    "npz of weights": Reader(
        ".npz", lambda path, _: dsr.weights.reading.read_arrays("load_state", path), WRONG, in_npz
    ),
    "weights of torch": Reader(
        ".pth", lambda path, _: dsr.weights.reading.read_arrays("load_state", path), WRONG, in_torch_zip
    ),
    "cache": Reader(".cache", cache_entry, ()),
    "recipe": Reader(".toml", lambda path, _: dsr.train.recipe.load(str(path)), WRONG, names_file=False),
    "texts": Reader(".txt", texts, (DataError,), names_file=False),
    "image": Reader(".png", image, (DataError,), needs="PIL"),
    "nir": Reader(".nir", lambda path, _: dsr.nir.load(path), (*NIR, OSError), needs="nir", names_file=False),
    "nir graph": Reader(".nir", nir_graph, NIR, needs="nir", names_file=False),
}
NAMES = list(READERS)


# ---- seeds -----------------------------------------------------------------------------------------------------------
def seeds() -> Iterator[tuple[str, bytes]]:
    """Small sound files of each format."""
    events = np.array([(1, 2, 3, 0), (100, 20, 5, 1), (33, 33, 5, 1)], EVENT)
    x, y, t, p = (events[name].astype(np.int64) for name in "xytp")
    words = np.stack([x << 17 | y << 2 | p << 1 | 1, t], axis=1).astype("<u4").tobytes()
    packet = struct.pack("<hhiiiiii", 1, 1, 8, 4, 1, 3, 3, 3) + words
    trigger = struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8)
    for kind in ("events", "events, size given"):
        yield (
            kind,
            b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n"
            + np.stack([y << 8 | 254 - 2 * x | 1 - p, t], 1).astype(">u4").tobytes(),
        )
        yield kind, b"#!AER-DAT3.1\r\n#Source 1: DAVIS240C\r\n#!END-HEADER\r\n" + trigger + packet
        yield kind, bytes.fromhex("2121800001 00f0000002 0102000003")
        head = b"% Data file\n% Version 2\n% Width 128\n% Height 128\n\x0c\x08"
        yield kind, head + np.stack([t, x + (y << 14) + (p << 28)], axis=1).astype("<u4").tobytes()
        yield kind, b"% Version 1\n\x00\x08" + np.stack([t, x + (y << 9) + (p << 17)], axis=1).astype("<u4").tobytes()
        yield kind, npy(events)
        yield kind, zipped({f"{name}.npy": npy(events[name]) for name in "xytp"})
    empty = struct.pack("<H", 0)
    yield "npz of events", empty + b"".join(map(behind_length, map(npy, (x, y, t, p, np.array([128, 128])))))
    yield "npz of events", behind_length(npy(events))
    yield "npz of weights", b"".join(map(behind_length, map(npy, (events, np.float32(1), np.zeros((2, 3), ">f8")))))
    small = HERE.parent / "data" / "small.pth"
    with zipfile.ZipFile(small) as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
    tensor = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x02K\x02\x86K\x02K\x01\x86\x89}tRs."
    )
    for kind in ("torch", "weights of torch", "pickle of torch"):
        whole = kind == "torch"
        yield kind, in_torch_zip(tensor) if whole else tensor
        yield kind, small.read_bytes() if whole else program
    for protocol in (0, 2, 5):
        for labels in ("labels", "fine_labels"):
            batch = {
                "data": np.zeros((2, 3072), np.uint8)[:, :4],
                labels: [1, 2],
                "other": (None, 1.5, b"x", {"a": True}),
            }
            yield "pickle", pickle.dumps(batch, protocol)
            yield "batch of cifar", pickle.dumps(batch, protocol)
        yield "names of cifar", pickle.dumps({"label_names": list("abcdefghij"), "num_vis": 3072}, protocol)
        yield "pickle", pickle.dumps({"scalar": np.float64(1.5), "big": np.arange(3, dtype=">i4")}, protocol)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("cifar-10-batches-py/batches.meta", "other"):
            about = tarfile.TarInfo(name)
            about.size = 3
            tar.addfile(about, io.BytesIO(b"abc"))
    tar_bytes = buffer.getvalue()[:2560]
    yield "tar of cifar", tar_bytes
    yield "archive of cifar", gzip.compress(tar_bytes, mtime=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "seed")
        dsr.files.checkpoint.save(file, {"network.w": np.ones((2, 3), np.float32), "n": np.array(3)}, {"epoch": 1})
        yield "checkpoint", file.read_bytes()
        yield "safetensors", file.read_bytes()
        dsr.files.cache.cached(
            Path(folder), "seed", {"a": 1}, lambda: {"made": np.arange(12, dtype=np.float32).reshape(3, 4)}
        )
        yield "cache", Path(folder, "seed.cache").read_bytes()
    from safetensors.numpy import save

    yield "safetensors", save({"w": np.zeros((2, 2), np.float32), "b": np.zeros(0, np.int8)})
    yield "metadata", b'{"epoch": 1, "names": ["a", null, 1e3]}'
    yield "npz", zipped({"w.npy": npy(np.zeros((2, 3), np.float32))})
    for name in ("digits", "dvs-cifar10-if"):
        yield "recipe", Path(dsr.__file__).with_name("recipes").joinpath(f"{name}.toml").read_bytes()
    yield "recipe", b'data = "digits"\nmodel = "vgg11"\nlearning_rate = 1\nseed = 0x10\n'
    yield "texts", b"128 128\n"
    yield "texts", b"n01 tench, Tinca tinca\nn02 \n"
    if find_spec("PIL"):
        from PIL import Image

        for kind, mode in (
            ("PNG", "RGB"),
            ("PNG", "P"),
            ("PNG", "I;16"),
            ("JPEG", "RGB"),
            ("BMP", "1"),
            ("WEBP", "RGBA"),
        ):
            buffer = io.BytesIO()
            Image.new(mode, (5, 9)).save(buffer, kind)
            yield "image", buffer.getvalue()
    if find_spec("nir"):
        with tempfile.TemporaryDirectory() as folder:
            network = dsr.nn.network.Network(
                dsr.nn.layer.Sequential(linear=dsr.nn.layers.Linear(3, 2), neuron=dsr.nn.neurons.IF()), 2
            )
            dsr.nir.save(network, (3,), Path(folder, "seed.nir"))
            yield "nir", Path(folder, "seed.nir").read_bytes()
        yield "nir graph", bytes(200)
        yield "nir graph", bytes(range(200))


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def behind_length(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


# ---- running ---------------------------------------------------------------------------------------------------------
class Harness:
    """Runs inputs, and keeps one of each kind that ends in another way than documented."""

    def __init__(self, folder: Path, findings: Path, telling: bool) -> None:
        self.folder, self.findings, self.telling = folder, findings, telling
        self.seen: set[tuple[str, str, str]] = set()

    def __call__(self, data: bytes) -> None:
        if not data:
            return
        name = NAMES[data[0] % len(NAMES)]
        reader = READERS[name]
        if find_spec(reader.needs) is None:
            return
        path = self.folder / f"file{reader.suffix}"
        content = reader.pack(data[1:])
        path.write_bytes(content)
        try:
            reader.read(path, content)
        except reader.errors as error:
            if reader.names_file and str(path) not in str(error):
                self.keep(name, data, f"a message that does not name the file: {error!r}", error)
        except Exception as error:
            self.keep(name, data, f"{type(error).__name__}: {error}", error)

    def keep(self, name: str, data: bytes, what: str, error: BaseException) -> None:
        lines = traceback.extract_tb(error.__traceback__)
        own = [line for line in lines if "/dsr/" in line.filename] or lines
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        mark = (name, type(error).__name__, place)
        if mark in self.seen:
            return
        self.seen.add(mark)
        file = self.findings / hashlib.sha256(repr(mark).encode()).hexdigest()[:12]
        file.write_bytes(data)
        print(f"FINDING {name}, {place}: {what[:300]}\n  input kept as {file}", flush=True)
        if self.telling:
            traceback.print_exception(error)


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing of the readers of files.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="kept and grown; by default a temporary folder")
    parser.add_argument("--findings", type=Path, help="by default the folder findings beside the corpus")
    parser.add_argument("--replay", type=Path, nargs="*", help="run these inputs only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("error")
    memory = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="dsr-fuzz-", dir=memory))
    corpus = options.corpus or folder / "corpus"
    findings = options.findings or corpus.parent / "findings"
    for each in (corpus, findings, folder / "files"):
        each.mkdir(parents=True, exist_ok=True)
    harness = Harness(folder / "files", findings, telling=bool(options.replay))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    if options.replay:
        for file in options.replay:
            harness(file.read_bytes())
        shutil.rmtree(folder)
        sys.exit(bool(harness.seen))
    for name, data in seeds():
        whole = bytes([NAMES.index(name)]) + data
        (corpus / hashlib.sha1(whole).hexdigest()).write_bytes(whole)
        before = len(harness.seen)
        harness(whole)
        if len(harness.seen) > before:
            print(f"(that was a seed of {name})")
    flags = [f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-max_len={LONGEST}", "-rss_limit_mb=0"]
    flags += [f"-timeout={SECONDS_OF_ONE_INPUT}", f"-artifact_prefix={findings}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], harness)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
