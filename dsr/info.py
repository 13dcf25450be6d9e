"""What this build of dsr runs on."""

from __future__ import annotations

import platform

import numpy as np

import dsr
from dsr import _core


def describe() -> str:
    """Version, instruction level, threads, BLAS and its kernel, a line each."""
    configuration, kernel = _core.blas()
    return "\n".join(
        [
            f"dsr      {dsr.__version__}",
            f"level    {_core.level()} of {', '.join(_core.levels())} (DSR_LEVEL lowers it)",
            f"threads  {_core.threads()} (dsr.set_num_threads or OMP_NUM_THREADS change it)",
            f"BLAS     {configuration.split(' DYNAMIC_ARCH')[0]}, kernel {kernel}",
            f"Python   {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}",
        ]
    )
