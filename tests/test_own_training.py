"""The Trainer with objects of one's own: networks, losses, optimisers, schedules, callbacks, tasks; and going on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet
from dsr.files import checkpoint
from dsr.nn import losses
from dsr.optim.schedule import cosine
from dsr.train import recipe, run_folder
from dsr.train.build import make_loss


def network(seed=0, width=16):
    layers = [dsr.Flatten(), dsr.Linear(64, width), dsr.BatchNorm(width), dsr.IF(1.0), dsr.Linear(width, 10)]
    return dsr.Network(dsr.Sequential(*layers), timesteps=3, seed=seed)


def digits(count=300):
    found = data.load("digits")
    part = ArraySamples(found.train.arrays[:count], found.train.labels[:count])
    return DataSet("digits", found.classes, found.features, part, found.test, found.preprocessing)


def squared_error(rates, targets):
    difference = rates - targets
    return float(np.square(difference).mean()), (2 * difference / difference.size).astype(np.float32)


def logistic(rates, targets):
    share = 1 / (1 + np.exp(-rates.astype(np.float64)))
    value = -np.where(targets, np.log(share), np.log(1 - share)).mean()
    return float(value), ((share - targets) / share.size).astype(np.float32)


def tasks():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    values = np.stack([x[:, 0] + x[:, 1], x[:, 2]], axis=1)
    two = ("first", "second")

    def of(targets, task):
        parts = (ArraySamples(x[part], targets[part], task=task) for part in (slice(150), slice(150, 200)))
        return DataSet(task, two, (5,), *parts)

    return {
        "regression": (of(values, "regression"), squared_error, "mse"),
        "multilabel": (of(values > 0, "multilabel"), logistic, "label_accuracy"),
        "other": (of(values, "other"), squared_error, "loss"),
    }


def vectors(seed=0):
    layers = [dsr.Linear(5, 32), dsr.BatchNorm(32), dsr.IF(1.0), dsr.Linear(32, 2)]
    return dsr.Network(dsr.Sequential(*layers), timesteps=8, seed=seed)


# ----------------------------------------------------------------------------------------------------------- objects


def test_a_network_is_trained_without_recipe_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, lines = network(), []
    trainer = dsr.Trainer(net, digits(1400), say=lines.append, epochs=4, batch_size=50)
    metrics = trainer.fit()
    assert trainer.network is net and metrics["test_accuracy"] > 0.9
    assert train.accuracy(net, data.load("digits").test) == metrics["test_accuracy"]
    assert len(lines) == 4 and list(tmp_path.iterdir()) == []
    assert trainer.fit() == metrics  # all epochs are done
    with pytest.raises(ValueError, match=r"Trainer\.resume: expected a trainer with a folder"):
        trainer.resume()


def test_objects_do_what_the_recipe_would():
    chosen = recipe.load("digits", ["epochs=2", "width=4", "optimizer=adam", "learning_rate=0.01", "warmup_steps=0"])
    by_recipe = train.Trainer(chosen, digits(), None, str)
    plain = recipe.load("digits", ["epochs=2", "width=4"])
    by_objects = train.Trainer(
        plain,
        digits(),
        None,
        str,
        build=lambda make_neuron, features, classes: dsr.models.digits(make_neuron, features, classes, width=4),
        loss=dsr.cross_entropy,
        optimizer=lambda parameters: dsr.Adam(parameters, 0.01, weight_decay=plain.weight_decay),
        schedule=lambda epoch, step: cosine(epoch, base=0.01, epochs=2),
    )
    for trainer in (by_recipe, by_objects):
        trainer.fit()
    for name, array in by_recipe.network.state().items():
        np.testing.assert_array_equal(array, by_objects.network.state()[name], err_msg=name)


def test_an_optimiser_as_an_object_is_of_this_network():
    net = network()
    optimizer = dsr.SGD(net.parameters(), 0.03)
    trainer = dsr.Trainer(net, digits(), say=str, optimizer=optimizer, epochs=1)
    assert trainer.optimizer is optimizer and trainer.recipe.learning_rate == 0.03
    with pytest.raises(ValueError, match="argument 'optimizer': expected one of this network's parameters"):
        dsr.Trainer(network(), digits(), say=str, optimizer=optimizer)


def test_a_schedule_sees_exact_positions(tmp_path):
    seen = []

    def schedule(epoch, step):
        seen.append((epoch, step))
        return 0.01 * (step + 1)

    trainer = dsr.Trainer(network(), digits(), say=str, schedule=schedule, epochs=2, batch_size=100)
    metrics = trainer.fit()
    assert (Fraction(4, 3), 4) in seen and (0, 0) in seen
    assert metrics["learning_rate"] == pytest.approx(0.06)


class Watching(train.Callback):
    def __init__(self):
        self.steps, self.epochs = [], []

    def after_step(self, trainer, loss):
        self.steps.append((trainer.position.step, loss))

    def after_epoch(self, trainer, metrics):
        self.epochs.append(metrics)


def test_callbacks_are_called_after_steps_and_epochs():
    watching = Watching()
    trainer = dsr.Trainer(network(), digits(), say=str, callbacks=[watching], epochs=2, batch_size=100)
    trainer.fit()
    assert [step for step, _ in watching.steps] == [1, 2, 3, 4, 5, 6]
    assert watching.epochs == trainer.metrics
    assert np.mean([loss for _, loss in watching.steps[3:]]) == pytest.approx(trainer.metrics[1]["loss"])


def test_stop_early(tmp_path):
    lines = []
    stop = train.StopEarly(patience=2, least_change=1.0)  # no accuracy is better by 1
    folder = tmp_path / "run"
    trainer = dsr.Trainer(network(), digits(), folder, lines.append, callbacks=[stop], epochs=9)
    assert trainer.fit()["epoch"] == 3
    assert lines[-1].startswith("stopped after epoch 3 of 9: test_accuracy has not become better than")
    assert lines[-1].endswith("for 2 epochs")
    again = dsr.Trainer(network(), digits(), folder, lines.append, callbacks=[stop], epochs=9)
    again.resume()  # what it counts is in the metrics, so a resumed run stops after its next epoch
    assert again.fit()["epoch"] == 4
    with pytest.raises(ValueError, match=r"StopEarly: argument 'metric': expected one of epoch, loss, .*, got 'x'"):
        dsr.Trainer(network(), digits(), say=str, callbacks=[train.StopEarly(1, "x")], epochs=1).fit()


@pytest.mark.parametrize("metric", ["loss", None])
def test_stop_early_knows_which_value_is_better(metric):
    """The loss falls and the accuracy rises: both become better, so nothing stops."""
    stop = train.StopEarly(patience=1, metric=metric)
    trainer = dsr.Trainer(network(), digits(1400), say=str, callbacks=[stop], epochs=3, batch_size=50)
    assert trainer.fit()["epoch"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "digits"}, "unexpected argument 'model': the network and the samples have their own"),
        ({"timesteps": 3}, "unexpected argument 'timesteps'"),
        ({"crop_padding": 3}, "unexpected argument 'crop_padding': the network and the samples have their own"),
        ({"label_smoothing": 0.1, "loss": dsr.cross_entropy}, "argument 'label_smoothing': 'loss' is given as an obj"),
        ({"momentum": 0.1, "optimizer": dsr.Muon}, "unexpected argument 'momentum': 'optimizer' is given as an object"),
        (
            {"learning_rate": 1, "schedule": lambda *_: 0.1},
            "'learning_rate': 'schedule' is given as an object",
        ),
        ({"epoch": 3}, "recipe: unknown key 'epoch'; did you mean 'epochs'"),
        ({"epochs": 0}, "recipe: key 'epochs': expected an integer"),
        ({"build": lambda *_: None}, "argument 'build': expected none with a network"),
    ],
)
def test_settings_that_do_not_go_with_a_network(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        dsr.Trainer(network(), digits(), None, str, **arguments)


def test_what_is_neither_recipe_nor_network():
    with pytest.raises(TypeError, match="argument 'run': expected a Recipe or a Network, got str"):
        dsr.Trainer("digits", digits())
    with pytest.raises(TypeError, match="unexpected argument 'epochs': a recipe has its settings in it"):
        dsr.Trainer(recipe.load("digits"), digits(), epochs=3)


# ------------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("task", tasks())
def test_each_task_has_its_metric(task, tmp_path, capsys):
    samples, loss, metric = tasks()[task]
    settings = {"epochs": 15, "batch_size": 25, "learning_rate": 0.02, "weight_decay": 0.0}
    trainer = dsr.Trainer(vectors(), samples, tmp_path / "run", str, loss=loss, **settings)
    metrics = trainer.fit()
    first = trainer.metrics[0]
    outputs = trainer.network.forward(samples.test.batch(np.arange(50)))
    targets = samples.test.labels
    expected = {
        "mse": np.square(outputs - targets).mean(),
        "label_accuracy": ((outputs > 0) == targets).mean(),
        "loss": squared_error(outputs, targets)[0] if task == "other" else 0,
    }[metric]
    assert metrics[f"test_{metric}"] == pytest.approx(expected, rel=1e-5)
    better = metrics[f"test_{metric}"] - first[f"test_{metric}"]
    assert better > 0.1 if metric == "label_accuracy" else metrics[f"test_{metric}"] < first[f"test_{metric}"] / 2
    assert metrics.keys() >= {f"train_{metric}", "loss", "best_chosen_on"}
    best = [m[f"test_{metric}"] for m in trainer.metrics]
    _, metadata = checkpoint.load(tmp_path / "run" / run_folder.BEST)
    assert metadata["metrics"][f"test_{metric}"] == (max(best) if metric == "label_accuracy" else min(best))
    model = dsr.load(tmp_path / "run")
    x = samples.test.batch(np.arange(3))
    # the sums of dense layers depend on the number of samples in their last bits
    np.testing.assert_allclose(model.predict(x), outputs[:3] > 0 if task == "multilabel" else outputs[:3], rtol=1e-6)


def test_a_recipe_is_for_one_task():
    samples, _, _ = tasks()["regression"]
    with pytest.raises(ValueError, match="key 'task': expected 'regression', which the samples of regression are for"):
        train.Trainer(recipe.load("digits"), samples, None, str)
    with pytest.raises(ValueError, match=r"key 'loss': expected .* with task = other, got 'auto'"):
        dsr.Trainer(vectors(), tasks()["other"][0], None, str)


@pytest.mark.parametrize(("task", "name"), [("regression", "mse"), ("multilabel", "binary_cross_entropy")])
def test_the_loss_of_a_task_is_that_of_its_name(task, name):
    if not hasattr(losses, name):
        pytest.skip(f"dsr.nn.losses has no {name} yet")
    chosen = recipe.from_dict({"data": "arrays", "model": "mlp", "task": task})
    assert make_loss(chosen) is getattr(losses, name)
    samples, _, metric = tasks()[task]
    metrics = dsr.Trainer(vectors(), samples, None, str, epochs=1, learning_rate=0.02).fit()
    assert np.isfinite(metrics[f"test_{metric}"])


# ---------------------------------------------------------------------------------------------- runs of own networks


def test_a_run_of_a_network_stands_alone(tmp_path, capsys):
    """It was orphaned: all commands said that its model is unknown."""
    net = network()
    folder = tmp_path / "run"
    dsr.Trainer(net, digits(), folder, str, epochs=1).fit()
    for words in (
        ["evaluate", folder],
        ["summary", folder],
        ["inspect", folder, "--samples", "20", "--timesteps", "2"],
    ):
        assert main(list(map(str, words))) == 0, capsys.readouterr().err
    loaded, *_ = run_folder.load_run(folder)
    x = data.load("digits").test.arrays[:5]
    np.testing.assert_array_equal(loaded.forward(x), net.forward(x))
    loaded, *_ = run_folder.load_run(folder, timesteps=7)
    assert loaded.timesteps == 7


def test_a_run_of_a_network_is_resumed_from_the_command_line(tmp_path, capsys):
    samples = data.load("digits")
    settings = {"batch_size": 200, "ema_decay": 0.5}
    dsr.Trainer(network(), samples, tmp_path / "whole", str, epochs=2, **settings).fit()
    (tmp_path / "parts").mkdir()
    dsr.Trainer(network(), samples, tmp_path / "parts", str, epochs=2, **settings)._epoch()
    assert main(["train", "--resume", str(tmp_path / "parts")]) == 0, capsys.readouterr().err
    whole, parts = (checkpoint.load(tmp_path / name / run_folder.CHECKPOINT)[0] for name in ("whole", "parts"))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, parts[name], err_msg=name)


def test_own_objects_are_asked_for_at_a_resume(tmp_path, capsys):
    folder = tmp_path / "run"
    dsr.Trainer(network(), digits(), folder, str, loss=dsr.cross_entropy, epochs=1).fit()
    assert main(["train", "--resume", str(folder), "--set", "epochs=2"]) == 1
    error = capsys.readouterr().err
    assert "it had 300 training samples, now there are 1,437" in error
    with pytest.raises(checkpoint.CheckpointError, match="an object as loss, cross_entropy: resume it from Python"):
        dsr.Trainer(network(), digits(), folder, str, epochs=2).resume()
    trainer = dsr.Trainer(network(), digits(), folder, str, epochs=2, loss=dsr.cross_entropy)
    trainer.resume()
    assert trainer.fit()["epoch"] == 2
    own = dsr.Trainer(network(), digits(), folder, str, epochs=3, loss=dsr.cross_entropy, schedule=lambda *_: 0.1)
    with pytest.raises(checkpoint.CheckpointError, match="it was trained without an object as schedule"):
        own.resume()


def test_data_that_were_an_object_are_asked_for(tmp_path, capsys):
    samples, loss, _ = tasks()["regression"]
    dsr.Trainer(vectors(), samples, tmp_path / "run", str, loss=loss, epochs=1, learning_rate=0.01).fit()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "the run had its data, 'regression', as an object in Python" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- going on


SMALL = ["--set", "width=4", "--set", "warmup_steps=0"]


def run_of(folder, *changes):
    words = [word for change in changes for word in ("--set", change)]
    assert main(["train", "digits", *SMALL, *words, "--out", str(folder)]) == 0
    return folder


def test_a_finished_run_is_extended(tmp_path, capsys):
    folder = run_of(tmp_path / "run", "epochs=2")
    assert main(["train", "--resume", str(folder), "--set", "epochs=4"]) == 0
    output = capsys.readouterr().out
    words = "from here on the schedule cosine over 4 epochs, which goes on at 0.05; the last epoch ended with 0.05"
    assert f"epochs: 4 instead of 2; {words}" in output
    metrics = run_folder.load_metrics(folder)
    rates = [0.1, 0.05, 0.05, 0.1 * (1 + np.cos(np.pi * 3 / 4)) / 2]
    np.testing.assert_allclose([m["learning_rate"] for m in metrics], rates)
    _, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    assert metadata["extended"] == [{"after_epoch": 2, "from": 2, "to": 4}] and metadata["recipe"]["epochs"] == 4
    for change, words in (
        ("epochs=4", "all 4 epochs are done"),
        ("epochs=3", "recipe: key 'epochs': expected more than the 4 that are done, got 3"),
        ("width=8", "--resume: only --set epochs=N can be given with it, got --set width=8"),
        ("epochs=x", "recipe: key 'epochs': expected an integer"),
    ):
        assert main(["train", "--resume", str(folder), "--set", change]) == 1
        assert words in capsys.readouterr().err
    assert main(["train", "--resume", str(folder), "--set", "epochs=5"]) == 0
    _, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    assert [entry["to"] for entry in metadata["extended"]] == [4, 5]


def test_a_warm_start_from_a_spiking_run(tmp_path, capsys):
    first = run_of(tmp_path / "first", "epochs=6")
    reached = run_folder.load_metrics(first)[-1]["test_accuracy"]
    again = tmp_path / "again"
    words = ["--set", "learning_rate=0", "--set", "epochs=1", "--from", str(first), "--out", str(again)]
    assert main(["train", "digits", *SMALL, *words]) == 0
    assert f"--from: {first / run_folder.BEST}: all 19 arrays taken\n" in capsys.readouterr().out
    assert run_folder.load_metrics(again)[-1]["test_accuracy"] > reached - 0.05  # running statistics move on
    before, after = (checkpoint.load(folder / run_folder.BEST)[0] for folder in (first, again))
    for name in ("conv1.weight", "neuron2.v_threshold"):
        np.testing.assert_array_equal(before[f"network.{name}"], after[f"network.{name}"])


def test_a_new_head_for_other_classes(tmp_path):
    found = digits()
    chosen = recipe.load("digits", ["epochs=1", "width=4"])
    train.Trainer(chosen, found, tmp_path / "ten", str).fit()
    even = found.train.labels % 2
    parts = ArraySamples(found.train.arrays, even)
    two = DataSet("parity", ("even", "odd"), found.features, parts, parts)
    lines = []
    trainer = train.Trainer(chosen, two, None, lines.append)
    with pytest.raises(ValueError, match=r"of another shape: bn3.bias .*; strict=False \(--partial"):
        trainer.start_from(tmp_path / "ten")
    fresh = trainer.network.state()
    trainer.start_from(tmp_path / "ten", strict=False)
    assert "only the data have even, odd; only the run has 0, 1, 2, 3, 4 and 5 more" in lines[0]
    head = ("linear.weight", "linear.bias", "bn3.weight", "bn3.bias", "bn3.running_mean", "bn3.running_var")
    assert lines[-1].split("initial values kept: ")[1] == ", ".join(head)
    assert "13 of 19 arrays taken: " in lines[-1]
    source = run_folder.load_run(tmp_path / "ten", best=True)[0].state()
    for name, array in trainer.network.state().items():
        np.testing.assert_array_equal(array, fresh[name] if name in head else source[name], err_msg=name)
    trainer.fit()
    with pytest.raises(ValueError, match=r"none of its arrays .* fits the network"):
        dsr.Trainer(vectors(), tasks()["other"][0], None, str, loss=squared_error).start_from(
            tmp_path / "ten", strict=False
        )


def own_build(make_neuron, features, classes, width=8):
    return dsr.Sequential(
        dsr.Flatten(), dsr.Linear(64, width), dsr.BatchNorm(width), make_neuron(), dsr.Linear(width, classes)
    )


def test_hybrid_training_of_an_own_build(tmp_path):
    """`build` was not used for the ReLU network, which was the recipe's model."""
    relu = recipe.load("digits", ["neuron=relu", "timesteps=1", "epochs=4"])
    ann = train.Trainer(relu, digits(1400), tmp_path / "ann", str, build=own_build)
    assert ann.fit()["test_accuracy"] > 0.9
    lines = []
    spiking = recipe.load("digits", ["timesteps=20", "epochs=1", "learning_rate=0"])
    trainer = train.Trainer(spiking, digits(1400), None, lines.append, build=own_build)
    trainer.start_from(tmp_path / "ann")
    assert lines[-1].endswith("all 8 arrays taken; thresholds by the activations of the ReLU network")
    assert train.accuracy(trainer.network, data.load("digits").test) > 0.85
    given = dsr.Trainer(network(width=8), digits(), None, str)
    with pytest.raises(ValueError, match="given as an object has no ReLU twin: give a recipe and build="):
        given.start_from(tmp_path / "ann")


