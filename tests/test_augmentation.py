"""Erasing, colours, TrivialAugment, mixing: what becomes of pixels and labels; only a sample's numbers decide."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from test_run_data import pictures

import dsr
from dsr import data, train
from dsr.data import ArraySamples, DataSet, Preparation
from dsr.data.augment import erased
from dsr.data.mixing import Mixing
from dsr.data.samples import epoch_draws
from dsr.nn import losses
from dsr.train import recipe, run_folder
from dsr.train.interrupt import Interrupted
from dsr.train.metrics import ACCURACY


@pytest.fixture(scope="module")
def image():
    return pytest.importorskip("PIL.Image", reason="operations on pictures are Pillow's")


def test_erasing_leaves_a_rectangle_of_zeros_in_its_share_of_the_images():
    images, draws = np.ones((400, 3, 30, 40), np.float32), epoch_draws(400, 2, 0)
    out = erased(images, 0.25, draws)
    holes = out[:, 0] == 0
    assert images.all() and (out == out[:, :1]).all()
    assert 70 < holes.any(axis=(1, 2)).sum() < 130
    for hole in holes[holes.any(axis=(1, 2))]:
        rows, columns = hole.any(axis=1).sum(), hole.any(axis=0).sum()
        assert hole.sum() == rows * columns and 0.015 < hole.mean() < 0.36 and 0.25 < rows / columns < 3.7
    assert np.array_equal(erased(images[::7], 0.25, draws[::7]), out[::7])  # whatever else is in the batch
    assert erased(images, 1.0, draws)[:, 0].all(axis=(1, 2)).sum() == 0


def test_operations_of_trivial_augment(image):
    from dsr.data.colours import LEVELS, OPERATIONS, operation

    rng, last = np.random.default_rng(0), LEVELS - 1
    pixels = rng.integers(20, 230, (64, 64, 3), dtype=np.uint8)
    picture = image.fromarray(pixels)

    def of(name, level, negative=False):
        return np.asarray(operation(picture, name, level, negative))

    for name in OPERATIONS[:12]:
        assert np.array_equal(of(name, 0), pixels), name
    right, down = np.zeros_like(pixels), np.zeros_like(pixels)
    right[:, 32:], down[:32] = pixels[:, :32], pixels[32:]
    assert np.array_equal(of("TranslateX", last, negative=True), right)
    assert np.array_equal(of("TranslateY", last), down)
    assert np.array_equal(of("Rotate", 20)[1:, 1:], np.rot90(pixels)[1:, 1:])  # 135 * 20 / 30 = 90 degrees
    assert np.array_equal(of("Posterize", last), pixels & 0b11000000)
    assert np.array_equal(of("Solarize", last), 255 - pixels)
    assert abs(of("Brightness", last, negative=True) - pixels * 0.01).max() <= 1
    sheared = of("ShearX", last)
    assert np.array_equal(sheared[0], pixels[0]) and not sheared[-1, 2:].any()
    for name in OPERATIONS:
        assert of(name, 15).shape == pixels.shape
        assert np.array_equal(of(name, 15), pixels) == (name == "Identity"), name


def test_rand_augment(image):
    """Each picture goes through so many operations, of RandAugment's strengths: shifts by at most 29 of 64 pixels."""
    from dsr.data.colours import OPERATIONS, Colours, narrow, operation

    rng = np.random.default_rng(0)
    pixels = rng.integers(20, 230, (64, 32, 3), dtype=np.uint8)
    picture = image.fromarray(pixels)

    def of(name, level=14, negative=False):
        return operation(picture, name, level, negative, narrow(32, 64))

    down, right = np.zeros_like(pixels), np.zeros_like(pixels)
    down[13:], right[:, 6:] = pixels[:-13], pixels[:, :-6]  # 14 / 30 * 150 / 331 of 64 and of 32
    assert np.array_equal(of("TranslateY", negative=True), down)
    assert np.array_equal(of("TranslateX", negative=True), right)
    assert np.array_equal(of("Posterize", 30), pixels & 0b11110000)
    assert abs(np.asarray(of("Brightness", 30, True)) - pixels * 0.1).max() <= 1
    assert np.array_equal(of("Rotate", 30), picture.rotate(30)) and np.array_equal(of("ShearX", 0), pixels)
    outcomes = {np.asarray(of(name, 14, negative)).tobytes() for name in OPERATIONS for negative in (False, True)}
    assert len(outcomes) == 2 * 10 + 3  # of ten, there are two directions; AutoContrast finds nothing to do
    draws = epoch_draws(300, 1, 0)
    found = [np.asarray(Colours(rand_augment=1, rand_magnitude=14)(picture, one)).tobytes() for one in draws]
    assert set(found) == outcomes
    unchanged = found.count(pixels.tobytes()) / 300
    twice = [np.asarray(Colours(rand_augment=2, rand_magnitude=14)(picture, one)).tobytes() for one in draws]
    assert len(set(twice)) > 150 and 0 < twice.count(pixels.tobytes()) / 300 < unchanged < 0.25


