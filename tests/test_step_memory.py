"""The memory of a training step: what is predicted beside what processes take, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from math import nan
from pathlib import Path

import numpy as np
import pytest

import dsr
from dsr import data, system, train
from dsr.__main__ import main
from dsr.train import memory
from dsr.train.build import build_network, make_optimizer
from dsr.train.recipe import Recipe

MEASURE = """
import json, sys
import numpy as np
from dsr import system, train
from dsr.train.build import build_network, make_optimizer
from dsr.train.recipe import Recipe
values, features, has_time = json.loads(sys.argv[1])
recipe = Recipe(**values)
before = system.peak_memory()
network = build_network(recipe, tuple(features), 10)
optimizer = make_optimizer(recipe, network)
rng = np.random.default_rng(0)
shape = [recipe.timesteps] * has_time + [recipe.batch_size, *features]
images, labels = rng.standard_normal(shape, np.float32), rng.integers(10, size=recipe.batch_size)
for _ in range(2):
    train.train_step(network, optimizer, images, labels, accumulate=recipe.accumulate)
print((system.peak_memory() - before) * 2**20)
"""

CASES = {
    "nothing kept": ({"model": "preact_resnet18", "width": 16, "timesteps": 4, "keep_mb": 0}, (3, 32, 32), 32),
    "in parts": ({"model": "preact_resnet18", "width": 16, "timesteps": 4, "accumulate": 2}, (3, 32, 32), 48),
    "whitened": ({"model": "cifar_fast", "width": 32, "timesteps": 3}, (3, 32, 32), 96),
    "with time": ({"model": "vgg11", "width": 16, "timesteps": 6, "dropout": 0.2, "keep_mb": 8}, (2, 48, 48), 16),
    "pictures": ({"model": "resnet18", "width": 16, "timesteps": 4, "neuron": "lif"}, (3, 96, 96), 48),
    "weights": ({"model": "mlp", "width": 2048, "timesteps": 4, "optimizer": "adam"}, (1, 32, 32), 128),
}


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of processes are compared as Linux counts them")
@pytest.mark.parametrize("case", CASES)
def test_what_a_process_takes(case):
    values, features, batch = CASES[case]
    values = {"data": "random", **values, "batch_size": batch}
    has_time = case == "with time"
    words = [sys.executable, "-P", "-c", MEASURE, json.dumps([values, features, has_time])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recipe = Recipe(**values)
    network = build_network(recipe, features, 10)
    before = network.state()
    optimizer, parts = make_optimizer(recipe, network), recipe.accumulate
    found = memory.step_memory(network, optimizer, features, batch, has_time=has_time, accumulate=parts)
    assert found.total == pytest.approx(float(done.stdout), rel=0.2)
    assert found.samples == batch // recipe.accumulate
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


TAUGHT = """
import json, sys
import numpy as np
import dsr
from dsr import system, train
from dsr.train.build import build_network, make_optimizer
from dsr.train.recipe import Recipe
from dsr.train.teacher import Teacher
own, its, features, samples = json.loads(sys.argv[1])
before = system.peak_memory()
network, teacher = (build_network(Recipe(**values), tuple(features), 10) for values in (own, its))
optimizer = make_optimizer(Recipe(**own), network)
images = np.random.default_rng(0).standard_normal((samples, *features), np.float32)
labels = np.zeros(samples, int)
for _ in range(2):
    train.compute_gradients(network, images, labels, Teacher(teacher, 0.5).loss(dsr.cross_entropy, images))
    optimizer.step()
