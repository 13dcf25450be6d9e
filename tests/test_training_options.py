"""Options of training: statistics estimated anew, gradients of every step, a teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.data import ArraySamples, Preparation
from dsr.nn.losses import soft_cross_entropy
from dsr.train import recipe

DIGITS = data.load("digits", None, Preparation())


def few(count=200):
    """The first digits, to train and to measure with."""
    numbers = np.arange(count)
    samples = ArraySamples(DIGITS.train.batch(numbers), DIGITS.train.labels[numbers])
    return replace(DIGITS, train=samples, test=samples)


def trainer_of(*changes, samples=None, folder=None):
    small = ["width=8", "epochs=3", "batch_size=40"]
    return train.Trainer(recipe.load("digits", [*small, *changes]), samples or few(), folder, str)


# ---- new statistics --------------------------------------------------------------------------------------------------


def test_statistics_estimated_anew_are_means_over_batches(rng):
    network = dsr.Network(dsr.Sequential(dsr.BatchNorm(3), dsr.IF(1.0), dsr.Linear(3, 2)), 4)
    batches = rng.normal(2, 3, (5, 20, 3)).astype(np.float32)
    before = network.body.layers["2"].weight.value.copy()
    train.estimate_statistics(network, batches)
    norm = network.body.layers["0"]
    np.testing.assert_allclose(norm.running_mean, batches.mean(axis=(0, 1)), rtol=1e-5)
    # each step has the batch's values: 80 of them, less one
    np.testing.assert_allclose(norm.running_var, batches.var(axis=1).mean(axis=0) * 80 / 79, rtol=1e-5)
    assert norm.momentum == 0.1
    np.testing.assert_array_equal(network.body.layers["2"].weight.value, before)
    with pytest.raises(ValueError, match="estimate_statistics: argument 'batches': expected at least one, got none"):
        train.estimate_statistics(network, [])


def test_new_statistics_of_another_number_of_steps(tmp_path, capsys):
    """A run of T = 5 at T = 1, with its statistics and with its own, of training samples in batches of the run's."""
    run = str(tmp_path / "run")
    main(["train", "digits", "--out", run, "--set", "epochs=1", "--set", "width=8", "--set", "seed=7"])
    network = dsr.load(run, timesteps=1).network
    expected = [train.accuracy(network, DIGITS.test)]
    drawn = np.random.default_rng([7, 4]).permutation(len(DIGITS.train))
    batches = [drawn[start : start + 64] for start in range(0, len(drawn) - 63, 64)]
    train.estimate_statistics(network, map(DIGITS.train.batch, batches))
    expected.append(train.accuracy(network, DIGITS.test))
    assert expected[0] != expected[1]
    for more, reached in zip(([], ["--new-statistics"]), expected, strict=True):
        capsys.readouterr()
        main(["evaluate", run, "--timesteps", "1", *more])
        assert f"test accuracy {100 * reached:.2f} %" in capsys.readouterr().out


# ---- gradients of every step ---------------------------------------------------------------------------------------


def test_gradients_of_every_step_are_those_of_rates_where_they_say_the_same(rng):
    network = dsr.Network(dsr.Sequential(dsr.Linear(6, 3), dsr.LIF(0.1, delta_t=0.3)), 4)
    images, grad = rng.normal(1, 1, (5, 6)), rng.normal(size=(5, 3)).astype(np.float32)
    network.forward(images, training=True)
    network.backward(grad)
    expected = network.body.layers["0"].weight.grad.copy()
    network.forward(images, training=True)
    _, weights = network.output_steps()
    network.backward(weights / 4 * grad)
    np.testing.assert_allclose(network.body.layers["0"].weight.grad, expected, rtol=1e-5)
    with pytest.raises(RuntimeError, match=r"Network\.output_steps: expected a forward pass with training=True"):
        network.output_steps()


# ---- teacher -------------------------------------------------------------------------------------------------------


def test_soft_cross_entropy_has_the_slope_of_its_value(rng):
    for shape in ((4, 3), (2, 3, 2, 2)):
        rates, targets = rng.normal(size=(2, *shape))
        value, grad = soft_cross_entropy(rates, targets)
        direction = rng.normal(size=shape)
        above, below = (soft_cross_entropy(rates + sign * 1e-5 * direction, targets)[0] for sign in (1, -1))
        assert (grad * direction).sum() == pytest.approx((above - below) / 2e-5, rel=1e-4)
        assert value >= soft_cross_entropy(targets, targets)[0]
        np.testing.assert_allclose(soft_cross_entropy(targets, targets)[1], 0, atol=1e-7)
    # one-hot outputs far apart are labels
    hard = 1e3 * np.eye(3)[[0, 2]]
    labels = dsr.cross_entropy(rates[:2, :, 0, 0], [0, 2])
    np.testing.assert_allclose(soft_cross_entropy(rates[:2, :, 0, 0], hard)[0], labels[0])


def test_a_pupil_of_a_teacher_without_labels(tmp_path, monkeypatch):
    """All labels are wrong, and the share of the teacher is 1: what is learnt is its outputs."""
    samples = few(240)
    trainer_of("epochs=6", samples=samples, folder=tmp_path / "teacher").fit()
    wrong = ArraySamples(samples.train.batch(np.arange(240)), (samples.train.labels + 1) % 10)
    monkeypatch.chdir(tmp_path)
    pupil = trainer_of("teacher=teacher", "teacher_share=1", "epochs=5", samples=replace(samples, train=wrong))
    assert pupil.recipe.teacher == str(tmp_path / "teacher")
    before = {name: array.copy() for name, array in pupil.teacher.network.arrays()}
    assert pupil.fit()["test_accuracy"] > 0.6
    for name, array in pupil.teacher.network.arrays():
        np.testing.assert_array_equal(array, before[name])


def test_wrong_teachers(tmp_path):
    trainer_of("epochs=1", folder=tmp_path / "teacher").fit()
    name = f"teacher={tmp_path / 'teacher'}"
    with pytest.raises(ValueError, match=r"recipe: key 'teacher': expected one of the same classes, got .* of others"):
        trainer_of(name, samples=replace(few(), classes=tuple("abcdefghij")))
    other = replace(few(), preprocessing=replace(DIGITS.preprocessing, mean=(0.5,)))
    with pytest.raises(ValueError, match="recipe: key 'teacher': expected one of samples prepared alike"):
        trainer_of(name, samples=other)
    with pytest.raises(FileNotFoundError):
        trainer_of(f"teacher={tmp_path / 'nobody'}")


def test_new_statistics_leave_nothing_else_changed():
    """No state for a backward pass, which would keep a batch's currents, and the same stream of dropout."""
    body = dsr.Sequential(
        dsr.Conv2d(3, 8, 3), dsr.BatchNorm(8), dsr.IF(1.0), dsr.Dropout(0.5), dsr.Flatten(), dsr.Linear(8 * 36, 5)
    )
    network = dsr.Network(body, timesteps=3)
    before = network.state()
    train.estimate_statistics(network, [np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)])
    changed = {name for name, array in network.state().items() if not np.array_equal(array, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var"}
    with pytest.raises(RuntimeError, match=r"Network.backward: expected a forward pass"):
        network.backward(np.ones((6, 5), np.float32))
