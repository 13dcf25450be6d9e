"""Builds C programs of csrc/ with clang and sanitizers, and says what is missing where that cannot work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
FUZZER = (*ADDRESS, "-fsanitize=fuzzer-no-link")
THREAD = ("-fsanitize=thread",)
FLAGS = ["-std=c11", "-O1", "-gline-tables-only", "-fno-omit-frame-pointer", "-fopenmp", "-ffp-contract=off"]
FLAGS += ["-fno-trapping-math", "-w"]
PYTHON = ["-DNPY_NO_DEPRECATED_API=NPY_1_25_API_VERSION", "-DNPY_TARGET_VERSION=NPY_1_25_API_VERSION"]


class Missing(Exception):
    """What a build needs and this machine does not have."""


def clang() -> str:
    """The compiler, with its OpenMP."""
    found = shutil.which("clang") or shutil.which("clang-14")
    if found is None:
        raise Missing("clang is not installed")
    if runtime("libomp.so") is None:
        raise Missing("clang has no OpenMP here (Debian: libomp-dev)")
    return found


def runtime(name: str) -> Path | None:
    """A library that comes with clang, such as libarcher.so."""
    found = shutil.which("clang") or shutil.which("clang-14") or ""
    told = subprocess.run([found, f"-print-file-name={name}"], capture_output=True, text=True).stdout if found else ""
    folder = Path(found).resolve().parents[1] / "lib" if found else Path()
    return next((path for path in (Path(told.strip()), folder / name) if path.is_absolute() and path.exists()), None)


def blas() -> tuple[list[str], list[str]]:
    """Flags to compile with OpenBLAS and to link it: that of the package, which is not imported, or the system's."""
    spec = find_spec("scipy_openblas32")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0])
        library = folder / "lib" / "libscipy_openblas.so"
        return ["-DDSR_BLAS_PREFIXED", "-isystem", str(folder / "include")], [
            str(library),
            f"-Wl,-rpath,{library.parent}",
        ]
    told = [
        subprocess.run(["pkg-config", flag, "openblas"], capture_output=True, text=True)
        for flag in ("--cflags", "--libs")
    ]
    if any(answer.returncode for answer in told):
        raise Missing("no OpenBLAS to build with: neither scipy-openblas32 nor a system's")
    return told[0].stdout.split(), told[1].stdout.split()


def libpython() -> list[str]:
    """Flags to link Python into a program."""
    folder, version = sysconfig.get_config_var("LIBDIR"), f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not any(Path(folder, f"lib{version}{suffix}").exists() for suffix in (".so", ".a")):
        raise Missing(f"no lib{version} in {folder} to link")
    return [f"-L{folder}", f"-l{version}", f"-Wl,-rpath,{folder}"]


def objects(folder: Path, sanitizers: tuple[str, ...], with_python: bool = False) -> list[Path]:
    """csrc/ compiled, without the room that knows Python unless that is asked for."""
    rooms = ("levels", "ops", "python") if with_python else ("levels", "ops")
    sources = [source for room in rooms for source in sorted((ROOT / "csrc" / room).glob("*.c"))]
    limited = ["-DPy_LIMITED_API=0x030B0000"] if with_python else []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda source: compiled(folder, source, sanitizers, [*PYTHON, *limited]), sources))


def compiled(folder: Path, source: Path, sanitizers: tuple[str, ...], defines: list[str]) -> Path:
    """One source compiled, or found as it was."""
    target = folder / f"{source.stem}.o"
    if not target.exists():
        include = [f"-I{ROOT / 'csrc'}", "-isystem", sysconfig.get_paths()["include"], "-isystem", numpy.get_include()]
        command = [clang(), *FLAGS, *sanitizers, *defines, *blas()[0], *include, "-c", str(source), "-o", str(target)]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            raise RuntimeError(f"{source} does not compile:\n{finished.stderr}")
    return target


def link(program: Path, parts: list[Path], sanitizers: tuple[str, ...], libraries: list[str]) -> Path:
    """A program of objects."""
    omp = runtime("libomp.so")
    assert omp is not None
    command = [clang(), "-fopenmp", *sanitizers, *map(str, parts), "-o", str(program), *blas()[1], *libraries]
    finished = subprocess.run([*command, f"-Wl,-rpath,{omp.parent}", "-lm"], capture_output=True, text=True)
    if "cannot find" in finished.stderr and "libclang_rt" in finished.stderr:
        raise Missing("clang comes without its sanitizers here (Debian: libclang-rt-14-dev)")
    if finished.returncode:
        raise RuntimeError(f"{program.name} does not link:\n{finished.stderr}")
    return program


def fuzzer(folder: Path) -> Path:
    """fuzz_arguments.c as a program."""
    parts = objects(folder, FUZZER, with_python=True)
    parts.append(compiled(folder, HERE / "fuzz_arguments.c", FUZZER, PYTHON))
    return link(folder / "fuzz_arguments", parts, (*ADDRESS, "-fsanitize=fuzzer"), libpython())


def driver(folder: Path, sanitizers: tuple[str, ...]) -> Path:
    """race_driver.c as a program."""
    parts = [*objects(folder, sanitizers), compiled(folder, HERE / "race_driver.c", sanitizers, [])]
    return link(folder / "race_driver", parts, sanitizers, [])


def embedded() -> dict[str, str]:
    """Environment in which a program with Python in it finds NumPy, and hands all memory to the sanitizer."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "LD_PRELOAD", "ASAN", "OMP"))
    }
    site = str(Path(numpy.__file__).parents[1])
    kept |= {
        "PYTHONHOME": sys.base_prefix,
        "PYTHONPATH": site,
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return kept | {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
