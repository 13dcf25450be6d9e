"""Small training runs of several kinds, which the tests here repeat in threads, processes and after interruptions.

As a script, see the two functions at the end: ``small_runs.py train FOLDER STEPS KINDS THREADS...`` and ``small_runs.py
kill FOLDER STEPS KIND LAST SECONDS``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from dsr import _core, data, train
from dsr.data import ArraySamples, DataSet
from dsr.files import checkpoint
from dsr.train import recipe, run_folder

SMALL = ["epochs=2", "batch_size=16", "timesteps=3", "v_threshold=1.0"]
LIF = ["neuron=lif", "v_threshold=0.6", "v_threshold_lower_bound=0.001"]
KINDS = {
    "digits": ["width=8", "ema_decay=0.9", "clip_norm=1.0", "label_smoothing=0.1"],
    "digits_lif": ["width=8", "optimizer=adam", "learning_rate=0.01", *LIF],
    "digits_muon": ["width=8", "optimizer=muon", "learning_rate=0.02"],
    "resnet": ["model=preact_resnet18", "width=4", "dropout=0.2", "batch_size=6", "nesterov=true"],
    "vgg": ["model=vgg11", "width=4", "dropout=0.1", "batch_size=6", "validation=10", *LIF],
    "cifar_fast": [
        *["model=cifar_fast", "width=8", "batch_size=8", "flip=true", "alternate_flip=true", "test_views=mirror-shift"],
        *["schedule=triangular", "warmup_steps=3", "bias_rate=16.0", "nesterov=true", "ema_decay=0.5"],
    ],
}


def enlarge(images: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
    """Digits as coloured images of 32x32 pixels, mirrored where the sample's random number says so."""
    large = np.repeat(np.repeat(images, 4, axis=2), 4, axis=3) * np.array([1, 0.5, -1], np.float32).reshape(3, 1, 1)
    if draws is not None:
        large[draws[:, 0] < 0.5] = large[draws[:, 0] < 0.5, :, :, ::-1]
    return large


def as_frames(images: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
    """Enlarged digits in three frames, brighter each time."""
    return np.stack([enlarge(images, draws) * np.float32(factor) for factor in (0.5, 1, 2)])


def samples_of(kind: str, steps: int) -> DataSet:
    """Real digits, so many that two epochs have that many steps (an odd number: one more)."""
    digits = data.load("digits")
    chosen = recipe_of(kind)
    transform = None if kind.startswith("digits") else {"vgg": as_frames}.get(kind, enlarge)
    count = (steps + 1) // 2 * chosen.batch_size + chosen.validation
    numbers = np.arange(count) % len(digits.train)
    parts = [
        ArraySamples(samples.arrays[n], samples.labels[n], transform)
        for samples, n in ((digits.train, numbers), (digits.test, np.arange(12)))
    ]
    features = digits.features if transform is None else (3, 32, 32)
    return DataSet("digits", digits.classes, features, *parts)


def recipe_of(kind: str) -> recipe.Recipe:
    """The recipe of a kind."""
    return recipe.load("digits", [*SMALL, *KINDS[kind]])


def trainer_of(kind: str, folder: Path, steps: int, **options: object) -> train.Trainer:
    """Two epochs, together that many steps."""
    return train.Trainer(recipe_of(kind), samples_of(kind, steps), folder, str, **options)


def content(folder: Path) -> dict[str, object]:
    """All that a run leaves, without times and paths: arrays as bytes, position, metrics of each epoch."""
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    metadata["metrics"].pop("seconds", None)
    metadata["position"].pop("seconds")
    metadata.pop("data_path")
    timeless = [{k: v for k, v in m.items() if k != "seconds"} for m in run_folder.load_metrics(folder)]
    return {name: (a.shape, a.tobytes()) for name, a in arrays.items()} | {"metadata": metadata, "metrics": timeless}


def digest(folder: Path) -> str:
    """SHA-256 of `content`."""
    return hashlib.sha256(repr(sorted(content(folder).items())).encode()).hexdigest()


def digest_of(network: object, arrays: np.ndarray) -> str:
    """SHA-256 of the output of a network."""
    return hashlib.sha256(network.forward(arrays).tobytes()).hexdigest()


def train_all(folder: str, steps: str, kinds: str, *threads: str) -> None:
    """Each kind with each number of threads, 0 being what OpenMP says; digests as a line of JSON."""
    found = {}
    for number in map(int, threads):
        if number:
            _core.set_threads(number)
        for kind in kinds.split(","):
            place = Path(folder, f"{kind}-{number}")
            trainer_of(kind, place, int(steps)).fit()
            found[f"{kind}, threads {number or _core.threads()}"] = digest(place)
    print(json.dumps({"level": _core.level(), "blas": _core.blas()[1], "digests": found}))


def train_until_killed(folder: str, steps: str, kind: str, last: str, seconds: str) -> None:
    """Go on with a run, saving after each step; kill -9 comes that long after the save of step `last` (0: never)."""
    trainer = trainer_of(kind, Path(folder), int(steps), save_every=0)
    if (Path(folder) / run_folder.CHECKPOINT).exists():
        trainer.resume()
    save, killer = trainer.save, threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGKILL))

    def saved(name: str = run_folder.CHECKPOINT) -> None:
        save(name)
        if trainer.position.step == int(last) and not killer.is_alive():
            killer.start()

    if 0 < int(last) <= trainer.position.step:
        killer.start()
    trainer.save = saved  # type: ignore[method-assign]
    trainer.fit()
    if int(last):
        time.sleep(60)


if __name__ == "__main__":
    {"train": train_all, "kill": train_until_killed}[sys.argv[1]](*sys.argv[2:])
