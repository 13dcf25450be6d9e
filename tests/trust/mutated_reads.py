"""Reads mutated files one after the other; a process of its own for `test_mutations`, which may crash or hang.

    python mutated_reads.py '{"reader": ..., "folder": ..., "targets": {FILE: KIND}, "seed": ..., "first": 0, ...}'

Each case changes one of the files and reads the folder. What may come of it: the one kind of error of this reader, with
the path of the file and a reason; or the content of the file as it was; or, where no checksum can tell, content that is
well formed. The last line of the output says what came, in JSON. If there is a case that ended otherwise, it is the
last one, its bytes stay where they were read, and ``case`` beside the folder has its number and its file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from mutations import mutate_and_tell

MIB = 1 << 20
GROWTH = 64 * MIB
"""Memory that reading files of a few kilobytes may take, beyond what reading the file as it was took."""
ADDRESSES = 1 << 30
"""Memory that may be reserved in all beyond that at the start; more is a MemoryError, and so an error of the test."""
LONGEST = 1000
"""Characters of a message, which people are to read, without the path."""


@dataclass(frozen=True)
class Reader:
    """How files of a format are read, and what may come of it.

    Attributes
    ----------
    read : callable
        ``read(folder, file)``: the content.
    errors : tuple of type
        What is raised for a file that is not what it should be: these themselves, no others derived from them.
    well_formed : callable, optional
        Whether content is such as the reader promises. None: a checksum tells every change.
    growth : int
        Memory that a case may take; compressed images may become as large as `dsr.data.images` lets through.
    """

    read: Callable[[Path, Path], Any]
    errors: tuple[type[Exception], ...]
    well_formed: Callable[[Any], bool] | None = None
    growth: int = GROWTH


def is_array(value: Any, dtype: Any, *shape: int | None) -> bool:
    fits = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == len(shape)
    return fits and all(length in (None, own) for own, length in zip(value.shape, shape, strict=True))


# -------------------------------------------------------------------------------------------------- dsr's own files


def checkpoint_reader() -> Reader:
    from dsr.files.checkpoint import CheckpointError, load

    return Reader(lambda folder, file: load(file), (CheckpointError,))


def run_reader() -> Reader:
    from dsr.files.checkpoint import CheckpointError
    from dsr.train.run_folder import load_run

    def read(folder: Path, file: Path) -> Any:
        network, recipe, metadata = load_run(folder)
        return network.state(), asdict(recipe), metadata

    return Reader(read, (CheckpointError,))


def metrics_reader() -> Reader:
    from dsr.train.run_folder import load_metrics

    def well_formed(content: Any) -> bool:
        return all(isinstance(entry, dict) and type(entry.get("epoch")) is int for entry in content)

    return Reader(lambda folder, file: load_metrics(folder), (ValueError,), well_formed)


def cache_reader() -> Reader:
    """An entry that is not what was written is built again: `Rebuilt` takes the place of the error."""
    from dsr.files.cache import cached

    class Rebuilt(Exception):
        pass

    def read(folder: Path, file: Path) -> Any:
        def build() -> Any:
            raise Rebuilt(f"{file}: it is built again")

        return cached(folder, file.stem, {"timesteps": 10, "sources": [["a", 1]]}, build)

    def well_formed(content: Any) -> bool:
        return all(isinstance(array, np.ndarray) and array.dtype.kind in "biufc" for array in content.values())

    return Reader(read, (Rebuilt,), well_formed)


def recipe_reader() -> Reader:
    from dsr.train.recipe import from_dict, load

    def well_formed(content: Any) -> bool:
        return asdict(from_dict(content)) == content

    return Reader(lambda folder, file: asdict(load(str(file))), (ValueError,), well_formed)


# ------------------------------------------------------------------------------------------------------------- images


def cifar_reader() -> Reader:
    """With two images in each file, not ten thousand."""
    from dsr.data import cifar
    from dsr.files.errors import DataError

    kind = cifar._CIFAR10
    batches = {batch: (split, first // 5000, count // 5000) for batch, (split, first, count) in kind.batches.items()}
    cifar._CIFAR10 = replace(kind, batches=batches)

    def read(folder: Path, file: Path) -> Any:
        found = cifar.load_cifar10(file if file.name.endswith(".gz") else folder)
        return [(part.arrays, part.labels) for part in (found.train, found.test)], found.classes

    def well_formed(content: Any) -> bool:
        parts, classes = content
        return all(
            is_array(images, np.uint8, count, 3, 32, 32) and is_array(labels, np.int64, count) and (labels < 10).all()
            for (images, labels), count in zip(parts, (10, 2), strict=True)
        ) and (len(classes) == 10 and all(type(name) is str for name in classes))

    return Reader(read, (DataError,), well_formed)


def images_reader() -> Reader:
    from dsr.data import Preparation
    from dsr.data.folder import load_folder
    from dsr.files.errors import DataError

    def read(folder: Path, file: Path) -> Any:
        found = load_folder(folder, Preparation(image_size=8))
        return found.classes, found.train.batch(np.arange(1)), found.features

    def well_formed(content: Any) -> bool:
        return is_array(content[1], np.float32, 1, 3, 8, 8) and bool(np.isfinite(content[1]).all())

    return Reader(read, (DataError,), well_formed, growth=900 * MIB)


# ------------------------------------------------------------------------------------------------------------- events


def events_reader() -> Reader:
    from dsr.data.events.frames import to_frames
    from dsr.data.events.reading import EVENT, read_events
    from dsr.files.errors import DataError

    def read(folder: Path, file: Path) -> Any:
        found = read_events(file, (128, 128) if file.suffix in (".bin", ".npy") else None)
        frames = [to_frames(found, 3)] if max(found.sensor_size) <= 512 else []
        try:
            frames += [to_frames(found, 3, by="time")] if frames else []
        except ValueError as error:
            if "time goes back" not in str(error):
                raise
        return found.events, found.sensor_size, frames

    def well_formed(content: Any) -> bool:
        events, (width, height, polarities), frames = content
        inside = (events["x"] >= 0) & (events["x"] < width) & (events["y"] >= 0) & (events["y"] < height)
        return (
            is_array(events, EVENT, None)
            and polarities == 2
            and bool(inside.all())
            and len(events) > 0
            and all(counts.sum() == len(events) and counts.min() >= 0 for counts in frames)
        )

    return Reader(read, (DataError,), well_formed)


def recordings_reader() -> Reader:
    """The whole data set, in a folder for each class."""
    from dsr.data import Preparation, load
    from dsr.files.errors import DataError

    def read(folder: Path, file: Path) -> Any:
        place = folder.with_name("cache")
        os.environ["DSR_CACHE"] = str(place)
        for entry in place.glob("*.cache"):
            entry.unlink()
        found = load("events", folder, Preparation(timesteps=2, frames_by="time", image_size=5))
        return found.classes, [(part.batch(np.arange(2)), part.labels) for part in (found.train, found.test)]

    def well_formed(content: Any) -> bool:
        return all(
            is_array(frames, np.float32, 2, 2, 2, 5, 5) and (frames >= 0).all() and np.isfinite(frames).all()
            for frames, _ in content[1]
        )

    return Reader(read, (DataError,), well_formed)


# ------------------------------------------------------------------------------------------------ weights and graphs


def weights_reader() -> Reader:
    import dsr
    from dsr.files.checkpoint import CheckpointError
    from dsr.files.errors import DataError
    from dsr.weights.loading import load_state

    network = dsr.Network(dsr.Sequential(linear=dsr.Linear(3, 2), bn=dsr.BatchNorm(2), neuron=dsr.IF()), 2)
    before = network.state()

    def read(folder: Path, file: Path) -> Any:
        network.load_state(before)
        try:
            load_state(network, file)
        except Exception:
            assert same(network.state(), before), "the network was changed"
            raise
        return network.state()

    def well_formed(content: Any) -> bool:
        return all(is_array(content[name], np.float32, *array.shape) for name, array in before.items()) and all(
            np.isfinite(array).all() for array in content.values()
        )

    return Reader(read, (ValueError, DataError, CheckpointError), well_formed)


def nir_reader() -> Reader:
    import dsr.nir
    from dsr.files.errors import DataError

    def read(folder: Path, file: Path) -> Any:
        network = dsr.nir.load(file)
        return [type(layer) for _, layer in network.body.walk()], network.state()

    def well_formed(content: Any) -> bool:
        return all(is_array(array, np.float32, *array.shape) for array in content[1].values()) and all(
            np.isfinite(array).all() for array in content[1].values()
        )

    return Reader(read, (DataError,), well_formed)


READERS = {name.removesuffix("_reader"): make for name, make in list(globals().items()) if name.endswith("_reader")}

# -------------------------------------------------------------------------------------------------------------- cases


def same(a: Any, b: Any) -> bool:
    """Whether content is equal, to the bit."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(item, b[key]) for key, item in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def peak() -> int:
    """Largest resident memory of this process so far, in bytes; ru_maxrss would count that of its parent."""
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])


