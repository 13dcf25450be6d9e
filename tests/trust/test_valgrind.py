"""valgrind finds no error and no leak with a frame of dsr._core in its stack; only with --long, since it takes minutes.

Run under it are: the import of dsr, every entry of dsr._core with arguments that it takes and with some that it
refuses, training steps and an evaluation. With PYTHONMALLOC=malloc, since Python's own pools hide errors; on the level
avx2, since valgrind does not know AVX-512, or on that of DSR_LEVEL; with one thread, since the barriers of libgomp look
like races. At the end a read of freed memory, made on purpose, shows that errors are seen and told apart.

As a script: what is run.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import core_table
import numpy as np
import pytest

from dsr import _core

HERE = Path(__file__).parent


@pytest.mark.skipif("lib" in os.environ.get("LD_PRELOAD", ""), reason="LD_PRELOAD is set: valgrind wants to be alone")
def test_no_error_of_ours(tmp_path, amount, figure):
    if amount(0, 1) == 0:
        pytest.skip("only with --long: valgrind takes minutes")
    if (valgrind := shutil.which("valgrind")) is None:
        pytest.skip("valgrind is not installed")
    report = tmp_path / "report.xml"
    options = [f"--suppressions={HERE / 'valgrind.supp'}", "--xml=yes", f"--xml-file={report}", "--num-callers=60"]
    options += ["--leak-check=full", "--show-leak-kinds=definite,indirect,possible"]
    level = os.environ.get("DSR_LEVEL") or ("avx2" if "avx2" in _core.levels() else _core.levels()[-1])
    environment = {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1", "DSR_LEVEL": level}
    if "avx2" in _core.levels():
        environment["OPENBLAS_CORETYPE"] = "Haswell"
    # an empty entry would be the current folder, where the package may lie without its compiled part
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [valgrind, *options, sys.executable, "-P", __file__],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
    errors = ElementTree.parse(report).getroot().findall("error")
    ours = [error for error in errors if any(is_core(frame) for frame in error.iter("frame"))]
    expected = [error for error in ours if is_deliberate(error)]
    assert len(expected) > 0
    assert [described(error) for error in ours if error not in expected] == []
    entries = f"{len(core_table.ENTRIES)} entries on level {level}"
    figure(f"{entries}: 0 errors of dsr, {len(expected)} made on purpose, {len(errors) - len(ours)} without dsr")


def is_core(frame: ElementTree.Element) -> bool:
    """Whether the frame is in the extension."""
    return Path(frame.findtext("obj", "")).name.startswith("_core.")


def is_deliberate(error: ElementTree.Element) -> bool:
    """Whether it is the read of freed memory by count_bits."""
    functions = [frame.findtext("fn", "") for frame in error.iter("frame")]
    return error.findtext("kind") == "InvalidRead" and any("count_bits" in name for name in functions)


def described(error: ElementTree.Element) -> str:
    """Kind and innermost frames."""
    words = error.findtext("what") or error.findtext("xwhat/text")
    frames = [f"{f.findtext('fn')} ({f.findtext('file')}:{f.findtext('line')})" for f in error.iter("frame")]
    return f"{error.findtext('kind')}: {words}: {' < '.join(frames[:12])}"


# ---- the script ------------------------------------------------------------------------------------------------------


def call_every_entry() -> None:
    """Valid arguments of both real dtypes, small and empty shapes, and refusals."""
    rng = np.random.default_rng(0)
    for entry in core_table.ENTRIES:
        function = getattr(_core, entry)
        for real in (np.float32, np.float64):
            arguments = core_table.make_arguments(entry, rng, real, core_table.plain_sizes(entry))
            function(*arguments)
            for _ in range(3):
                function(*core_table.make_arguments(entry, rng, real))
        for index in range(len(arguments)):
            wrong: list[Any] = [*arguments[:index], object(), *arguments[index + 1 :]]
            try:
                function(*wrong)
            except TypeError:
                continue
            raise AssertionError(f"{entry}: took an object as argument {index}")


def train() -> None:
    """Two steps with each optimiser, and evaluations."""
    import dsr
    from dsr.train.steps import train_step

    inner = dsr.Sequential(
        dsr.Conv2d(5, 5, 3, padding=1), dsr.BatchNorm(5), dsr.LIF(0.3), dsr.Conv2d(5, 5, 3, padding=1)
    )
    body = dsr.Sequential(
        dsr.Conv2d(2, 5, 3, padding=1),
        dsr.BatchNorm(5),
        dsr.IF(0.5),
        dsr.Residual(inner),
        dsr.IF(0.5),
        dsr.AvgPool2d(2),
        dsr.Dropout(0.2),
        dsr.Flatten(),
        dsr.Linear(80, 3),
        dsr.LIF(0.3),
    )
    network = dsr.Network(body, timesteps=3)
    images = np.random.default_rng(1).normal(size=(4, 2, 8, 8)).astype(np.float32)
    for optimizer in (dsr.SGD(network.parameters(), 0.1, 0.9), dsr.Adam(network.parameters())):
        for _ in range(2):
            train_step(network, optimizer, images, np.array([0, 1, 2, 0]))
    network.forward(images)


def read_freed_memory() -> None:
    """An error of the kind that is looked for."""
    from dsr import _core

    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    address = library.malloc(256)
    words = np.frombuffer((ctypes.c_uint32 * 64).from_address(address), np.uint32)
    library.free(address)
    _core.count_bits(words)


if __name__ == "__main__":
    call_every_entry()
    train()
    read_freed_memory()
    print("done")
