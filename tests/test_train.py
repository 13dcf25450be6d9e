"""The main job: `dsr train digits` and what it leaves."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dsr import data, train
from dsr.__main__ import main
from dsr.train import plots, recipe, run_folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the whole recipe."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    lines = []
    trainer = train.Trainer(recipe.load("digits"), data.load("digits"), folder, lines.append)
    trainer.fit()
    return folder, trainer, lines


def test_digits_are_the_real_ones():
    digits = data.load("digits")
    assert digits.train.arrays.shape == (1437, 1, 8, 8)
    assert digits.test.arrays.shape == (360, 1, 8, 8)
    counts = np.bincount(np.concatenate([digits.train.labels, digits.test.labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI documents them
    assert abs(digits.train.arrays.mean()) < 1e-6
    assert abs(digits.train.arrays.std() - 1) < 1e-5


def test_digits_reach_97_percent(finished):
    folder, _, lines = finished
    metrics = [json.loads(line) for line in (folder / run_folder.METRICS).read_text().splitlines()]
    assert len(metrics) == len(lines) == recipe.load("digits").epochs
    assert metrics[-1]["test_accuracy"] >= 0.97
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 5
    assert set(metrics[-1]["firing_rate"]) == set(metrics[-1]["v_threshold"]) == {"neuron1", "neuron2", "neuron3"}
    assert all(0 < rate < 1 for rate in metrics[-1]["firing_rate"].values())
    # thresholds are trained: they left their common start
    assert all(abs(v - 1.0) > 0.01 for v in metrics[-1]["v_threshold"].values())


def test_evaluate_reads_the_run_back(finished, capsys):
    folder, trainer, _ = finished
    expected = train.accuracy(trainer.network, trainer.data.test)
    assert main(["evaluate", str(folder)]) == 0
    assert capsys.readouterr().out == f"test accuracy {100 * expected:.2f} %\n"


def test_pictures(finished):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    folder, trainer, _ = finished
    for picture in plots.run_pictures(folder, trainer.network, trainer.data.test):
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_same_seed_gives_the_same_run(tmp_path):
    short = recipe.load("digits", ["epochs=1", "width=8"])
    states = []
    for name in ("a", "b"):
        trainer = train.Trainer(short, data.load("digits"), tmp_path / name, lambda _: None)
        trainer.fit()
        states.append(trainer.network.state())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_lif_learns_too(tmp_path):
    changes = ["epochs=4", "neuron=lif", "v_threshold=0.6", "alpha=0.5", "v_threshold_lower_bound=0.001"]
    trainer = train.Trainer(recipe.load("digits", changes), data.load("digits"), tmp_path / "lif", lambda _: None)
    assert trainer.fit()["test_accuracy"] > 0.85  # chance is 0.1


def test_command_line_works_without_matplotlib_and_tqdm(tmp_path):
    blocked = (
        "import sys\n"
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in ('matplotlib', 'tqdm') else real(name, *a)\n"
        "sys.modules['matplotlib'] = sys.modules['tqdm'] = None\n"
        "from dsr.__main__ import main\n"
        "sys.exit(main(['train', 'digits', '--set', 'epochs=1', '--set', 'width=8', '--out', sys.argv[1]]))\n"
    )
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-P", "-c", blocked, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no plots: matplotlib is not installed" in done.stdout
    assert (folder / run_folder.CHECKPOINT).exists()


def test_mistakes_end_with_one_line(tmp_path, capsys):
    assert main(["train", "digits", "--set", "epoch=1"]) == 1
    assert "did you mean 'epochs'" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "checkpoint.safetensors" in capsys.readouterr().err


def test_a_run_is_not_overwritten(finished, capsys):
    folder, _, _ = finished
    assert main(["train", "digits", "--out", str(folder)]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    digits = data.load("digits")
    trainer = train.Trainer(recipe.load("digits"), digits, tmp_path / "run", lambda _: None)
    for _, parameter in trainer.network.parameters():
        parameter.value[...] = np.nan
    with pytest.raises(FloatingPointError, match="epoch 1, step 0"):
        trainer.fit()
