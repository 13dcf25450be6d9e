"""One folder holds one run: commands at the same time, resumed twice, killed, and under several ranks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from patience import patiently

from dsr import data, train
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet
from dsr.files import checkpoint
from dsr.files.lock import NAME, FolderInUseError, FolderLock
from dsr.train import recipe, run_folder

SHORT = ["--set", "width=4", "--set", "epochs=2"]


def command(folder, *words):
    program = "import sys; from dsr.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, "train", *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    limit = time.monotonic() + patiently(60)
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.005)


def trainer_of(folder, changes=(), **options):
    chosen = recipe.load("digits", ["epochs=2", "width=4", "batch_size=50", *changes])
    digits = data.load("digits")
    few = [ArraySamples(samples.arrays[:150], samples.labels[:150]) for samples in (digits.train, digits.test)]
    return train.Trainer(chosen, DataSet("digits", digits.classes, (1, 8, 8), *few), folder, str, **options)


def test_runs_started_together_have_a_folder_each(tmp_path):
    runs = [command(tmp_path, "digits", *SHORT, "--set", f"seed={seed}") for seed in range(3)]
    for run in runs:
        output, error = run.communicate()
        assert run.returncode == 0, output + error
    folders = sorted((tmp_path / "runs").iterdir())
    assert [folder.name for folder in folders] == ["digits", "digits-2", "digits-3"]
    seeds = set()
    for folder in folders:
        loaded = [run_folder.load_run(folder, best=best) for best in (False, True)]
        (seed,) = {chosen.seed for _, chosen, _ in loaded}
        seeds.add(seed)
        metrics = run_folder.load_metrics(folder)
        assert [m["epoch"] for m in metrics] == [1, 2] and loaded[0][2]["metrics"] == metrics[-1]
        assert not (folder / NAME).exists()
    assert seeds == {0, 1, 2}


def test_two_runs_into_one_folder(tmp_path):
    first = command(tmp_path, "digits", "--set", "width=4", "--set", "epochs=1000", "--out", "run")
    wait_for(tmp_path / "run" / NAME, first)
    while not (tmp_path / "run" / NAME).read_bytes():
        time.sleep(0.005)
    second = command(tmp_path, "digits", *SHORT, "--out", "run")
    assert second.communicate()[1] == (
        f"dsr: run is in use: process {first.pid} on {os.uname().nodename} is writing a run into it; wait for its end, "
        "or choose another folder\n"
    )
    assert second.returncode == 1
    wait_for(tmp_path / "run" / run_folder.CHECKPOINT, first)
    third = command(tmp_path, "--resume", "run")
    assert "run is in use" in third.communicate()[1] and third.returncode == 1
    first.send_signal(signal.SIGKILL)
    first.communicate()
    fourth = command(tmp_path, "digits", *SHORT, "--out", "run")
    assert "--out: run holds a run already; --resume run goes on with it" in fourth.communicate()[1]
    before = checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)[1]["position"]["epoch"]
    fifth = command(tmp_path, "--resume", "run")
    wait_for(tmp_path / "run" / NAME, fifth)
    while checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)[1]["position"]["epoch"] == before:
        assert fifth.poll() is None, fifth.communicate()
        time.sleep(0.01)
    fifth.terminate()
    assert "go on with: dsr train --resume run" in fifth.communicate()[1]


def test_a_folder_that_a_run_leaves_empty_is_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for words in ([], ["--out", "new"], ["--out", "mine"]):
        assert main(["train", "digits", "--from", "nothere", *words]) == 1
        assert "nothere: expected a run folder or a file of weights, found nothing" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]
    assert list((tmp_path / "runs").iterdir()) == list((tmp_path / "mine").iterdir()) == []


def test_a_trainer_does_not_write_over_what_another_wrote_in_the_meantime(tmp_path):
    new, fitted = trainer_of(tmp_path / "run"), trainer_of(tmp_path / "run")
    fitted.fit()
    with pytest.raises(FolderInUseError, match="another run was written into it in the meantime"):
        new.fit()
    assert len(run_folder.load_metrics(tmp_path / "run")) == 2
    waiting = trainer_of(tmp_path / "other")
    with FolderLock(tmp_path / "other"), pytest.raises(FolderInUseError, match="is in use: process"):
        waiting.fit()
    waiting.fit()
    assert not (tmp_path / "other" / NAME).exists()


def test_a_resumed_trainer_does_not_go_back(tmp_path):
    """Two resumed the same checkpoint; one goes on, the other must not begin where both were."""
    trainer_of(tmp_path / "run", ["epochs=1"]).fit()
    arrays, metadata = checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)
    metadata["recipe"]["epochs"] = 3
    checkpoint.save(tmp_path / "run" / run_folder.CHECKPOINT, arrays, metadata)
    one, two = (trainer_of(tmp_path / "run", ["epochs=3"]) for _ in range(2))
    one.resume()
    two.resume()
    one.fit()
    with pytest.raises(FolderInUseError, match="in the meantime; resume that one"):
        two.fit()
    two.resume()
    assert two.position.epoch == 3
    assert two.fit() == one.metrics[-1]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_first_step(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path / "file" / "run")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trainer, "_step", None)
    with pytest.raises(OSError, match="file"):
        trainer.fit()


def test_too_little_room_is_told_before_the_first_step(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path / "run", ["ema_decay=0.5"])
    size = 3 * trainer._bytes()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    with pytest.raises(OSError, match=r"run: its checkpoints need .* MB, but .* MB of the disk are free"):
        trainer.fit()
    assert trainer.position.step == 0 and not (tmp_path / "run" / run_folder.CHECKPOINT).exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))
    trainer.fit()
    files = [tmp_path / "run" / name for name in (run_folder.CHECKPOINT, run_folder.BEST)]
    written = max(file.stat().st_size for file in files)
    assert 0.9 * trainer._bytes() < written < trainer._bytes() + 20_000  # the estimate is that of the arrays
    # what lies there already needs no more room
    run_folder.require_room(tmp_path / "run", trainer._bytes())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    with pytest.raises(OSError, match="MB of the disk are free"):
        run_folder.require_room(tmp_path / "run", trainer._bytes() + 20_000)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_the_size_of_a_checkpoint_is_known_before_it_is_written(tmp_path, optimizer):
    trainer = trainer_of(tmp_path / "run", [f"optimizer={optimizer}", "learning_rate=0.01", "width=32", "epochs=1"])
    expected = trainer._bytes()
    trainer.fit()
    assert expected == pytest.approx((tmp_path / "run" / run_folder.CHECKPOINT).stat().st_size, rel=0.05)


def test_a_save_that_fails_changes_nothing(tmp_path, monkeypatch):
    """Fitted again after the disk had failed, the best checkpoint is that of the best epoch."""
    changes = ["epochs=2", "width=8"]
    whole = trainer_of(tmp_path / "whole", changes)
    whole.fit()
    accuracies = [m["test_accuracy"] for m in whole.metrics]
    assert max(accuracies) == accuracies[-1] > accuracies[-2]
    for failing in (run_folder.BEST, run_folder.CHECKPOINT, run_folder.METRICS):
        trainer = trainer_of(tmp_path / failing, changes)
        real, write, failed = trainer.save, run_folder.write_metrics, []

        def fails(name, trainer=trainer, failed=failed, failing=failing):
            if name == failing and trainer.position.epoch == 2 and not failed:
                failed.append(name)
                raise OSError(28, "No space left on device", name)

        def save(name=run_folder.CHECKPOINT, fails=fails, real=real):
            fails(name)
            real(name)

        def write_metrics(*words, fails=fails, write=write):
            fails(run_folder.METRICS)
            write(*words)

        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "write_metrics", write_metrics)
            trainer.save = save
            with pytest.raises(OSError, match="No space left"):
                trainer.fit()
            assert failed and trainer.position.epoch == 1 and len(trainer.metrics) == 1
            assert trainer.position.best == accuracies[0]
            trainer.fit()
        for name in (run_folder.BEST, run_folder.CHECKPOINT):
            (found, about), (expected, _) = (checkpoint.load(tmp_path / f / name) for f in (failing, "whole"))
            assert all(np.array_equal(found[key], array) for key, array in expected.items())
            assert about["position"]["best"] == accuracies[-1] and about["position"]["epoch"] == 2
        assert [m["test_accuracy"] for m in run_folder.load_metrics(tmp_path / failing)] == accuracies


def test_metrics_that_are_gone(tmp_path):
    trainer_of(tmp_path / "run", ["epochs=3"]).fit()
    metrics = run_folder.load_metrics(tmp_path / "run")
    (tmp_path / "run" / run_folder.METRICS).unlink()
    lines = []
    again = trainer_of(tmp_path / "run", ["epochs=3"])
    again.say = lines.append
    again.resume()
    assert again.fit() == metrics[-1]
    assert lines == [f"{tmp_path / 'run' / run_folder.METRICS} has no metrics of epoch 1, 2; they stay missing"]
    run_folder.write_metrics(tmp_path / "run", metrics[1:])
    again.resume()
    assert again.fit() == metrics[-1] and lines[-1].endswith("has no metrics of epoch 1; they stay missing")
    run_folder.write_metrics(tmp_path / "run", metrics[:2])  # the last one is in the checkpoint too
    again.resume()
    assert again.metrics == metrics and len(lines) == 2
