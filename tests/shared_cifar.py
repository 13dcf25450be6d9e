"""CIFAR-10 and CIFAR-100 of ../shared/data, written in the official binary layout.

All images are exact. They are in the order of the sheets, class after class in turn, which is not the official order.

    python tests/shared_cifar.py {cifar10|cifar100} OUT

writes OUT/cifar-10-batches-bin or OUT/cifar-100-binary. The sheets are read from ../shared, or from DSR_SHARED.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}


def write(name: str, archive: Path, out: Path) -> Path:
    """The folder with the official name below `out`, written from the sheets in `archive`."""
    folder = out / FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        classes = _member(tar, f"{name}/classes.txt").decode().split()
        train, test = _records(tar, name, "train", classes), _records(tar, name, "test", classes)
        if name == "cifar10":
            for number, batch in enumerate(np.split(train, 5), start=1):
                (folder / f"data_batch_{number}.bin").write_bytes(batch.tobytes())
            (folder / "test_batch.bin").write_bytes(test.tobytes())
            (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n\n", encoding="ascii")
        else:
            (folder / "train.bin").write_bytes(train.tobytes())
            (folder / "test.bin").write_bytes(test.tobytes())
            coarse = [names for _, names in sorted({(number, names) for _, number, names in _coarse(tar)})]
            (folder / "fine_label_names.txt").write_text("\n".join(classes) + "\n", encoding="ascii")
            (folder / "coarse_label_names.txt").write_text("\n".join(coarse) + "\n", encoding="ascii")
    return folder


def _records(tar: tarfile.TarFile, name: str, split: str, classes: list[str]) -> NDArray[np.uint8]:
    """Label bytes (CIFAR-100: coarse, fine) and planes of red, green, blue, a row an image."""
    labels = np.frombuffer(_member(tar, f"{name}/{split}_labels.u8"), np.uint8)
    images = np.concatenate(
        [
            _images(_member(tar, sheet))
            for sheet in sorted(tar.getnames())
            if sheet.startswith(f"{name}/{split}_") and sheet.endswith(".webp")
        ]
    )
    columns = [labels[:, np.newaxis], images.transpose(0, 3, 1, 2).reshape(len(images), -1)]
    if name == "cifar100":
        number = {fine: coarse for fine, coarse, _ in _coarse(tar)}
        columns.insert(0, np.array([number[fine] for fine in classes], np.uint8)[labels][:, np.newaxis])
    return np.concatenate(columns, axis=1)


def _images(sheet: bytes) -> NDArray[np.uint8]:
    """The images of a sheet, a grid that is read row by row, ``(N, 32, 32, 3)``."""
    from PIL import Image

    grid = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    rows, columns = grid.shape[0] // 32, grid.shape[1] // 32
    return grid.reshape(rows, 32, columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


def _coarse(tar: tarfile.TarFile) -> list[tuple[str, int, str]]:
    """Name of each fine class, number and name of its coarse class."""
    lines = _member(tar, "cifar100/coarse.txt").decode().splitlines()
    return [(fine, int(number), coarse) for fine, number, coarse in (line.split() for line in lines)]


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file.read()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in FOLDERS:
        raise SystemExit(__doc__)
    shared = Path(os.environ.get("DSR_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    print(write(sys.argv[1], shared / "data" / f"{sys.argv[1]}.tar", Path(sys.argv[2])))
