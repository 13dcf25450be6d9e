"""Build of the extension `dsr._core`; everything declarative is in pyproject.toml.

OpenBLAS comes from the PyPI package `scipy-openblas32`: its shared library is copied into `dsr/_libs`
and found through an rpath, so neither apt nor pkg-config is needed. `DSR_BLAS=system` takes the
OpenBLAS that pkg-config knows instead. `DSR_SANITIZE=1` builds with ASan and UBSan, `DSR_WERROR=1`
makes warnings errors (CI sets both).

`python setup.py build_libdsr` builds the C library under the extension without Python, in `build/libdsr`:
see csrc/libdsr/dsr_model.h.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

LIBRARY = "libscipy_openblas.so" if sys.platform != "darwin" else "libscipy_openblas.dylib"
ROOMS = {
    room: sorted(map(str, Path("csrc", room).glob("*.c"))) for room in ("levels", "ops", "python", "libdsr", "fuzz")
}
SOURCES = [*ROOMS["levels"], *ROOMS["ops"], *ROOMS["python"]]
OTHERS = [*map(str, sorted(Path("csrc").rglob("*.h"))), *ROOMS["libdsr"], *ROOMS["fuzz"]]

# -ffp-contract=off: a fused multiply-add on one level only would change the bits of potentials.
# -fno-trapping-math: without it gcc does not vectorise the threshold compare (7 times slower).
FLAGS = ["-std=c11", "-O3", "-fopenmp", "-ffp-contract=off", "-fno-trapping-math", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wundef", "-Wvla"]


def pkg_config(option: str) -> list[str]:
    """What pkg-config says of the system's OpenBLAS."""
    return subprocess.run(["pkg-config", option, "openblas"], check=True, capture_output=True, text=True).stdout.split()


class BuildWithOpenBLAS(build_ext):
    """Adds NumPy's and OpenBLAS's headers, and carries OpenBLAS's library along."""

    def build_extension(self, extension: Extension) -> None:
        # NumPy's headers as system headers: their warnings are not ours.
        extension.extra_compile_args += ["-isystem", numpy.get_include()]
        if os.environ.get("DSR_BLAS") == "system":
            extension.extra_compile_args += pkg_config("--cflags")
            extension.extra_link_args += pkg_config("--libs")
            super().build_extension(extension)
            return
        import scipy_openblas32  # build time only: at run time its loader would take over the symbols

        source = Path(scipy_openblas32.get_lib_dir(), LIBRARY)
        origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
        extension.define_macros.append(("DSR_BLAS_PREFIXED", "1"))
        extension.extra_compile_args += ["-isystem", scipy_openblas32.get_include_dir()]
        extension.extra_link_args += [str(source), f"-Wl,-rpath,{origin}/_libs"]
        super().build_extension(extension)
        self.carry_library(source)

    def copy_extensions_to_source(self) -> None:
        """For `pip install -e .`: the library goes where the extension goes."""
        super().copy_extensions_to_source()
        built = Path(self.build_lib, "dsr", "_libs", LIBRARY)
        if built.exists():
            self.inplace = True
            self.carry_library(built)

    def carry_library(self, source: Path) -> None:
        """Copies OpenBLAS beside the extension, as `_libs/`."""
        target = Path(self.get_ext_fullpath("dsr._core")).parent / "_libs"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target / LIBRARY)


class BuildLibdsr(Command):
    """Builds libdsr, its header and the OpenBLAS that it needs into a folder."""

    description = "build the C library under the extension, without Python"
    user_options = [("output=", None, "folder (default: build/libdsr)")]  # noqa: RUF012

    def initialize_options(self) -> None:
        """Default options."""
        self.output = "build/libdsr"

    def finalize_options(self) -> None:
        """Nothing to derive."""

    def run(self) -> None:
        """Compile and link."""
        import scipy_openblas32

        folder = Path(self.output)
        folder.mkdir(parents=True, exist_ok=True)
        blas = Path(scipy_openblas32.get_lib_dir(), LIBRARY)
        name, origin = ("libdsr.so", "$ORIGIN") if sys.platform != "darwin" else ("libdsr.dylib", "@loader_path")
        sources = [*ROOMS["levels"], *ROOMS["ops"], "csrc/libdsr/read.c", "csrc/libdsr/run.c"]
        command = [os.environ.get("CC", "cc"), *compile_args, "-fPIC", "-shared", "-DDSR_BLAS_PREFIXED=1", *sources]
        command += [
            "-isystem",
            scipy_openblas32.get_include_dir(),
            str(blas),
            f"-Wl,-rpath,{origin}",
            *link_args,
            "-lm",
        ]
        subprocess.run([*command, "-o", str(folder / name)], check=True)
        shutil.copy2(blas, folder / LIBRARY)
        for file in ("dsr_model.h", "example.c"):
            shutil.copy2(Path("csrc/libdsr", file), folder / file)
        print(f"{folder / name}; its header is {folder / 'dsr_model.h'}")


compile_args = [*FLAGS, *WARNINGS]
link_args = ["-fopenmp"]
if os.environ.get("DSR_WERROR") == "1":
    compile_args.append("-Werror")
if os.environ.get("DSR_SANITIZE") == "1":
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
    compile_args += [*sanitizers, "-O1"]
    link_args += sanitizers

core = Extension(
    "dsr._core",
    sources=SOURCES,
    depends=OTHERS,
    include_dirs=["csrc"],
    define_macros=[
        ("Py_LIMITED_API", "0x030B0000"),
        ("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
    ],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    py_limited_api=True,
)

setup(
    ext_modules=[core],
    cmdclass={"build_ext": BuildWithOpenBLAS, "build_libdsr": BuildLibdsr},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
