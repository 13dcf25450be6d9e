"""Number formats of weight files that NumPy lacks: bfloat16 and float8, converted to float32 without rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float32]


@dataclass
class Unreadable:
    """A tensor that has a place in a file, but whose numbers are not read; `why` completes a message that names it."""

    why: str


def _bfloat16(bits: Bits) -> Floats:
    """The upper half of a float32."""
    words = bits.astype(np.uint32)
    words <<= 16
    return words.view(np.float32)


def _float8_e5m2(bits: Bits) -> Floats:
    """The upper half of a float16."""
    words = bits.astype(np.uint16)
    words <<= 8
    return words.view(np.float16).astype(np.float32)


def _float8_e4m3fn(bits: Bits) -> Floats:
    """Three bits of fraction and four of an exponent with bias 7, where float16 has bias 15; NaN is all ones."""
    words = bits.astype(np.uint16)
    halves = ((words & 0x80) << 8 | (words & 0x7F) << 7).view(np.float16)
    values = halves.astype(np.float32) * np.float32(2**8)
    values[words & 0x7F == 0x7F] = np.nan
    return values


_FORMATS = {
    "bfloat16": ("u2", _bfloat16),
    "float8_e4m3fn": ("u1", _float8_e4m3fn),
    "float8_e5m2": ("u1", _float8_e5m2),
}
WIDTHS = {name: width for name, (width, _) in _FORMATS.items()}
"""The formats by the names that PyTorch and ml_dtypes give them, with NumPy's dtype for their bits."""


def as_float32(name: str, bits: Bits) -> Floats:
    """Numbers of the format `name`, given as their bits, in the machine's byte order or another."""
    with np.errstate(invalid="ignore"):  # 64-bit Arm flags signalling NaN when it widens float16; they stay NaN
        return _FORMATS[name][1](bits)
