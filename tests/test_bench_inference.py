"""``dsr bench inference``: what is measured, at which rate, and that the twin in onnxruntime is the network's twin."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_early_exit import run  # noqa: F401
from test_program import case

import dsr
from dsr.__main__ import main
from dsr.bench import inference, onnx_twin, rates, step
from dsr.deploy.lowering import lower
from dsr.train import run_folder


def test_rows_and_table(monkeypatch):
    threads = dsr.get_num_threads()
    monkeypatch.setattr(onnx_twin, "AVAILABLE", False)
    subject = inference.untrained("digits", "lif", 0.1)
    rows = inference.measure(subject, [1, 3], [1, 2], [1], repeats=1)
    assert dsr.get_num_threads() == threads
    assert {(row["timesteps"], row["batch"]) for row in rows} == {(1, 1), (1, 2), (3, 1), (3, 2)}
    exits = {"dsr, early exit", "dsr, int8, early exit"}
    assert {row["what"] for row in rows} == {"dsr, compiled", "dsr, int8", "dsr, not compiled", *exits}
    assert all(row["ms_per_sample"] > 0 and 0.02 < row["rate"] < 0.3 for row in rows)
    left = [row["mean_timesteps"] for row in rows if row["what"] in exits and row["timesteps"] == 3]
    assert len(left) == 4 and all(1 <= steps <= 3 for steps in left)
    assert [row["what"] for row in rows[:4]] == [
        "dsr, compiled",
        "dsr, early exit",
        "dsr, int8",
        "dsr, int8, early exit",
    ]
    text = inference.table(rows)
    assert len(text.splitlines()) == 2 + len(rows) + 1 and text.endswith("(ReLU, in float32 and int8)")


def test_commands(capsys, monkeypatch):
    monkeypatch.setattr(onnx_twin, "AVAILABLE", False)
    words = "bench inference --model digits --timesteps 2 --batch 1 --threads 1 --repeats 1 --rate 0.2 --json"
    assert main(words.split()) == 0
    assert {row["timesteps"] for row in json.loads(capsys.readouterr().out)} == {2}
    with pytest.raises(SystemExit):
        main(["bench", "inference", "--rate", "1.5"])
    assert "expected a number between 0 and 1, got '1.5'" in capsys.readouterr().err


def test_a_trained_run(run, capsys, monkeypatch):  # noqa: F811
    """Its network at another T, at the rates that it has on its own images."""
    monkeypatch.setattr(onnx_twin, "AVAILABLE", False)
    words = f"bench inference --run {run} --timesteps 3 --batch 1 --threads 1 --repeats 1 --json"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)
    network = run_folder.load_run(run, timesteps=3)[0]
    images = dsr.data.load("digits").test.batch(np.linspace(0, 359, 32).astype(np.int64))
    assert {row["rate"] for row in rows} == {rates.mean_rate(network, images)}
    assert {row["model"] for row in rows} == {str(run)} and {row["timesteps"] for row in rows} == {3}
    assert main(["bench", "inference", "--data", "x"]) == 1
    assert "argument --data: expected --run with it" in capsys.readouterr().err


def test_steps_at_a_rate():
    plain = step.measure("cifar_fast", "if", 1, 16, 1)["mean_firing_rate"]
    assert abs(step.measure("cifar_fast", "if", 1, 16, 1, rate=0.1)["mean_firing_rate"] - 0.1) < abs(plain - 0.1)


@pytest.mark.parametrize("name", ["digits", "cifar_fast", "preact_resnet18", "resnet18", "vgg11"])
def test_the_twin_gives_what_the_network_of_relu_gives(name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network, data = case(name, "relu")
    expected = network.forward(data)
    program = lower(network, data.shape[1:])
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(onnx_twin.onnx_session(program, 1)(data), expected, rtol=1e-3, atol=tolerance)
    rounded = onnx_twin.onnx_session(program, 1, data)(data)
    assert np.abs(rounded - expected).max() < 0.5 * np.abs(expected).max()
