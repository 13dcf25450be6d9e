"""``dsr info``: what this build runs on."""

from __future__ import annotations

import platform
from argparse import Namespace

import numpy as np

import dsr
from dsr import _core
from dsr.commands.arguments import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    commands.add_parser("info", help="version, instruction level, threads, BLAS").set_defaults(command=run)


def run(options: Namespace) -> int:
    """Print version, instruction level, threads, BLAS and its kernel, a line each."""
    configuration, kernel = _core.blas()
    print(f"dsr      {dsr.__version__}")
    print(f"level    {_core.level()} of {', '.join(_core.levels())} (DSR_LEVEL lowers it)")
    print(f"threads  {_core.threads()} (dsr.set_num_threads or OMP_NUM_THREADS change it)")
    print(f"BLAS     {configuration.split(' DYNAMIC_ARCH')[0]}, kernel {kernel}")
    print(f"Python   {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}")
    return 0
