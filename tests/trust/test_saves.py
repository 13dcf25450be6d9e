"""kill -9 at random moments of a save: what is there afterwards is whole, and not older than what was said to be saved.

As a script: lets a child save two different checkpoints in turn, kills it, looks, and starts the next; prints as JSON
what it counted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

NUMBERS = np.arange(1, 750_000, dtype=np.float32)
WEIGHTS = (NUMBERS, -NUMBERS)


def test_kill_9_at_random_moments_of_a_save(tmp_path, amount, figure):
    kills = amount(30, 1000)
    done = subprocess.run(
        [sys.executable, "-P", __file__, tmp_path, str(kills)], capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    counted = json.loads(done.stdout.splitlines()[-1])
    figure(
        f"{kills} kills, {counted['inside']} while a temporary file was written; {counted['last']} found what was last "
        f"said to be saved, {counted['next']} the one after it, 0 anything else; {counted['saves']} saves"
    )
    assert counted["last"] + counted["next"] == kills
    assert counted["inside"] >= kills // 10  # the kills came when they should
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_metrics_cut_anywhere_or_damaged(tmp_path, figure):
    """Lines that are whole are read, what follows the last of them is not; damage further up is an error."""
    from dsr.train import run_folder

    metrics = [{"epoch": epoch, "loss": 1 / epoch, "firing_rate": {"neuron1": 0.25}} for epoch in (1, 2, 3)]
    run_folder.write_metrics(tmp_path, metrics)
    path = tmp_path / run_folder.METRICS
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        for tail in (b"", bytes(7), b"\xff\xfe"):  # what a file system may leave where nothing was written yet
            path.write_bytes(whole[:length] + tail)
            assert run_folder.load_metrics(tmp_path) == metrics[: whole[:length].count(b"\n")]
    figure(f"{3 * (len(whole) + 1)} torn files")
    path.write_bytes(whole.replace(b'"epoch": 2', b'"epoch": \xff'))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: line 2 is damaged \("):
        run_folder.load_metrics(tmp_path)


def content(step: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Two networks of 3 MB that have no number in common, and an array that tells the saves of the same one apart."""
    return {"weight": WEIGHTS[step % 2], "step": np.array([step])}, {"step": step}


def check(path: Path, last: int) -> int:
    """The step of the checkpoint that is there, every bit of which is compared."""
    from dsr.files import checkpoint

    arrays, metadata = checkpoint.load(path)
    step = metadata["step"]
    assert last <= step <= last + 1, f"{last} was said to be saved, found {step}"
    expected, _ = content(step)
    assert arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], array) for name, array in expected.items()), f"step {step} is damaged"
    return step


def save_for_ever(path: Path, step: int, said: int) -> None:
    """Save, and say so, until somebody puts an end to it."""
    from dsr.files import checkpoint

    while True:
        step += 1
        checkpoint.save(path, *content(step))
        os.write(said, step.to_bytes(8, "little"))


def kill_one(path: Path, step: int, share: float, aimed: bool) -> int:
    """Kill a process that saves; the step that it last said was saved.

    The kill comes after a share of the time of three saves, or, aimed, some time after a temporary file is seen.
    """
    reading, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            save_for_ever(path, step, said)
        finally:
            os._exit(1)  # only after an error, which is on stderr
    os.close(said)
    with open(reading, "rb", buffering=0) as pipe:
        first = pipe.read(8)
        assert len(first) == 8, "the child could not save"
        started = time.perf_counter()
        second = pipe.read(8)
        seconds = time.perf_counter() - started
        time.sleep((1 if aimed else 3) * share * seconds)
        limit = time.monotonic() + 60
        while aimed and len(os.listdir(path.parent)) == 1:
            assert time.monotonic() < limit, "the child saves no more"
        if aimed:
            time.sleep(share * seconds / 4)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child ended by itself"
        rest = pipe.readall()
    return int.from_bytes((first + second + rest)[-8:], "little")


if __name__ == "__main__":
    from dsr.files import checkpoint

    target, kills = Path(sys.argv[1]) / "run.safetensors", int(sys.argv[2])
    rng = np.random.default_rng(9)
    counted = {"inside": 0, "last": 0, "next": 0, "saves": 0}
    step = 0
    checkpoint.save(target, *content(step))
    for number in range(kills):
        last = kill_one(target, step, rng.random(), number % 2 == 0)
        left = [path.name for path in target.parent.iterdir() if path != target]
        assert len(left) <= 1 and all(name.startswith(".run.safetensors.") for name in left), left
        found = check(target, last)
        counted["inside"] += bool(left)
        counted["next" if found > last else "last"] += 1
        counted["saves"] += found - step
        step = found + 1
        checkpoint.save(target, *content(step))
        assert list(target.parent.iterdir()) == [target], "a save left something, or left it there"
    print(json.dumps(counted))
