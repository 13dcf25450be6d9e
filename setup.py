"""Build of the extension `dsr._core`; everything declarative is in pyproject.toml.

OpenBLAS comes from the PyPI package `scipy-openblas32`: its shared library is copied into `dsr/_libs`
and found through an rpath, so neither apt nor pkg-config is needed. `DSR_BLAS=system` takes the
OpenBLAS that pkg-config knows instead. `DSR_OPENMP=0` builds for one thread, `DSR_LIBOMP=FOLDER` says
where LLVM's OpenMP is on macOS. `DSR_SANITIZE=1` builds with ASan and UBSan, `DSR_WERROR=1` makes
warnings errors (CI sets both).

`python setup.py build_libdsr` builds the C library under the extension without Python, in `build/libdsr`:
see csrc/libdsr/dsr_model.h.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy
from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

LIBRARY = "libscipy_openblas.so" if sys.platform != "darwin" else "libscipy_openblas.dylib"
ROOMS = {
    room: sorted(map(str, Path("csrc", room).glob("*.c"))) for room in ("levels", "ops", "python", "libdsr", "fuzz")
}
SOURCES = [*ROOMS["levels"], *ROOMS["ops"], *ROOMS["python"]]
OTHERS = [*map(str, sorted(Path("csrc").rglob("*.h"))), *ROOMS["libdsr"], *ROOMS["fuzz"]]

# -ffp-contract=off: a fused multiply-add on one level only would change the bits of potentials.
# -fno-trapping-math: without it gcc does not vectorise the threshold compare (7 times slower).
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wundef", "-Wvla"]

# Homebrew's folders on Arm and on Intel; its libomp stays out of the folders that compilers look into.
LIBOMP_FOLDERS = ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp")
NO_OPENMP = """\
dsr: OpenMP was not found, so this build uses ONE THREAD.
dsr: Apple's compiler comes without it. Install it with 'brew install libomp' and build dsr again; DSR_LIBOMP=FOLDER
dsr: says where it is if it is elsewhere (FOLDER/include/omp.h, FOLDER/lib/libomp.dylib). DSR_OPENMP=0 silences this."""

# The stable ABI is that of Pythons with the GIL.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def openmp_flags(
    platform: str = sys.platform, folders: tuple[str, ...] = LIBOMP_FOLDERS
) -> tuple[list[str], list[str]]:
    """Flags for the compiler and for the linker; without OpenMP, those of a build for one thread."""
    without = ["-Wno-unknown-pragmas", "-Wno-source-uses-openmp"], []
    wanted = os.environ.get("DSR_OPENMP", "1")
    if wanted not in ("0", "1"):
        sys.exit(f"dsr: DSR_OPENMP: expected 0 or 1, got {wanted}")
    if wanted == "0":
        return without
    if platform != "darwin":
        return ["-fopenmp"], ["-fopenmp"]
    given = os.environ.get("DSR_LIBOMP")
    for folder in (given,) if given else folders:
        if Path(folder, "include", "omp.h").exists() and Path(folder, "lib", "libomp.dylib").exists():
            link = [f"-L{folder}/lib", "-lomp", f"-Wl,-rpath,{folder}/lib"]
            return ["-Xpreprocessor", "-fopenmp", f"-I{folder}/include"], link
    if given:
        sys.exit(f"dsr: DSR_LIBOMP: expected a folder with include/omp.h and lib/libomp.dylib, got {given}")
    print(NO_OPENMP, file=sys.stderr)
    return without


def pkg_config(option: str) -> list[str]:
    """What pkg-config says of the system's OpenBLAS."""
    return subprocess.run(["pkg-config", option, "openblas"], check=True, capture_output=True, text=True).stdout.split()


class BuildPython(build_py):
    """The package's files, without those of an earlier version in the build folder, which setuptools would install."""

    def run(self) -> None:
        for file in Path(self.build_lib, "dsr").rglob("*"):
            if file.is_file() and file.suffix not in (".so", ".dylib", ".pyd"):  # compiled ones are made anew if old
                file.unlink()
        super().run()


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
        # not imported: that loads the library, which may be of another processor than this one
        package = importlib.util.find_spec("scipy_openblas32")
        if package is None or package.origin is None:
            sys.exit("dsr: scipy-openblas32 is not installed; pip install it, or set DSR_BLAS=system")
        source = Path(package.origin).with_name("lib") / LIBRARY
        origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
        extension.define_macros.append(("DSR_BLAS_PREFIXED", "1"))
        extension.extra_compile_args += ["-isystem", str(source.parents[1] / "include")]
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
        library = (file for file in ROOMS["libdsr"] if not file.endswith("example.c"))
        sources = [*ROOMS["levels"], *ROOMS["ops"], *library]
        compile_args, link_args = flags()
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


def flags() -> tuple[list[str], list[str]]:
    """What compiler and linker get, as the environment asks for."""
    compile_args, link_args = openmp_flags()
    compile_args = [*FLAGS, *WARNINGS, *compile_args]
    if os.environ.get("DSR_WERROR") == "1":
        compile_args.append("-Werror")
    if os.environ.get("DSR_SANITIZE") == "1":
        sanitizers = [
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
            "-g",
        ]
        compile_args += [*sanitizers, "-O1"]
        link_args = [*link_args, *sanitizers]
    return compile_args, link_args


def core() -> Extension:
    """The extension."""
    compile_args, link_args = flags()
    return Extension(
        "dsr._core",
        sources=SOURCES,
        depends=OTHERS,
        include_dirs=["csrc"],
        define_macros=[
            *([("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else []),
            ("NPY_NO_DEPRECATED_API", "NPY_1_25_API_VERSION"),
            ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),
        ],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        py_limited_api=LIMITED_API,
    )


if __name__ == "__main__":
    setup(
        ext_modules=[core()],
        cmdclass={"build_py": BuildPython, "build_ext": BuildWithOpenBLAS, "build_libdsr": BuildLibdsr},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
    )