def test_a_relu_network_tells_no_thresholds_of_samples_with_time(tmp_path):
    """The words were those of a forward pass: "argument 'data': expected T = 1 steps first"."""

    def build(make_neuron, features, classes):
        return dsr.Sequential(dsr.Linear(*features, 8), make_neuron(), dsr.Linear(8, classes))

    def trainer(neuron, steps):
        x = np.random.default_rng(2).normal(size=(40, steps, 5)).astype(np.float32)
        np.savez(tmp_path / "my.npz", x=x, y=np.arange(40) % 4)
        samples = data.load("arrays", tmp_path / "my.npz", data.Preparation(axes="TF", timesteps=steps))
        settings = [f"timesteps={steps}", f"neuron={neuron}", "epochs=1", "batch_size=8", "axes=TF"]
        return train.Trainer(recipe.load("arrays", settings), samples, tmp_path / neuron, str, build=build)

    trainer("relu", 1).fit()
    with pytest.raises(ValueError, match=r"which sees a recording as one frame: .* the 3 frames of these samples"):
        trainer("if", 3).start_from(tmp_path / "relu")


# ----------------------------------------------------------------------------------------------------- honest numbers


def test_a_best_that_was_chosen_on_the_test_samples_is_said(tmp_path, capsys):
    """Wherever it is printed or loaded, and in the metrics; not where samples were held out."""
    words = "this epoch was chosen on the test samples, so the figure is too high an estimate"
    for name, changes, expected in (("test", [], True), ("held", ["validation=200"], False)):
        folder = tmp_path / name
        chosen = recipe.load("digits", ["epochs=1", "width=4", *changes])
        train.Trainer(chosen, data.load("digits"), folder, str).fit()
        chosen_on = "test" if expected else "validation"
        assert run_folder.load_metrics(folder)[0]["best_chosen_on"] == chosen_on
        assert chosen_on in (folder / run_folder.TABLE).read_text().splitlines()[1].split(",")
        capsys.readouterr()
        assert main(["evaluate", str(folder)]) == 0
        assert words not in capsys.readouterr().out
        assert main(["evaluate", str(folder), "--best"]) == 0
        assert (words in capsys.readouterr().out) is expected
        assert main(["inspect", str(folder), "--best", "--samples", "9", "--timesteps", "2", "--json"]) == 0
        assert (words in capsys.readouterr().err) is expected
        assert (words in repr(dsr.load(folder, best=True))) is expected
        assert words not in repr(dsr.load(folder))


def test_training_says_which_epoch_its_accuracy_is_of(tmp_path, capsys):
    run_of(tmp_path / "run", "epochs=3", "learning_rate=0.5")
    output = capsys.readouterr().out
    reached = [m["test_accuracy"] for m in run_folder.load_metrics(tmp_path / "run")]
    assert f"test accuracy {100 * reached[-1]:.2f} % after the last epoch, 3\n" in output
    assert (f"best epoch: {100 * max(reached):.2f} %; this epoch was chosen on the test" in output) == (
        max(reached) > reached[-1]
    )


@pytest.mark.parametrize("name", ["digits", "cifar10-fast", "cifar10-medium", "cifar10-best", "cifar100-best"])
def test_our_recipes_say_which_figure_to_report(name):
    assert "The figure to report is the last epoch's" in recipe.comment(name)
