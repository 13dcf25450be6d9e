"""No memory: each allocation of a training step fails in turn, and no step crashes, hangs, leaks or gives other bits.

alloc_shim.c is preloaded into a process that takes the step again and again; it makes the n-th allocation fail, for
every n until the step gets through without a fault; or all from the n-th on, as when memory is gone for good. What is
counted is every allocation of dsr's compiled module, the values of NumPy's arrays (below 1 KiB NumPy keeps some in
stock), and in one variant those of the interpreter itself (of more than 512 bytes: smaller ones come from pools, which
Python takes from the system as pages). After each fault:

- the step raised MemoryError, or it gave the bits of an undisturbed one (then somebody went on without the memory);
- parameters, running statistics, dropout's stream and the optimiser's state are those from before the step: a step
  that fails is as if it had not begun (`dsr.train.train_step`);
- the next step, on the same objects, gives the bits of an undisturbed one.

What is not tried, since it is not for dsr to mend: libgomp and OpenBLAS end the process where they get no memory for a
team of threads or for packing matrices (both ask in the first step, and keep it); NumPy crashes where an iterator gets
no buffer to convert values in.

As a script: takes the steps, under the shim; prints what it counted as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHIM = Path(__file__).with_name("alloc_shim.c")
VARIANTS = {
    "sgd": {"optimizer": "sgd"},
    "adam": {"optimizer": "adam"},
    "nothing-kept": {"optimizer": "sgd", "keep_bytes": 0},
    "two-threads": {"optimizer": "sgd", "threads": 2, "batch": 24},
    "from-then-on": {"optimizer": "sgd", "once": False},
    "interpreter": {"optimizer": "adam", "interpreter": True},
    "evaluation": {"optimizer": "sgd", "training": False},
    "evaluation-two-threads": {"optimizer": "sgd", "training": False, "threads": 2, "batch": 24},
}
SHORT = ("sgd", "adam", "two-threads", "evaluation-two-threads")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The built library."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the shim stands on glibc's names")
    if "lib" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip(f"LD_PRELOAD is {os.environ['LD_PRELOAD']}: malloc is replaced already")
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "alloc_shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_allocation_of_a_step_fails_once(shim, variant, amount, figure):
    every = amount(60, 1)
    if every > 1 and variant not in SHORT:
        pytest.skip("only with --long")
    options = {**VARIANTS[variant], "every": every}
    environment = {"LD_PRELOAD": str(shim), "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": str(options.get("threads", 1))}
    command = [sys.executable, "-P", __file__, str(shim), json.dumps(options)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    counted = json.loads(done.stdout.splitlines()[-1])
    faults = counted["errors"] + counted["absorbed"]
    figure(
        f"{counted['allocations']} allocations a step; of {faults} faults {counted['errors']} gave MemoryError, "
        f"{counted['absorbed']} the undisturbed result; {len(counted['leaks'])} leaked"
    )
    assert counted["allocations"] >= 30
    assert faults >= 2 * (counted["allocations"] // every)  # the shim did its work
    assert not counted["leaks"], "allocations whose failure leaves memory behind, and how many bytes"


def test_a_run_goes_on_after_a_memory_error(tmp_path, monkeypatch):
    """Memory ends while parameters are about to change; saved then, and resumed or not, the run gives the same bits."""
    from dsr import train
    from dsr.data import ArraySamples, DataSet
    from dsr.train import recipe

    rng = np.random.default_rng(3)
    images, labels = rng.normal(size=(60, 1, 8, 8)).astype(np.float32), np.arange(60) % 10
    digits = DataSet("noise", tuple("0123456789"), (1, 8, 8), *[ArraySamples(images, labels)] * 2)
    short = recipe.load("digits", ["epochs=2", "width=8", "batch_size=20", "ema_decay=0.9", "neuron=lif"])

    def trainer_of(name):
        return train.Trainer(short, digits, tmp_path / name, lambda _: None)

    def results(trainer):
        return [(name, array.tobytes()) for name, array in [*trainer.network.arrays(), *trainer.measured.arrays()]]

    unbroken = trainer_of("unbroken")
    unbroken.fit()
    for name in ("same object", "resumed"):
        trainer, calls = trainer_of(name), 0
        real = trainer.optimizer.step

        def fails(real=real):
            nonlocal calls
            calls += 1
            if calls == 4:
                raise MemoryError
            real()

        monkeypatch.setattr(trainer.optimizer, "step", fails)
        with pytest.raises(MemoryError):
            trainer.fit()
        trainer.save()
        if name == "resumed":
            trainer = trainer_of(name)
            trainer.resume()
        trainer.fit()
        assert results(trainer) == results(unbroken)


# ---- the script ------------------------------------------------------------------------------------------------------


class Case:
    """A network, its optimiser and a batch, and what a step on them should give."""

    def __init__(self, options: dict[str, Any], first: bool) -> None:
        from dsr.optim.optimizers import SGD, Adam

        self.training = options.get("training", True)
        rng = np.random.default_rng(5)
        batch = options.get("batch", 3)
        self.images = rng.normal(size=(batch, 2, 12, 12)).astype(np.float32)
        self.labels = rng.integers(0, 3, batch)
        self.network = every_layer(options.get("keep_bytes", 1 << 30))
        parameters = self.network.parameters()
        self.optimizer = (
            Adam(parameters, 0.01, weight_decay=1e-3)
            if options["optimizer"] == "adam"
            else SGD(parameters, 0.05, 0.9, 5e-4, nesterov=True)
        )
        self.step()  # whatever is made once is made here
        if first:  # back to an optimiser that has not taken a step
            self.optimizer.load_state({"steps": np.array(0)} if options["optimizer"] == "adam" else {})
        self.start = self.network.state(), self.optimizer.state()
        self.before = self.state()
        self.result = self.step()
        self.after = self.state()
        self.restore()

    def step(self) -> bytes:
        """What is tried: its result, as bytes."""
        from dsr.train.steps import train_step

        if not self.training:
            return self.network.forward(self.images).tobytes()
        loss, correct = train_step(self.network, self.optimizer, self.images, self.labels, 0.1)
        return np.array([loss, correct]).tobytes()

    def state(self) -> dict[str, bytes]:
        """All arrays that a step changes."""
        arrays = dict(self.network.arrays()) | {f"optimizer.{k}": a for k, a in self.optimizer.state().items()}
        return {name: array.tobytes() for name, array in arrays.items()}

    def restore(self) -> None:
        """Back to where it began, on the same objects."""
        self.network.load_state(self.start[0])
        self.optimizer.load_state(self.start[1])


def every_layer(keep_bytes: int) -> Any:
    """Every kind of layer once or twice, and every operation of the compiled part that a step can need."""
    from dsr import IF, LIF, AvgPool2d, BatchNorm, Conv2d, Dropout, Flatten, Linear, Network, Residual, Sequential
    from dsr.nn.fast_layers import PooledConv2d

    inner = Sequential(Conv2d(12, 12, 3, padding=1, bias=False), BatchNorm(12), LIF(0.3), Conv2d(12, 12, 3, padding=1))
    down = Sequential(Conv2d(12, 20, 3, 2, 1), BatchNorm(20), LIF(0.3), Dropout(0.2), Conv2d(20, 20, 3, padding=1))
    body = Sequential(
        Conv2d(2, 12, 3, padding=1),
        BatchNorm(12),
        IF(0.5),
        Residual(inner),
        BatchNorm(12),
        IF(0.5),
        Residual(down, Conv2d(12, 20, 1, 2)),
        LIF(0.3),
        PooledConv2d(20, 16, 3, 1),
        BatchNorm(16),
        IF(0.5, train_threshold=False),
        AvgPool2d(3),
        Dropout(0.1),
        Flatten(),
        Linear(16, 3),
        BatchNorm(3),
        IF(0.5),
    )
    return Network(body, timesteps=3, seed=1, keep_bytes=keep_bytes)


class Shim:
    """The preloaded library."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.library = ctypes.CDLL(path)
        self.library.shim_disarm.restype = self.library.shim_counted.restype = ctypes.c_long
        self.library.shim_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self.library.shim_learn.argtypes, self.library.shim_learn.restype = [ctypes.c_size_t], ctypes.c_size_t
        self.how = options.get("once", True), options.get("interpreter", False)
        size = 777_777
        self.library.shim_learn(size)
        np.empty(size, np.uint8), np.zeros(size, np.uint8)
        assert self.library.shim_learn(0) == 2, "NumPy asks for the values of arrays in other ways than was thought"

    def count(self, step: Callable[[], Any]) -> int:
        """Allocations of a step."""
        self.library.shim_arm(0, *self.how)
        step()
        self.library.shim_disarm()
        return self.library.shim_counted()

    def fail(self, number: int, step: Callable[[], bytes]) -> tuple[bytes | None, int]:
        """The step's result, None if it raised MemoryError, and the number of faults that it met."""
        self.library.shim_arm(number, *self.how)
        try:
            result = step()
        except MemoryError:
            result = None
        except SystemError as error:  # what NumPy's functions give where the interpreter has no iterator for them
            if not self.how[1] or not str(error).startswith(("error return without exception set", "<ufunc ")):
                raise
            result = None
        return result, self.library.shim_disarm()


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "k")
    ]


