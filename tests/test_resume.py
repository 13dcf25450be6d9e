"""A run that is stopped, killed or resumed gives the bits of one that never was."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from patience import patiently

from dsr import data, train
from dsr.data import ArraySamples, DataSet
from dsr.files import checkpoint
from dsr.train import recipe, run_folder
from dsr.train import trainer as loops
from dsr.train.interrupt import Interrupted, Interrupts

SHORT = ["epochs=3", "width=8", "batch_size=128", "ema_decay=0.9", "clip_norm=1.0", "label_smoothing=0.1"]
RESNET = ["model=preact_resnet18", "width=4", "dropout=0.2", "timesteps=2", "batch_size=8", "epochs=2"]
VARIANTS = {
    "sgd": [],
    "adam": ["optimizer=adam", "learning_rate=0.01"],
    "lif": ["neuron=lif", "v_threshold=0.6", "v_threshold_lower_bound=0.001", "nesterov=true"],
    "validation": ["validation=200", "ema_decay=0.0"],
    "dropout": RESNET,
}


def colours() -> DataSet:
    """Noise whose mean colour is its class: enough for a few steps of a network with dropout."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = rng.normal(size=(60, 3, 32, 32)).astype(np.float32)
    images[np.arange(60), labels] += 1
    return DataSet("colours", ("red", "green", "blue"), (3, 32, 32), *[ArraySamples(images, labels)] * 2)


def trainer_of(folder, changes=()):
    samples = colours() if changes is RESNET else data.load("digits")
    return train.Trainer(recipe.load("digits", [*SHORT, *changes]), samples, folder, lambda _: None)


def content(folder):
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    metadata["metrics"].pop("seconds")
    metadata["position"].pop("seconds")
    metadata.pop("data_path")
    return arrays, metadata