def test_jitter_of_colours(image):
    from dsr.data.colours import Colours, _turned

    red = image.fromarray(np.tile(np.array([255, 0, 0], np.uint8), (4, 4, 1)))
    assert np.asarray(_turned(red, 85))[0, 0].tolist() == [2, 255, 0] or np.asarray(_turned(red, 85))[0, 0, 1] == 255
    assert np.array_equal(_turned(red, -171), _turned(red, 85)) and np.array_equal(_turned(red, 0), red)
    grey = image.fromarray(np.full((4, 4, 3), 100, np.uint8))
    levels = [float(np.asarray(Colours(0.2)(grey, draws)).mean()) for draws in epoch_draws(300, 1, 0)]
    assert 79 <= min(levels) < 85 and 115 < max(levels) <= 121  # contrast and saturation change nothing of a grey
    assert abs(np.mean(levels) - 100) < 2
    draws = epoch_draws(300, 1, 0)[7]
    assert np.array_equal(Colours(0.2, 0.1)(red, draws), Colours(0.2, 0.1)(red, draws))
    assert np.array_equal(Colours()(red, draws), red)


@pytest.mark.parametrize("frames", [False, True])
def test_mixup_and_its_labels(frames):
    rng, draws = np.random.default_rng(0), epoch_draws(200, 4, 0)
    x, labels = rng.random((200, 2, 3, 3), np.float32), rng.integers(0, 5, 200)
    batch = np.stack([x, -x]) if frames else x
    out, targets = Mixing(5, 3, mixup=0.4)(batch, labels, draws)
    assert out.shape == batch.shape and out.flags.c_contiguous and targets.dtype == np.float32
    mixed = out[0] if frames else out
    assert not frames or np.array_equal(out[1], -mixed)
    other = np.roll(x, -1, axis=0)
    kept = ((mixed - other) * (x - other)).sum(axis=(1, 2, 3)) / ((x - other) ** 2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(mixed, kept[:, None, None, None] * (x - other) + other, atol=1e-5)
    expected = kept[:, None] * np.eye(5)[labels] + (1 - kept[:, None]) * np.eye(5)[np.roll(labels, -1)]
    np.testing.assert_allclose(targets, expected, atol=1e-4)
    assert abs(kept.mean() - 0.5) < 0.1 and ((kept < 0.1) | (kept > 0.9)).mean() > 0.3  # Beta(0.4, 0.4): 0.46
    again = Mixing(5, 3, mixup=0.4)(batch[..., 50:53, :, :, :], labels[50:53], draws[50:53])[0]
    assert np.array_equal(again[..., :2, :, :, :], out[..., 50:52, :, :, :])


def test_cutmix_replaces_a_box_whose_area_is_in_the_labels():
    draws = epoch_draws(300, 4, 0)
    numbers = np.arange(300, dtype=np.float32)
    x = np.broadcast_to(numbers[:, None, None, None], (300, 3, 12, 10)).copy()
    out, targets = Mixing(300, 3, cutmix=1.0)(x, np.arange(300), draws)
    kept = (out[:, 0] == numbers[:, None, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(targets[np.arange(300), np.arange(300)], kept, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    for number in range(300):
        box = out[number, 0] == (number + 1) % 300
        assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()
        assert (box | (out[number, 0] == number)).all()
    assert 0.6 < kept.mean() < 0.8 and kept.min() < 0.2  # less than half is replaced, since boxes are cut off
    both = Mixing(300, 3, mixup=1.0, cutmix=1.0)(x, np.arange(300), draws)[0][:, 0]
    boxes = (both == both.round()).all(axis=(1, 2)).mean()
    assert 0.4 < boxes < 0.6


def test_cross_entropy_takes_shares_of_the_classes():
    rng = np.random.default_rng(1)
    rates, a, b = rng.normal(size=(6, 4)), rng.integers(0, 4, 6), rng.integers(0, 4, 6)
    shares = 0.3 * np.eye(4)[a] + 0.7 * np.eye(4)[b]
    for options in ({}, {"label_smoothing": 0.1}):
        (first, one), (second, two) = (dsr.cross_entropy(rates, labels, **options) for labels in (a, b))
        loss, grad = dsr.cross_entropy(rates, shares, **options)
        assert loss == pytest.approx(0.3 * first + 0.7 * second, abs=1e-12)
        np.testing.assert_allclose(grad, 0.3 * one + 0.7 * two, atol=1e-7)
    weights = np.array([1.0, 2.0, 0.5, 0.0])
    loss, grad = dsr.cross_entropy(rates, shares, class_weights=weights)
    log = rates - np.log(np.exp(rates).sum(axis=1, keepdims=True))
    assert loss == pytest.approx(-(weights * shares * log).sum() / 6)  # as PyTorch: by the number of samples
    step = np.zeros((6, 4))
    step[2, 1] = 1e-5
    slope = dsr.cross_entropy(rates + step, shares, class_weights=weights)[0] - loss
    assert grad[2, 1] == pytest.approx(slope / 1e-5, rel=1e-3)
    assert ACCURACY.total(shares[::-1], shares) == ACCURACY.total(shares[::-1], b)  # by the class that prevails
    pixels, of_pixels = np.moveaxis(rates.reshape(2, 3, 1, 4), -1, 1), np.moveaxis(shares.reshape(2, 3, 1, 4), -1, 1)
    assert dsr.cross_entropy(pixels, of_pixels)[0] == pytest.approx(dsr.cross_entropy(rates, shares)[0])
    for wrong in (shares * 2, shares - 0.5, np.where(shares > 0.5, np.nan, shares)):
        with pytest.raises(ValueError, match=r"cross_entropy: argument 'labels': expected shares"):
            dsr.cross_entropy(rates, wrong)
    with pytest.raises(ValueError, match="'ignore_label': expected None with shares"):
        dsr.cross_entropy(rates, shares, ignore_label=1)


NARROW = {"rand_augment": 2, "rand_magnitude": 12}
KEYS = {"random_erasing": 0.5, "colour_jitter": 0.3, "hue_jitter": 0.1, "trivial_augment": True, "flip": True}
MIXED = {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def coloured(image, tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("colours"), "abc", train_count=8)


def trainer(path, folder, workers=0, callbacks=(), **changes):
    base = {"data": "folder", "model": "digits", "width": 4, "epochs": 2, "batch_size": 8, "timesteps": 2}
    chosen = recipe.from_dict({**base, **KEYS, **MIXED, **changes})
    samples = run_folder.load_data(chosen, path, workers)
    return train.Trainer(chosen, samples, folder, str, callbacks=callbacks)


class Stop(train.Callback):
    def after_step(self, trainer, loss):
        if trainer.position.step == 4:
            signal.raise_signal(signal.SIGINT)


def test_workers_and_resuming_give_the_same_bits(coloured, tmp_path):
    whole = trainer(coloured, tmp_path / "whole")
    metrics = whole.fit()
    assert 0 < metrics["train_accuracy"] < 1 and metrics["test_accuracy"] in {k / 30 for k in range(31)}
    with pytest.raises(Interrupted):
        trainer(coloured, tmp_path / "parts", 2, [Stop()]).fit()
    resumed = trainer(coloured, tmp_path / "parts", 1)
    resumed.resume()
    assert resumed.position.batch == 1
    resumed.fit()
    for (name, one), (_, two) in zip(whole.network.arrays(), resumed.network.arrays(), strict=True):
        assert np.array_equal(one, two), name
    plain = trainer(coloured, None)
    for key in [*KEYS, "mixup", "cutmix"]:
        other = trainer(coloured, None, **{key: type((KEYS | MIXED)[key])(0)})
        changed = [next(one.batches.images(0, one.batches.of_epoch(0)))[0] for one in (plain, other)]
        assert not np.array_equal(*changed), key
    narrow = [trainer(coloured, None, workers, trivial_augment=False, **NARROW) for workers in (0, 1)]
    first = [next(one.batches.images(0, one.batches.of_epoch(0)))[0] for one in (*narrow, other)]
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def test_labels_that_cannot_be_mixed_are_refused(coloured):
    def run(task="classification", features=(3, 4, 4), loss=None, **settings):
        targets = {
            "classification": [0, 1, 0, 1],
            "regression": np.zeros((4, 2)),
            "multilabel": np.eye(2)[[0, 1, 0, 1]],
        }
        samples = ArraySamples(np.zeros((4, *features), np.float32), targets[task], task=task)
        body = dsr.Sequential(dsr.Flatten(), dsr.Linear(int(np.prod(features)), 2))
        kinds = DataSet("own", "ab", features, samples, samples)
        return train.Trainer(dsr.Network(body, timesteps=1), kinds, None, str, loss=loss, batch_size=2, **settings)

    for task in ("regression", "multilabel"):
        with pytest.raises(ValueError, match=f"key 'mixup': expected 0 with task = {task}: only classes are mixed"):
            run(task, mixup=0.2)
    with pytest.raises(ValueError, match="key 'cutmix': expected 0 with the loss mse: of the losses of dsr, only"):
        run(cutmix=1.0, loss=losses.mse)
    with pytest.raises(
        ValueError, match=r"key 'cutmix': expected 0, since the samples, of shape \(5,\), are no images"
    ):
        run(features=(5,), cutmix=1.0)
    with pytest.raises(ValueError, match="key 'mixup': expected 0 with ignore_label"):
        trainer(coloured, None, loss_options={"ignore_label": 1})
    run(features=(5,), mixup=1.0, epochs=1).fit()
    seen = []

    def own(rates, targets):
        seen.append(targets)
        return dsr.cross_entropy(rates, targets)

    run(mixup=1.0, loss=own, epochs=1).fit()
    assert seen[0].shape == (2, 2) and seen[0].dtype == np.float32
    with pytest.raises(ValueError, match="load_folder: expected rand_augment 0 with trivial_augment, got both"):
        trainer(coloured, None, **NARROW)
    with pytest.raises(ValueError, match=r"'rand_magnitude': expected an integer in \[0, 30\], got 31"):
        Preparation(rand_magnitude=31)
    with pytest.raises(ValueError, match=r"'hue_jitter': expected a number in \[0, 0\.5\], got 0\.6"):
        Preparation(hue_jitter=0.6)
    assert "trivial_augment" not in data.reads("cifar10") and "random_erasing" in data.reads("arrays")
