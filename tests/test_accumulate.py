"""Batches in parts: the bits are those of as many ranks, and nothing is left half done."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from ranks import on_ranks

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.files import checkpoint
from dsr.train import recipe, run_folder
from dsr.train import trainer as loops
from dsr.train.interrupt import Interrupted

SHORT = ["epochs=2", "width=8", "validation=1177", "ema_decay=0.9", "clip_norm=1.0"]  # 260 samples


def body(make_neuron, features, classes):
    """With batch normalisation, dropout, and thresholds that are buffers."""
    return dsr.Sequential(
        dsr.Conv2d(1, 8, 3, padding=1, bias=False),
        dsr.BatchNorm(8),
        dsr.IF(1.0, train_threshold=False),
        dsr.Dropout(0.2),
        dsr.Conv2d(8, 8, 3, padding=1, bias=False),
        dsr.BatchNorm(8),
        make_neuron(),
        dsr.AvgPool2d(8),
        dsr.Flatten(),
        dsr.Linear(8, classes),
    )


def trainer_of(folder, *changes, **options):
    chosen = recipe.load("digits", [*SHORT, *changes])
    return train.Trainer(chosen, data.load("digits"), folder, lambda _: None, build=body, **options)


def saved(folder):
    return checkpoint.load(folder / run_folder.CHECKPOINT)[0]


def assert_equal_states(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "run"
    trainer = trainer_of(folder, "accumulate=2")
    trainer.fit()
    return folder, trainer


def test_two_parts_are_two_ranks(two_parts, tmp_path):
    """Batches of 64, 64, 64, 64 and 4: parts of equal and of the least size. Checkpoints and metrics, bit for bit."""
    folder, trainer = two_parts
    ranks = on_ranks(2, lambda g: [t := trainer_of(tmp_path / "ranks", group=g), t.fit()][0])
    assert_equal_states(saved(folder), saved(tmp_path / "ranks"))
    for found, expected in zip(trainer.metrics, ranks[0].metrics, strict=True):
        for name in ("loss", "train_accuracy", "validation_accuracy", "gradient_norm", "learning_rate"):
            assert found[name] == expected[name], name
    alone = trainer_of(None)
    alone.fit()
    difference = alone.network.state()["4.weight"] - trainer.network.state()["4.weight"]
    assert np.abs(difference).max() > 1e-4  # the statistics of parts are others


def test_parts_of_unequal_sizes_are_ranks():
    """A batch of 50 in three parts, of 17, 17 and 16; the sums are formed in their order."""
    changes = ["batch_size=50", "epochs=1", "accumulate=3"]
    one = trainer_of(None, *changes)
    one.fit()
    three = on_ranks(3, lambda g: [t := trainer_of(None, *changes[:2], group=g), t.fit()][0])
    assert_equal_states(one.network.state(), three[0].network.state())
    assert_equal_states(one.average.average.state(), three[0].average.average.state())


def test_parts_on_ranks_have_samples_and_masks_of_their_own(monkeypatch):
    """2 ranks with 2 parts each see what 4 ranks see; only the order of the sums differs."""
    seen = {}
    real = train.compute_gradients

    def watched(network, images, *rest):
        streams = tuple(network.body.layers["3"].stream)
        seen[streams, images.tobytes()] = True
        return real(network, images, *rest)

    monkeypatch.setattr(loops, "compute_gradients", watched)
    four = on_ranks(4, lambda g: [t := trainer_of(None, "epochs=1", group=g), t.fit()][0])
    expected, seen = seen, {}
    two = on_ranks(2, lambda g: [t := trainer_of(None, "epochs=1", "accumulate=2", group=g), t.fit()][0])
    assert seen.keys() == expected.keys() and len(seen) == 16
    for name, array in four[0].network.state().items():
        if array.dtype == np.float32:
            np.testing.assert_allclose(two[0].network.state()[name], array, atol=0.05, err_msg=name)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(two_parts, tmp_path, resumes):
    """Where the signal comes between the parts of a batch: by another trainer, or by the same one."""
    folder, _ = two_parts
    calls = []

    def stopped(*arguments, real=train.compute_gradients, **options):
        calls.append(1)
        if len(calls) == 14:  # the second part of the seventh step
            raise Interrupted(2)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "compute_gradients", stopped)
        trainer = trainer_of(tmp_path / "run", "accumulate=2")
        with pytest.raises(Interrupted, match="stopped in epoch 2 after 1 batches"):
            trainer.fit()
    if resumes:
        trainer = trainer_of(tmp_path / "run", "accumulate=2")
        trainer.resume()
    trainer.fit()
    assert_equal_states(saved(tmp_path / "run"), saved(folder))


def test_a_step_of_ones_own(rng):
    """`train_step` in parts is the step of as many ranks, and of time-first data; one that fails changes nothing."""
    images, labels = rng.normal(size=(3, 7, 2, 6, 6)).astype(np.float32), np.arange(7) % 4

    def build():
        layers = dsr.Conv2d(2, 4, 3, padding=1), dsr.BatchNorm(4), dsr.IF(1.0), dsr.Dropout(0.5), dsr.Flatten()
        network = dsr.Network(dsr.Sequential(*layers, dsr.Linear(144, 4)), timesteps=3, seed=1)
        return network, dsr.SGD(network.parameters(), 0.1, momentum=0.9)

    network, optimizer = build()
    found = [train.train_step(network, optimizer, images, labels, 0.1, accumulate=3) for _ in range(2)]

    def work(group):
        mine, its = build()
        parts = train.distributed.align(group, mine, False)
        losses = []
        for _ in range(2):
            own = slice(group.rank, None, 3)
            share = len(labels[own]) / 7
            smoothed = partial(dsr.cross_entropy, label_smoothing=0.1)
            parts.begin(0)
            loss, right = train.compute_gradients(mine, images[:, own], labels[own], smoothed, share=share)
            parts.add(its.parameters, share, (share * loss, right))
            losses.append(parts.combine(group, its.parameters, share).sum(axis=0))
            its.step()
        return mine.state(), losses

    state, losses = on_ranks(3, work)[0]
    assert_equal_states(network.state(), state)
    assert found == [pytest.approx(tuple(numbers), rel=1e-12) for numbers in losses]
    images[:, 5] = np.float32(1e30)  # in the third part
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError):
        train.train_step(network, optimizer, images, labels, accumulate=3)
    assert_equal_states(network.state(), state)
    with pytest.raises(ValueError, match="'accumulate': expected at least 2 samples for each of 4 parts, got a batch"):
        train.train_step(network, optimizer, images, labels, accumulate=4)


def test_settings_that_do_not_fit_are_refused(capsys, tmp_path):
    for words, expected in (
        (["accumulate=4", "sync_batch_norm=true"], "'accumulate': expected 1 with sync_batch_norm = true, got 4"),
        (["accumulate=40"], "'batch_size': expected at least 80 samples in a batch, 2 for each of 40 parts"),
        (["accumulate=0"], "'accumulate': expected an integer in"),
    ):
        changes = [word for change in words for word in ("--set", change)]
        assert main(["train", "digits", *changes, "--out", str(tmp_path / "run")]) == 1
        assert expected in capsys.readouterr().err