def assert_same_run(a, b):
    (arrays_a, metadata_a), (arrays_b, metadata_b) = content(a), content(b)
    assert arrays_a.keys() == arrays_b.keys()
    for name, array in arrays_a.items():
        np.testing.assert_array_equal(array, arrays_b[name], err_msg=name)
    assert metadata_a == metadata_b
    timeless = [[{k: v for k, v in m.items() if k != "seconds"} for m in run_folder.load_metrics(f)] for f in (a, b)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_stops_in_the_middle_of_steps(tmp_path, monkeypatch, changes):
    """Every seventh step is interrupted when its passes have changed running statistics, thresholds and masks."""
    trainer_of(tmp_path / "unbroken", changes).fit()
    real, calls, stops = loops.gradient_norm, 0, 0

    def interrupted(parameters):
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            raise Interrupted(signal.SIGINT)
        return real(parameters)

    monkeypatch.setattr(loops, "gradient_norm", interrupted)
    while True:
        trainer = trainer_of(tmp_path / "broken", changes)
        if stops:
            trainer.resume()
        try:
            trainer.fit()
            break
        except Interrupted as stop:
            assert f"go on with: dsr train --resume {tmp_path / 'broken'}" in str(stop)
            stops += 1
    assert stops >= 2
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def command(*arguments):
    program = "import sys; from dsr.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


LONG = [word for change in ["epochs=60", *SHORT[1:]] for word in ("--set", change)]


def wait_for(path, process):
    limit = time.monotonic() + patiently(60)
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_kill_9_and_resume(tmp_path):
    """Killed at moments that nobody chose, while a checkpoint is written after every step."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes = [*LONG, "--set", "epochs=30"]
    done = command("train", "digits", *changes, "--out", whole)
    assert done.wait() == 0, done.communicate()
    done.communicate()
    process = command("train", "digits", *changes, "--out", killed, "--save-every", 0)
    for kill in range(4):
        wait_for(killed / run_folder.CHECKPOINT, process)
        before = (killed / run_folder.CHECKPOINT).stat().st_ino
        while (killed / run_folder.CHECKPOINT).stat().st_ino == before:
            assert process.poll() is None, process.communicate()
        time.sleep(0.01 + 0.03 * kill)
        process.kill()
        process.communicate()
        process = command("train", "--resume", killed, "--save-every", 0)
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert "resumed after" in output
    assert_same_run(whole, killed)


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_signals_save_and_say_how_to_go_on(tmp_path, number):
    folder = tmp_path / "run"
    process = command("train", "digits", *LONG, "--out", folder)
    wait_for(folder / run_folder.METRICS, process)
    started = time.monotonic()
    os.kill(process.pid, number)
    _, error = process.communicate()
    assert time.monotonic() - started < patiently(10)  # a second on a quiet machine
    assert process.returncode == 128 + number, error
    assert f"go on with: dsr train --resume {folder}" in error
    trainer = trainer_of(folder, ["epochs=60"])
    trainer.resume()
    assert trainer.position.epoch >= 1


def test_signals_wait_for_what_must_not_be_left_half_done():
    steps = []

    def work():
        with Interrupts() as interrupts:
            with interrupts.held():
                os.kill(os.getpid(), signal.SIGINT)
                steps.append("finished")
            steps.append("never")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["finished"]


def test_signals_that_mean_something_else_are_left_alone():
    """As ``nohup`` ignores SIGHUP, and as a program may have a handler of its own."""
    seen = []
    before = {
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, lambda *_: seen.append("mine")),
    }
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert interrupts.waiting == 0 and seen == ["mine"]
            with pytest.raises(Interrupted, match="stopped by SIGUSR2"):
                signal.raise_signal(signal.SIGUSR2)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_closed_terminal_takes_no_checkpoint_along(tmp_path):
    """SIGHUP, and nobody who reads what is printed: the run is saved all the same."""
    folder = tmp_path / "run"
    process = command("train", "digits", *LONG, "--out", folder)
    wait_for(folder / run_folder.METRICS, process)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=patiently(30)) == 128 + signal.SIGHUP
    trainer = trainer_of(folder, ["epochs=60"])
    trainer.resume()
    assert trainer.position.epoch >= 1


def test_a_finished_run_is_not_resumed(tmp_path, capsys):
    from dsr.__main__ import main

    trainer_of(tmp_path / "run").fit()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "all 3 epochs are done; dsr evaluate" in error and "and --set epochs=N with more than these goes on" in error
    for words in (["digits"], ["--partial"], ["--out", "x"], ["--from", str(tmp_path / "nothing")]):
        assert main(["train", *words, "--resume", str(tmp_path / "run")]) == 1
        name = words[0] if words[0].startswith("--") else "RECIPE"
        assert f"--resume: {name} cannot be given with it" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "nothing")]) == 1
    assert "nothing: expected a run folder, found no checkpoint.safetensors in it" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_a_stop_after_the_last_epoch_says_that_the_run_is_finished(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path / "run")
    finish = trainer._finish

    def interrupted(metrics):
        finish(metrics)
        if trainer.position.epoch == 3:
            raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(trainer, "_finish", interrupted)
    with pytest.raises(Interrupted, match=r"after the last of 3 epochs, and saved: the run in .* is finished"):
        trainer.fit()


def test_another_recipe_is_refused(tmp_path):
    trainer_of(tmp_path / "run").fit()
    with pytest.raises(checkpoint.CheckpointError, match="its recipe differs"):
        trainer_of(tmp_path / "run", ["seed=1"]).resume()


def test_a_line_of_metrics_that_was_cut_short_is_measured_again(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    trainer.fit()
    path = tmp_path / "run" / run_folder.METRICS
    path.write_text(path.read_text()[:-20])
    assert [m["epoch"] for m in run_folder.load_metrics(tmp_path / "run")] == [1, 2]


def test_the_table_has_what_the_lines_have(tmp_path):
    trainer_of(tmp_path / "run").fit()
    lines = run_folder.load_metrics(tmp_path / "run")
    with open(tmp_path / "run" / run_folder.TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 3
    for line, row in zip(lines, rows, strict=True):
        assert float(row["loss"]) == line["loss"]
        assert float(row["firing_rate.neuron2"]) == line["firing_rate"]["neuron2"]
        assert "test_accuracy" in row


def test_best_is_the_best(tmp_path):
    trainer_of(tmp_path / "run").fit()
    best = max(m["test_accuracy"] for m in run_folder.load_metrics(tmp_path / "run"))
    network, _, metadata = run_folder.load_run(tmp_path / "run", best=True)
    assert train.accuracy(network, data.load("digits").test) == best == metadata["metrics"]["test_accuracy"]
