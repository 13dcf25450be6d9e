"""Options of the trainer: averages, clipping, validation, hybrid training, and what stops it."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.data.samples import epoch_draws
from dsr.optim.average import WeightAverage
from dsr.optim.optimizers import clip_gradients, gradient_norm
from dsr.train import recipe, run_folder
from dsr.train.build import build_network
from dsr.train.views import mean_output


def trainer_of(folder, changes=()):
    return train.Trainer(recipe.load("digits", ["epochs=1", "width=8", *changes]), data.load("digits"), folder, str)


def test_average_follows_the_weights():
    first, second = (build_network(recipe.load("digits", [f"seed={seed}"]), (1, 8, 8), 10) for seed in (0, 1))
    average = WeightAverage(first, second, 0.75)
    name = "conv1.weight"
    start = first.state()[name]
    np.testing.assert_array_equal(second.state()[name], start)
    for value in dict(first.arrays()).values():
        value += 1
    average.update()
    np.testing.assert_allclose(second.state()[name], start + 0.25, rtol=1e-6)


def test_norm_and_clipping():
    parameters = {name: dsr.Parameter(np.zeros(shape)) for name, shape in (("a", (2, 3)), ("b", ()), ("c", (4,)))}
    parameters["a"].grad = np.full((2, 3), 2, np.float32)
    parameters["b"].grad = np.array(5, np.float32)
    assert gradient_norm(parameters) == 7.0
    clip_gradients(parameters, 7.0, 8.0)
    assert gradient_norm(parameters) == 7.0
    clip_gradients(parameters, 7.0, 3.5)
    np.testing.assert_array_equal(parameters["a"].grad, np.ones((2, 3)))
    parameters["a"].grad[1, 2] = np.float32(1e30)  # its square is beyond float32
    assert gradient_norm(parameters) == pytest.approx(1e30)
    parameters["b"].grad = np.array(np.nan, np.float32)
    with pytest.raises(FloatingPointError, match="gradient of b is not finite"):
        gradient_norm(parameters)


def test_validation_samples_are_not_trained_on(tmp_path):
    trainer = trainer_of(tmp_path / "run", ["validation=100"])
    assert (len(trainer.training), len(trainer.held_out)) == (1337, 100)
    assert not set(trainer.training.numbers) & set(trainer.held_out.numbers)
    metrics = trainer.fit()
    assert "validation_accuracy" in metrics
    assert "test_accuracy" not in metrics
    with pytest.raises(ValueError, match="'validation': expected less than 1437"):
        trainer_of(tmp_path / "run", ["validation=1437"])


def test_draws_belong_to_samples():
    draws = epoch_draws(50, seed=1, epoch=3)
    np.testing.assert_array_equal(draws, epoch_draws(50, seed=1, epoch=3))
    assert not (draws == epoch_draws(50, seed=1, epoch=4)).any()
    even, odd = (epoch_draws(50, 1, epoch, alternate_flip=True)[:, 0] < 0.5 for epoch in (0, 1))
    np.testing.assert_array_equal(even, ~odd)
    assert 10 < even.sum() < 40


def test_values_that_are_not_finite_name_the_layer(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    dict(trainer.network.parameters())["conv2.weight"].value[3] = np.inf
    with pytest.raises(FloatingPointError, match="epoch 1, step 0: BatchNorm bn2: the variance of channel 3"):
        trainer.fit()


def test_a_loss_that_is_not_finite_names_the_layer():
    network = dsr.Network(dsr.Sequential(flatten=dsr.Flatten(), head=dsr.Linear(4, 3)), timesteps=2)
    dict(network.parameters())["head.bias"].value[1] = np.inf
    with pytest.raises(FloatingPointError, match=r"the loss is .*; layer head is the first"):
        train.compute_gradients(network, np.ones((2, 1, 2, 2), np.float32), np.array([0, 1]))


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_hybrid_training(tmp_path, capsys, neuron):
    """A ReLU network, its weights and thresholds in a spiking one, and an epoch of fine tuning."""
    ann, snn = tmp_path / "ann", tmp_path / "snn"
    assert (
        main(
            ["train", "digits", "--set", "neuron=relu", "--set", "timesteps=1", "--set", "epochs=5", "--out", str(ann)]
        )
        == 0
    )
    words = ["--set", f"neuron={neuron}", "--set", "learning_rate=0.01", "--set", "epochs=1", "--set", "timesteps=8"]
    assert main(["train", "digits", *words, "--set", "start_quantile=0.99", "--from", str(ann), "--out", str(snn)]) == 0
    accuracies = [run_folder.load_metrics(folder)[-1]["test_accuracy"] for folder in (ann, snn)]
    assert accuracies[0] > 0.95
    assert accuracies[1] > accuracies[0] - 0.03  # from random weights one epoch with this rate reaches much less
    capsys.readouterr()
    assert main(["train", "digits", "--from", str(tmp_path / "nothing"), "--out", str(tmp_path / "x")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_views_of_a_test_image():
    network = build_network(recipe.load("digits"), (1, 8, 8), 10)
    images = data.load("digits").test.arrays[:6]
    one, mirrored = network.forward(images), network.forward(images[..., ::-1])
    np.testing.assert_array_equal(mean_output(network, images), one)
    np.testing.assert_allclose(mean_output(network, images, "mirror"), (one + mirrored) / 2, rtol=1e-6)
    moved = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    parts = [(0.5, images), (0.25, moved[:, :, :-2, :-2]), (0.25, moved[:, :, 2:, 2:])]
    expected = sum(w / 2 * (network.forward(x) + network.forward(x[..., ::-1])) for w, x in parts)
    np.testing.assert_allclose(mean_output(network, images, "mirror-shift"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda p: dsr.SGD(p, 0.5, weight_decay=0.1), lambda p: dsr.Adam(p, 0.5, weight_decay=0.1)]
)
def test_rate_of_a_parameter(make):
    """A rate of 4 is four times the learning rate and a quarter of the weight decay."""
    plain, fast = dsr.Parameter(np.ones(3)), dsr.Parameter(np.ones(3))
    plain.grad = fast.grad = np.array([1, 2, -1], np.float32)
    fast.rate = 4.0
    optimizer, other = make([("a", fast)]), make([("a", plain)])
    other.learning_rate, other.weight_decay = 2.0, 0.025
    for _ in range(3):
        optimizer.step()
        other.step()
    np.testing.assert_array_equal(fast.value, plain.value)


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="events need TensorBoard"
    )
    trainer_of(tmp_path / "run", ["epochs=2"]).fit()
    events = accumulator.EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    lines = run_folder.load_metrics(tmp_path / "run")
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(m["epoch"], np.float32(m["loss"])) for m in lines]
    assert "firing_rate/neuron2" in events.Tags()["scalars"]


def test_without_tensorboard_there_are_no_events(tmp_path, monkeypatch):
    monkeypatch.setattr("dsr.train.tensorboard.find_spec", lambda name: None)
    trainer_of(tmp_path / "run").fit()
    assert not list((tmp_path / "run").glob("events*"))


def test_another_number_of_steps(tmp_path, capsys):
    trainer = trainer_of(tmp_path / "run", ["epochs=2"])
    trainer.fit()
    assert main(["evaluate", str(tmp_path / "run"), "--timesteps", "20"]) == 0
    at_20 = float(capsys.readouterr().out.split()[2])
    network, _, _ = run_folder.load_run(tmp_path / "run", timesteps=20)
    assert network.timesteps == 20
    assert at_20 == pytest.approx(100 * train.accuracy(network, data.load("digits").test), abs=0.01)


def test_views_on_the_command_line(tmp_path, capsys):
    trainer_of(tmp_path / "run", ["epochs=2"]).fit()
    network, _, _ = run_folder.load_run(tmp_path / "run")
    expected = {views: train.accuracy(network, data.load("digits").test, views=views) for views in ("one", "mirror")}
    assert expected["mirror"] < expected["one"]  # digits are not symmetric
    for views, reached in expected.items():
        assert main(["evaluate", str(tmp_path / "run"), "--views", views]) == 0
        assert capsys.readouterr().out == f"test accuracy {100 * reached:.2f} %\n"


def test_summary_and_inspect_on_the_command_line(tmp_path, capsys):
    trainer_of(tmp_path / "run").fit()
    assert main(["summary", str(tmp_path / "run")]) == 0
    assert main(["summary", "cifar10-if", "--features", "3", "32", "32"]) == 0
    assert "11,176,945" in capsys.readouterr().out
    assert (
        main(
            [
                "inspect",
                str(tmp_path / "run"),
                "--samples",
                "20",
                "--timesteps",
                "2",
                "--json",
                "--out",
                str(tmp_path / "look"),
            ]
        )
        == 0
    )
    assert (tmp_path / "look" / "report.json").exists()
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "run"), "--samples", "0"])
    assert "argument --samples: expected an integer >= 1, got '0'" in capsys.readouterr().err
