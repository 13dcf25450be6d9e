"""What kind of data lies at a path, told by names alone, for a hint to somebody who has no recipe yet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from dsr.data.preprocessing import PICTURES

_RECORDINGS = (".aedat", ".aedat4", ".bin", ".dat", ".npy", ".npz", ".raw")
_MOST = 1000
"""Files that are looked at."""


def guess(path: Path) -> Literal["arrays", "images", "recordings"] | None:
    """The name of a recipe to start from; None where nothing is known."""
    if path.is_file():
        return {".npz": "arrays", ".tar": "images"}.get(path.suffix.lower())  # type: ignore[return-value]
    seen = 0
    for _, _, files in os.walk(path):
        for file in sorted(files):
            suffix = os.path.splitext(file)[1].lower()
            if suffix in PICTURES:
                return "images"
            if suffix in _RECORDINGS:
                return "recordings"
            seen += 1
        if seen > _MOST:
            break
    return None
