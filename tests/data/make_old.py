"""Writes what tests/test_old_checkpoints.py reads: ``python tests/data/make_old.py VERSION``, once for each version of
the format, with the dsr whose version it is. What an older version wrote is never made again.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from dsr import data, train
from dsr.files import checkpoint
from dsr.train import recipe, run_folder
from dsr.train import trainer as loops
from dsr.train.interrupt import Interrupted

HERE = Path(__file__).parent
SMALL = ["width=2", "batch_size=64"]
RUNS = {
    "run": [*SMALL, "epochs=4", "clip_norm=1.0"],
    "checkpoint": [
        *(*SMALL, "epochs=2", "neuron=lif", "v_threshold=0.6", "v_threshold_lower_bound=0.001"),
        *("optimizer=adam", "learning_rate=0.01", "ema_decay=0.5"),
    ],
}
STEPS = {"run": 66, "checkpoint": 30}
"""After which a run is stopped: at the end of its third epoch, and in the middle of its second."""
SAMPLES = 40


def trainer_of(kind: str, folder: Path) -> train.Trainer:
    """The trainer of a run, silent."""
    return train.Trainer(recipe.load("digits", RUNS[kind]), data.load("digits"), folder, lambda _: None)


def stop_after(steps: int, trainer: train.Trainer) -> None:
    """Train so far, and save."""
    real, done = loops.gradient_norm, 0

    def counted(parameters):
        nonlocal done
        done += 1
        if done > steps:
            raise Interrupted(signal.SIGINT)
        return real(parameters)

    loops.gradient_norm = counted
    try:
        trainer.fit()
    except Interrupted:
        pass
    finally:
        loops.gradient_norm = real


def robust(network, rng) -> np.ndarray:
    """Numbers of test samples whose spikes do not hang on the last digits, so that every processor counts the same."""
    images, state = data.load("digits").test.arrays, network.state()
    plain, good = network.forward(images), np.ones(len(images), bool)
    for _ in range(20):
        changed = {name: array * (1 + 1e-5 * rng.normal(size=array.shape)) for name, array in state.items()}
        network.load_state(changed)
        good &= np.isclose(network.forward(images), plain, rtol=1e-3, atol=1e-6).all(axis=1)
    network.load_state(state)
    return np.flatnonzero(good)[:SAMPLES]


def main() -> None:
    """Write the files."""
    version = sys.argv[1]
    assert version == str(checkpoint.VERSION), f"this dsr writes version {checkpoint.VERSION}"
    expected = {}
    for kind in RUNS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stop_after(STEPS[kind], trainer_of(kind, folder))
            if kind == "run":
                target = HERE / f"run-v{version}"
                target.mkdir(exist_ok=True)
                for file in (run_folder.CHECKPOINT, run_folder.BEST, run_folder.METRICS, run_folder.TABLE):
                    shutil.copy(folder / file, target / file)
            else:
                shutil.copy(folder / run_folder.CHECKPOINT, HERE / f"checkpoint-v{version}.safetensors")
            network, *_ = run_folder.load_run(folder)
            numbers = robust(network, np.random.default_rng(0))
            expected[f"{kind}.numbers"] = numbers
            expected[f"{kind}.outputs"] = network.forward(data.load("digits").test.arrays[numbers])
            resumed = trainer_of(kind, folder)
            resumed.resume()
            resumed.fit()
            expected |= {f"{kind}.end.{path}": p.value.copy() for path, p in resumed.network.parameters()}
            print(f"{kind}: {len(numbers)} samples, {resumed.metrics}")
    np.savez_compressed(HERE / f"old-outputs-v{version}.npz", **expected)


if __name__ == "__main__":
    main()
