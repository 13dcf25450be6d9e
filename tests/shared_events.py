"""Event recordings of ../shared/data, written as the files that their data sets are published as.

    python tests/shared_events.py nmnist OUT
        The first 1,000 training and 100 test recordings of N-MNIST, byte for byte as published:
        OUT/train/CLASS/NNNNN.bin and OUT/test/CLASS/NNNNN.bin, numbered from 1 as there.
    python tests/shared_events.py mnist-dvs OUT
        100 recordings of MNIST-DVS as AEDAT 2.0: OUT/CLASS/mnist_CLASS_NN.aedat. Their times start at 0 and end at
        0.2 s, and their coordinates and polarities went through another reader, so that they are not the published
        files.

The archives are read from ../shared, or from DSR_SHARED.
"""

from __future__ import annotations

import io
import lzma
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsr.data.events.reading import EVENT

AEDAT2_HEADER = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
)


def recordings(archive: Path, prefix: str) -> Iterator[tuple[NDArray[np.void], int]]:
    """Events and class of each recording."""
    with tarfile.open(archive) as tar:

        def array(name: str) -> NDArray[np.generic]:
            file = tar.extractfile(f"{prefix}/{name}")
            assert file is not None, f"{name} is no file"
            data = file.read()
            return np.load(io.BytesIO(lzma.decompress(data) if name.endswith(".xz") else data), allow_pickle=False)

        x, y, dt, n = (array(f"{name}.npy.xz") for name in ("x", "y", "dt", "n"))
        p = np.unpackbits(array("p.npy.xz"), count=len(x))
        labels = array("label.npy")
    starts = np.concatenate([[0], np.cumsum(n.astype(np.int64))])
    for start, stop, label in zip(starts, starts[1:], labels, strict=False):
        events = np.empty(stop - start, EVENT)
        events["x"], events["y"], events["p"] = x[start:stop], y[start:stop], p[start:stop]
        events["t"] = np.cumsum(dt[start:stop], dtype=np.int64)
        yield events, int(label)


def nmnist_bytes(events: NDArray[np.void]) -> bytes:
    """A .bin file."""
    t = events["t"]
    columns = [events["x"], events["y"], events["p"] * 128 + (t >> 16), t >> 8 & 255, t & 255]
    return np.stack(columns, axis=1).astype(np.uint8).tobytes()


def aedat2_bytes(events: NDArray[np.void], header: bytes = AEDAT2_HEADER) -> bytes:
    """An AEDAT 2.0 file of a DVS128."""
    address = events["y"].astype(np.int64) << 8 | 127 - events["x"].astype(np.int64) << 1 | 1 - events["p"]
    return header + np.stack([address, events["t"]], axis=1).astype(">u4").tobytes()


def write(name: str, data: Path, out: Path) -> None:
    """Files of a data set."""
    if name == "mnist-dvs":
        count: dict[int, int] = {}
        for events, label in recordings(data / "dvs128.tar", "dvs128/mnist-dvs"):
            count[label] = count.get(label, 0) + 1
            file = out / str(label) / f"mnist_{label}_{count[label]:02d}.aedat"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(aedat2_bytes(events))
        return
    for split in ("train", "test"):
        for number, (events, label) in enumerate(recordings(data / "nmnist-1100.tar", f"nmnist/{split}"), start=1):
            file = out / split / str(label) / f"{number:05d}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(nmnist_bytes(events))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("nmnist", "mnist-dvs"):
        raise SystemExit(__doc__)
    shared = Path(os.environ.get("DSR_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    write(sys.argv[1], shared / "data", Path(sys.argv[2]))
    print(sys.argv[2])