print((system.peak_memory() - before) * 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of processes are compared as Linux counts them")
def test_a_teacher_takes_memory_too():
    own = {"data": "random", "model": "mlp", "width": 64, "timesteps": 4}
    its, features = {**own, "model": "preact_resnet18"}, (3, 32, 32)
    words = [sys.executable, "-P", "-c", TAUGHT, json.dumps([own, its, features, 192])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    network, teacher = (build_network(Recipe(**values), features, 10) for values in (own, its))
    optimizer = make_optimizer(Recipe(**own), network)
    alone = memory.step_memory(network, optimizer, features, 192)
    taught = memory.step_memory(network, optimizer, features, 192, teacher=teacher)
    assert taught.weights == alone.weights + sum(array.nbytes for _, array in teacher.arrays())
    assert taught.total == pytest.approx(float(done.stdout), rel=0.2)
    assert taught.passes > 2 * alone.passes  # its pass is the largest moment of a step


def of(batch, accumulate=1, keep_mb=128):
    recipe = Recipe(data="random", model="preact_resnet18", width=8, timesteps=4, keep_mb=keep_mb)
    network = build_network(recipe, (3, 32, 32), 10)
    optimizer = make_optimizer(recipe, network)
    return memory.step_memory(network, optimizer, (3, 32, 32), batch, accumulate=accumulate)


def test_the_number_of_parts_that_is_named_fits():
    whole = of(4096, keep_mb=8)
    for limit in (whole.total * 0.6, whole.total / 20):
        with pytest.raises(ValueError, match=r"step of 4096 samples needs about .* accumulate = \d+ computes") as found:
            whole.require(limit + 1e6, used=1e6)
        parts = int(str(found.value).partition("accumulate = ")[2].split()[0])
        part = of(4096, accumulate=parts, keep_mb=8)
        part.require(limit + 1e6, used=1e6)
        assert 4096 / parts == pytest.approx(part.samples, abs=1)
        assert part.total > limit / 3  # not in needlessly many
    whole.require(whole.total + 1)
    whole.require(nan)  # not known
    with pytest.raises(ValueError, match="neither a smaller batch_size nor accumulate is enough; a smaller width"):
        whole.require(10e6)
    assert set(asdict(whole)) == {"samples", "weights", "optimizer", "passes", "fixed"}


def test_large_weights_and_large_pictures():
    """In steps of two or three samples the gradient of the weights needs most, in larger ones the first layers do."""
    recipe = Recipe(data="random", model="resnet18", timesteps=4, norm_gradient="rate", batch_size=16)
    features = (3, 128, 128)
    network = build_network(recipe, features, 10)
    told = memory.of_recipe(recipe, network, make_optimizer(recipe, network), features)
    with memory._followed():
        found = memory._passes(network, features, False, 16, 16).peak
    assert told.passes == pytest.approx(found * (1 + memory.HOLES) + memory.WORK, rel=0.1)


def test_a_run_that_does_not_fit_is_refused_before_it_starts(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    words = ["train", "digits", "--set", "batch_size=1024", "--set", "epochs=1", "--out", str(folder)]
    now = system.resident_memory()
    monkeypatch.setattr(system, "resident_memory", lambda: now)  # what other tests left may be given back meanwhile
    monkeypatch.setattr(system, "memory_limit", lambda: now + 60)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "memory: a training step of 1024 samples needs about" in error and "batch_size" in error
    parts = error.partition("accumulate = ")[2].split()[0]
    assert not folder.exists()
    monkeypatch.setattr(system, "memory_limit", lambda: now + 200)
    assert main([*words, "--set", f"accumulate={parts}"]) == 0
    assert f"memory of a training step of {-(-1024 // int(parts))} samples: " in capsys.readouterr().out
    monkeypatch.setattr(system, "memory_limit", lambda: 1.0)
    assert main(["summary", "digits", "--set", "batch_size=1024"]) == 0
    output = capsys.readouterr().out
    assert "memory of a training step of 1024 samples: " in output
    assert "neither a smaller batch_size nor accumulate is enough" in output


def test_networks_that_cannot_be_copied_are_trained(monkeypatch):
    """The line says that the memory is not known."""
    network = dsr.Network(dsr.Sequential(dsr.Flatten(), dsr.Linear(64, 10)), timesteps=1)
    network.body.layers["0"].stream = (word for word in "a generator")
    trainer = train.Trainer(network, data.load("digits"), epochs=1)
    assert "not known, since the network cannot be copied" in memory.require_room(trainer)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/memory.max": 300 << 20, "a/b/memory.max": "max"}, 300),
        ("0::/host/only\n", {"memory.max": 200 << 20}, 200),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": 100 << 20, "memory.max": 150 << 20}, 100),
        ("3:cpu:/a\n", {"memory.max": 1}, None),
        (None, {}, None),
    ],
)
def test_control_groups_limit_memory(tmp_path, monkeypatch, groups, files, expected):
    whole = system.memory_limit()
    for name, value in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    monkeypatch.setattr(system, "Path", lambda first, *rest: Path(str(tmp_path) + str(first), *rest))
    assert system.memory_limit() == (expected or pytest.approx(whole, rel=0.9))
    assert whole > 500