class Sweep:
    """A fault at every n-th allocation.

    Attributes
    ----------
    errors, absorbed : int
        Faults that gave MemoryError, and faults in spite of which the result was right.
    leaks : dict
        Bytes left behind at each failure, by the number of the allocation.
    """

    def __init__(self, case: Case, shim: Shim) -> None:
        self.case, self.shim = case, shim
        self.errors = self.absorbed = 0
        self.leaks: dict[int, int] = {}
        ask = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33 and later
        if ask is not None:
            ask.restype = Mallinfo
        self._mallinfo: Callable[[], Mallinfo] | None = ask

    def run(self, every: int) -> None:
        """Until a step meets no fault."""
        number = 1
        while self.try_fault(number):
            number += every

    def try_fault(self, number: int) -> bool:
        """One fault, if the step asks so often for memory, and what is to hold after it."""
        case, where = self.case, f"a fault at allocation {number}"
        result, faults = self.shim.fail(number, case.step)
        if result is None:
            assert faults, f"MemoryError without {where}"
            now = case.state()
            changed = [name for name in case.before.keys() | now.keys() if case.before.get(name) != now.get(name)]
            assert not changed, f"{where}: the step failed, and yet {sorted(changed)} changed"
            self.errors += 1
            result = case.step()
        elif faults:
            self.absorbed += 1
        assert result == case.result, f"{where}: another result"
        assert case.state() == case.after, f"{where}: another state after the step"
        case.restore()
        if faults and (left := self.left_behind(number)):
            self.leaks[number] = left
        return faults > 0

    def left_behind(self, number: int) -> int:
        """Bytes by which each failure leaves more in use; caches that fill up do so only a few times."""
        growth = 0
        for attempt in range(12):
            before = self.bytes_in_use()
            self.shim.fail(number, self.case.step)
            self.case.restore()
            if attempt > 2:
                gc.collect()
            growth = self.bytes_in_use() - before
            if growth <= 0:
                return 0
        return growth

    def bytes_in_use(self) -> int:
        """What malloc has given out."""
        if self._mallinfo is None:
            return 0
        info = self._mallinfo()
        return info.uordblks + info.hblkhd


def main(path: str, options: dict[str, Any]) -> None:
    """All faults of a first step and of a later one."""
    import faulthandler

    from dsr import _core

    faulthandler.enable()
    if "threads" in options:
        _core.set_threads(options["threads"])
    shim = Shim(path, options)
    counted: dict[str, Any] = {"allocations": 0, "errors": 0, "absorbed": 0, "leaks": []}
    for first in (True, False):
        case = Case(options, first)
        counted["allocations"] = max(counted["allocations"], shim.count(case.step))
        case.restore()
        sweep = Sweep(case, shim)
        sweep.run(options["every"])
        counted["errors"] += sweep.errors
        counted["absorbed"] += sweep.absorbed
        counted["leaks"] += sweep.leaks.items()
    print(json.dumps(counted))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
