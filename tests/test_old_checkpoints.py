"""What each version of the format wrote stays readable: it evaluates to the outputs of its day, and goes on.

The files were made once by ``python tests/data/make_old.py 1``, with the dsr that wrote version 1. A new version of the
format adds files of its own.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.files import checkpoint
from dsr.optim.optimizers import SGD, Adam
from dsr.train import recipe, run_folder

FILES = Path(__file__).parent / "data"
VERSIONS = [1]
KINDS = ["run", "checkpoint"]


@pytest.fixture(params=[(version, kind) for version in VERSIONS for kind in KINDS], ids=lambda p: f"v{p[0]}-{p[1]}")
def old(request, tmp_path):
    """A copy as a run folder: IF and SGD after three of four epochs, LIF and Adam and an average in the second of two;
    and what it evaluated to, and where it ended.
    """
    version, kind = request.param
    if kind == "run":
        shutil.copytree(FILES / f"run-v{version}", tmp_path / "old")
    else:
        (tmp_path / "old").mkdir()
        shutil.copy(FILES / f"checkpoint-v{version}.safetensors", tmp_path / "old" / run_folder.CHECKPOINT)
    with np.load(FILES / f"old-outputs-v{version}.npz") as file:
        expected = {name.removeprefix(f"{kind}."): file[name] for name in file.files if name.startswith(f"{kind}.")}
    return tmp_path / "old", expected


def assert_evaluates_as_then(folder, expected):
    network, *_ = run_folder.load_run(folder)
    images = data.load("digits").test.arrays[expected["numbers"]]
    # of samples whose spikes do not hang on the last digits
    np.testing.assert_allclose(network.forward(images), expected["outputs"], rtol=1e-5)


def assert_ends_as_then(folder, expected):
    """On other processors sums are rounded in other ways, up to 2e-4 apart; a lost momentum is 0.05 away."""
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    assert metadata["position"]["epoch"] == metadata["recipe"]["epochs"]
    ends = {name.removeprefix("end."): array for name, array in expected.items() if name.startswith("end.")}
    assert ends
    for name, end in ends.items():
        np.testing.assert_allclose(arrays[f"network.{name}"], end, atol=0.01, rtol=0, err_msg=name)


def test_every_version_that_was_written_is_tried():
    assert list(range(1, checkpoint.VERSION + 1)) == VERSIONS


def test_an_old_run_evaluates_and_goes_on(old, capsys):
    folder, expected = old
    assert_evaluates_as_then(folder, expected)
    assert main(["evaluate", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("test accuracy ")
    assert main(["train", "--resume", str(folder)]) == 0, capsys.readouterr().err
    assert_ends_as_then(folder, expected)
    epochs = [m["epoch"] for m in run_folder.load_metrics(folder)]
    assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))


def test_an_old_run_is_a_model(old):
    """It does not note its preprocessing: samples are given as the network takes them."""
    folder, expected = old
    model = dsr.load(folder)
    images = data.load("digits").test.arrays[expected["numbers"]]
    np.testing.assert_allclose(model.outputs(images), expected["outputs"], rtol=1e-5)
    assert model.predict(images).tolist() == [str(number) for number in expected["outputs"].argmax(axis=1)]


def test_keys_that_came_later_have_their_defaults(old):
    """A recipe may grow: a run from before reads as if its keys had been left out, and goes on as it would have."""
    folder, expected = old
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    defaults = recipe.Recipe(data="digits", model="digits").to_dict()
    kept = {key: value for key, value in metadata["recipe"].items() if value != defaults[key]}
    assert {"data", "model"}.isdisjoint(kept)
    metadata["recipe"] = {"data": "digits", "model": "digits", **kept}
    del metadata["ranks"]
    checkpoint.save(folder / run_folder.CHECKPOINT, arrays, metadata)
    _, chosen, _ = run_folder.load_run(folder)
    assert chosen.to_dict() == defaults | kept
    assert_evaluates_as_then(folder, expected)
    trainer = train.Trainer(chosen, data.load("digits"), folder, lambda _: None)
    trainer.resume()
    assert len(trainer.optimizer.state()) > 0
    assert isinstance(trainer.optimizer, Adam if chosen.optimizer == "adam" else SGD)
    trainer.fit()
    assert_ends_as_then(folder, expected)


def test_keys_that_are_gone_are_left_out_where_they_did_nothing(old):
    folder, _ = old
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    metadata["recipe"] |= {"timesteps_drawn": [], "prefix_loss": False}
    checkpoint.save(folder / run_folder.CHECKPOINT, arrays, metadata)
    run_folder.load_run(folder)
    metadata["recipe"]["prefix_loss"] = True
    checkpoint.save(folder / run_folder.CHECKPOINT, arrays, metadata)
    with pytest.raises(checkpoint.CheckpointError, match="unknown key 'prefix_loss'"):
        run_folder.load_run(folder)


def test_of_a_newer_dsr_the_message_says_so(old):
    """A key that this version does not know is an error, not left out: it would train another network."""
    folder, _ = old
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    metadata["recipe"]["spike_noise"] = 0.5
    checkpoint.save(folder / run_folder.CHECKPOINT, arrays, metadata)
    with pytest.raises(checkpoint.CheckpointError, match="unknown key 'spike_noise'"):
        run_folder.load_run(folder)
