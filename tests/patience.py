"""Time limits of tests, which end what hangs, and how much longer they are on a slow machine, such as an emulator."""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("DSR_PATIENCE", "1"))


def patiently(seconds: float) -> float:
    """A limit, times what the variable DSR_PATIENCE says."""
    return PATIENCE * seconds
