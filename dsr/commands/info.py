"""``dsr info``: what this build runs on."""

from __future__ import annotations

import json
import mmap
import os
import platform
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

import dsr
from dsr import _core, system
from dsr.commands.arguments import Commands

_SETTINGS = ("DSR_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_")
"""How the names of the environment variables begin that change what runs."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("info", help="version, instruction level, threads, OpenMP, BLAS, compiler")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, for a report of a fault")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Print what `about` tells, a line each, or as JSON."""
    found = about()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    openmp, levels = found["openmp"], ", ".join(found["vector_bytes"])
    library = f"{openmp['library']}, version {openmp['version']}" if openmp else "none: this build uses one thread"
    threads = "(dsr.set_num_threads or OMP_NUM_THREADS change it)" if openmp else ""
    gil = "" if found["gil"] else ", without the GIL"
    settings = ", ".join(f"{name}={value}" for name, value in found["environment"].items())
    print(f"dsr       {found['dsr']}")
    print(f"level     {found['level']} of {levels} (DSR_LEVEL lowers it)")
    print(f"vectors   {found['vector_bytes'][found['level']]} bytes")
    print(f"threads   {found['threads']} on {found['processors']} processors {threads}".rstrip())
    print(f"OpenMP    {library}")
    print(f"BLAS      {found['blas']}, kernel {found['blas_kernel']}")
    print(f"compiler  {found['compiler']}")
    print(f"Python    {found['python']}{gil}, NumPy {found['numpy']}")
    print(f"system    {found['system']}, {found['machine']}, pages of {found['page_bytes']} bytes")
    print(f"settings  {settings or 'none in the environment'}")
    return 0


def about() -> dict[str, Any]:
    """What this build is and what it runs on.

    Returns
    -------
    dict
        As `dsr info --json` prints it. `vector_bytes` has the width of the vectors of each level, the lowest level
        first; `openmp` is None in a build without; `environment` has the variables that change what runs.
    """
    blas, kernel = _core.blas()
    version, library = _core.openmp()
    return {
        "dsr": dsr.__version__,
        "level": _core.level(),
        "vector_bytes": dict(zip(_core.levels(), _core.vectors(), strict=True)),
        "threads": _core.threads(),
        "processors": len(system.processors()),
        "openmp": {"version": version, "library": _library_name(library)} if version else None,
        "blas": blas.split(" DYNAMIC_ARCH")[0],
        "blas_kernel": kernel,
        "compiler": _core.compiler().strip(),
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "machine": platform.machine(),
        "page_bytes": mmap.PAGESIZE,
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)},
    }


def _library_name(path: str | None) -> str:
    """The file behind a link such as libgomp.so.1, which may be another library; not where it lies."""
    return Path(path).resolve().name if path else "library not known"
