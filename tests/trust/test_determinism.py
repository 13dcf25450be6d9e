"""The same bits: again, with other numbers of threads, after interruptions, and on other instruction levels."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_runs import KINDS, digest, trainer_of

import dsr
from dsr import _core
from dsr.files import checkpoint
from dsr.train import run_folder
from dsr.train.interrupt import Interrupted

HERE = Path(__file__).parent
# what OpenBLAS would take on processors of these levels; it knows nothing of DSR_LEVEL
ON_ARM = "neon" in _core.levels()
BLAS_KERNELS = {
    "scalar": "ARMV8" if ON_ARM else "Nehalem",
    "neon": "NEOVERSEN1",
    "avx2": "Haswell",
    "avx512": "SkylakeX",
}
LEVELS = {level: BLAS_KERNELS[level] for level in _core.levels()}


def script(name, *words, **environment):
    """What a script of this folder prints, run in a fresh process."""
    done = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_again_and_with_other_numbers_of_threads(tmp_path, amount, figure):
    """Weights, optimiser, averages, metrics: in fresh processes, with threads set by OpenMP's variable and by dsr."""
    steps = amount(10, 100)
    kinds = amount(["digits", "vgg"], list(KINDS))
    short = [("1", [0], kinds), ("4", [0, 2, 3], kinds)]
    plans = amount(short, [(str(1 + count % 4), [0, 1, 2, 3, 4], kinds) for count in range(5)])
    found = {kind: [] for kind in kinds}
    for count, (environment, threads, some) in enumerate(plans):
        folder = tmp_path / str(count)
        printed = script("small_runs.py", "train", folder, steps, ",".join(some), *threads, OMP_NUM_THREADS=environment)
        for name, value in printed["digests"].items():
            found[name.partition(",")[0]].append(value)
    runs = sum(map(len, found.values()))
    different = {kind: len(set(values)) for kind, values in found.items() if len(set(values)) > 1}
    figure(f"{runs} runs of {len(kinds)} kinds, {steps} steps each, {len(different)} kinds with more than one outcome")
    assert not different
    assert len({values[0] for values in found.values()}) == len(kinds)


@pytest.fixture
def _threads():
    """The number of threads is as it was before."""
    before = dsr.get_num_threads()
    yield
    dsr.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("_threads")
def test_cut_anywhere_by_an_interrupt(tmp_path, monkeypatch, amount, figure, kind):
    """Before, between and after the passes of random steps, and each time with another number of threads."""
    steps = amount(2, 40)
    trainer_of(kind, tmp_path / "unbroken", steps).fit()
    chance = random.Random(kind)
    count = amount(1, 5)
    cuts = dict.fromkeys(chance.sample(range(steps), count))
    forward, backward = dsr.Network.forward, dsr.Network.backward
    trainer = None

    def maybe(where):
        if trainer is not None and cuts.get(trainer.position.step) == where:
            del cuts[trainer.position.step]
            raise Interrupted(signal.SIGINT)

    def forwarded(self, data, *, training=False, observer=None):
        if training:
            maybe("before")
        output = forward(self, data, training=training, observer=observer)
        if training:
            maybe("between")
        return output

    def backwarded(self, grad):
        backward(self, grad)
        maybe("after")

    for step in cuts:
        cuts[step] = chance.choice(["before", "between", "after"])
    wanted = dict(cuts)
    monkeypatch.setattr(dsr.Network, "forward", forwarded)
    monkeypatch.setattr(dsr.Network, "backward", backwarded)
    for number in range(len(wanted) + 1):
        dsr.set_num_threads(1 + number % 4)
        trainer = trainer_of(kind, tmp_path / "broken", steps)
        if number:
            trainer.resume()
        if number < len(wanted):
            with pytest.raises(Interrupted, match="and saved"):
                trainer.fit()
        else:
            trainer.fit()
    assert not cuts
    assert digest(tmp_path / "broken") == digest(tmp_path / "unbroken")
    figure(f"{len(wanted)} cuts in {steps} steps: {wanted}")