def outcome(
    reader: Reader, folder: Path, file: Path, files: Iterable[Path], original: Any, sealed: bool
) -> tuple[str, str]:
    """What comes of reading: refused, equal, well formed, or wrong; and more words on it."""
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(said):
        warnings.simplefilter("always")
        try:
            content, error = reader.read(folder, file), None
        except Exception as raised:
            content, error = None, raised
    if warned:
        return "wrong", f"a warning: {warned[0].category.__name__}: {warned[0].message}"
    if error is not None:
        kind, message = type(error), str(error)
        reason = message  # where files contradict each other, any of them may be named
        for path in files:
            reason = reason.replace(str(path), "")
        if kind not in reader.errors:
            return "wrong", f"{kind.__module__}.{kind.__name__}: {message[:500]}"
        if reason == message or not 8 <= len(reason) <= LONGEST:
            return "wrong", f"a message of {len(message)} characters without a path or a reason: {message[:500]}"
        return "refused", message
    if same(content, original):
        return "equal", ""
    if not sealed and reader.well_formed is None:
        return "wrong", "other content than was written"
    if reader.well_formed is not None and not reader.well_formed(content):
        return "wrong", f"malformed content: {str(content)[:500]}"
    return "well formed", ""


def main() -> None:
    job = json.loads(sys.argv[1])
    folder, reader = Path(job["folder"]), READERS[job["reader"]]()
    targets = {folder / name: kind for name, kind in job["targets"].items()}
    originals = {file: file.read_bytes() for file in targets}
    content = [reader.read(folder, next(iter(targets))) for _ in range(2)][1]
    start = peak()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # it reserves terabytes
        status = Path("/proc/self/status").read_text()
        room = 1024 * int(re.search(r"VmSize:\s*(\d+)", status)[1]) + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    counts = {"refused": 0, "equal": 0, "well formed": 0, "wrong": 0}
    words = ""
    for number in range(job["first"], job["first"] + job["count"]):
        rng = Random(f"{job['seed']} {number}")
        file = rng.choice(list(targets))
        changed, sealed = mutate_and_tell(originals[file], targets[file], rng)
        file.unlink()  # an array may still be a map of the old one
        file.write_bytes(changed)
        folder.with_name("case").write_text(f"{number} {file}")
        what, words = outcome(reader, folder, file, targets, content, sealed)
        if peak() > start + reader.growth:
            what, words = "wrong", f"took {(peak() - start) // MIB} MiB for a file of {len(changed)} bytes; {words}"
        counts[what] += 1
        if what == "wrong":
            break
        file.unlink()
        file.write_bytes(originals[file])
    print(json.dumps({**counts, "words": words, "peak": peak() - start}))


if __name__ == "__main__":
    main()