def test_cut_anywhere_by_kill_9(tmp_path, amount, figure):
    """Killed up to 20 ms after the save of a random step: in the steps after it, in saves, in evaluations."""
    chance = random.Random(1)
    where = {}
    for kind in amount(["digits"], list(KINDS)):
        folder, steps = tmp_path / kind, amount(6, 40)
        trainer_of(kind, tmp_path / f"{kind}-unbroken", steps).fit()
        where[kind] = []
        for last in [*sorted(chance.sample(range(1, steps), amount(1, 4))), 0]:
            words = ["kill", folder, steps, kind, last, 0.02 * chance.random()]
            done = subprocess.run(
                [sys.executable, str(HERE / "small_runs.py"), *map(str, words)],
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == (-signal.SIGKILL if last else 0), done.stderr
            where[kind].append(checkpoint.load(folder / run_folder.CHECKPOINT)[1]["position"]["step"])
            assert where[kind][-1] >= last
        assert digest(folder) == digest(tmp_path / f"{kind}-unbroken")
    figure(f"{sum(map(len, where.values())) - len(where)} kills; checkpoints found after steps {where}")


@cache
def best_level():
    """The highest level of this processor."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from dsr import _core; print(_core.level())"],
        env={**os.environ, "DSR_LEVEL": _core.levels()[-1]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@cache
def level_job(level, blas, count):
    """`level_job.py` on a level, with the OpenBLAS kernels of processors of that level or of this one."""
    kernels = {"OPENBLAS_CORETYPE": LEVELS[level]} if blas else {}
    return script("level_job.py", count, DSR_LEVEL=level, **kernels)


def require(level):
    """Skip where the processor lacks the level."""
    if list(LEVELS).index(level) > list(LEVELS).index(best_level()):
        pytest.skip(f"this processor has no {level}, only {best_level()}")


@pytest.mark.parametrize("level", LEVELS)
def test_operations_on_a_level(amount, figure, level):
    """Spikes equal those of the scalar level; what is rounded keeps to the bounds that `dsr.ops` states."""
    require(level)
    count = amount(5, 1500)
    found, scalar = level_job(level, True, count), level_job("scalar", True, count)
    assert found["exact"] == scalar["exact"]
    worst = ", ".join(f"{name} {part:.2f}" for name, part in found["worst"].items())
    figure(f"OpenBLAS {found['blas']}; {count} networks of spikes equal; parts of the bounds reached: {worst}")
    assert max(found["worst"].values()) <= 1


def difference(a, b):
    """Root of the sum of squares of the differences of all weights of two runs, as a part of that of the weights."""
    one, other = (run_folder.part(checkpoint.load(folder / run_folder.CHECKPOINT)[0], "network") for folder in (a, b))
    floats = [name for name, array in one.items() if array.dtype == np.float32]
    squares = [[float((x.astype(float) ** 2).sum()) for x in (one[n] - other[n], one[n])] for n in floats]
    apart, length = np.sqrt(np.sum(squares, axis=0))
    return float(apart / length)


def test_training_on_each_level(tmp_path, amount, figure):
    """Nothing is promised but the bounds above, so what differs is printed; each level learns as well as the others."""
    steps, kinds = amount(6, 100), amount(["digits"], list(KINDS))
    levels = [level for level in LEVELS if list(LEVELS).index(level) <= list(LEVELS).index(best_level())]
    variants = {f"{level}, OpenBLAS as here": {"DSR_LEVEL": level} for level in levels}
    variants |= {
        f"{level}, OpenBLAS {LEVELS[level]}": {"DSR_LEVEL": level, "OPENBLAS_CORETYPE": LEVELS[level]}
        for level in levels
    }
    for kind in kinds:
        trainer_of(kind, tmp_path / "here" / f"{kind}-1", steps).fit()
    for name in amount([f"scalar, OpenBLAS {LEVELS['scalar']}"], list(variants)):
        script("small_runs.py", "train", tmp_path / name, steps, ",".join(kinds), 1, **variants[name])
        apart, losses = [], []
        for kind in kinds:
            folders = tmp_path / "here" / f"{kind}-1", tmp_path / name / f"{kind}-1"
            apart.append(f"{kind} {difference(*folders):.1e}")
            losses.append([run_folder.load_metrics(folder)[-1]["loss"] for folder in folders])
        figure(f"{name}: weights after {steps} steps apart from those of this process by {', '.join(apart)}")
        assert all(abs(one - other) < 0.5 for one, other in losses), losses
