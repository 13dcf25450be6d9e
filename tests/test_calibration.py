"""Layers that are set by training samples: which samples they see, how many at a time, and that nobody else asks."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import on_ranks
from test_run_data import pictures

import dsr
from dsr import data, train
from dsr.data import ArraySamples, DataSet, Preparation
from dsr.nn.currents import Current
from dsr.train import calibration, recipe
from dsr.train.distributed import ALONE


class Counted(ArraySamples):
    """Counts how many samples are asked for, and how many at a time."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.asked = []

    def batch(self, numbers, draws=None):
        self.asked.append(len(numbers))
        return super().batch(numbers, draws)


def sorted_by_class(count=600, side=32):
    """Three classes in a row: grey pictures that hardly vary, then coloured ones."""
    rng = np.random.default_rng(0)
    labels = np.sort(np.arange(count) % 3)
    images = rng.normal(size=(count, 3, side, side)).astype(np.float32)
    images[labels == 0] = images[labels == 0].mean(axis=1, keepdims=True) * np.float32(0.05)
    images += np.roll(images, 1, axis=3)  # neighbours are correlated
    samples = Counted(images, labels)
    return DataSet("pictures", ("grey", "b", "c"), (3, side, side), samples, samples)


FAST = ["model=cifar_fast", "width=12", "batch_size=20", "timesteps=2", "epochs=1"]


def calibrated(folder, samples, changes=FAST, group=ALONE):
    """The trainer of a run that is ready for its first step, and what it asked for."""
    trainer = train.Trainer(recipe.load("digits", changes), samples, folder, str, group=group)
    trainer._prepare()
    return trainer


def filters(trainer):
    return trainer.network.body.layers["group1"].layers["conv1"].filters


def test_where_no_layer_wants_samples_none_are_asked_for(tmp_path):
    samples = sorted_by_class(side=8)
    calibrated(tmp_path / "run", samples, FAST[1:])
    assert samples.train.asked == []


def test_few_samples_are_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLES", 130)
    samples = sorted_by_class()
    calibrated(tmp_path / "run", samples)
    assert samples.train.asked == [50, 50, 30]


def test_samples_of_all_classes_are_drawn(tmp_path, monkeypatch):
    """Outputs of the whitening have a variance of 1 over all classes, though the first samples are all of one."""
    monkeypatch.setattr(calibration, "SAMPLES", 200)
    samples = sorted_by_class()
    trainer = calibrated(tmp_path / "run", samples)
    whiten = dsr.Conv2d(3, 12, 2, bias=False)

    def variances(kernel):
        whiten.weight.value = kernel
        out = whiten.forward(Current.from_static(samples.train.arrays, 1), dsr.Run()).values()
        return np.square(out.reshape(12, -1).astype(np.float64)).mean(axis=1)

    found = variances(filters(trainer))
    assert found.min() > 0.8 and found.max() < 1.2
    layer = trainer.network.body.layers["group1"].layers["conv1"]
    layer.calibrate([samples.train.arrays[:200]])  # the first ones, as they come
    assert variances(layer.filters).max() > 100


def test_they_are_drawn_by_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLES", 100)
    samples = sorted_by_class()
    first, again = (filters(calibrated(tmp_path / "run", samples)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (filters(calibrated(tmp_path / "run", samples, [*FAST, "seed=1"])) != first).any()


def test_every_rank_has_those_of_rank_0(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SAMPLES", 100)
    alone = filters(calibrated(tmp_path / "alone", sorted_by_class()))

    def work(group):
        samples = sorted_by_class()
        return filters(calibrated(tmp_path / "ranks", samples, group=group)), samples.train.asked

    found = on_ranks(3, work)
    for kernel, asked in found:
        np.testing.assert_array_equal(kernel, alone)
        assert asked == ([50, 50] if kernel is found[0][0] else [])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_decode_the_same(tmp_path, workers):
    pictures(tmp_path / "set", "abc", side=32)
    loaded = [data.load("folder", tmp_path / "set", Preparation(workers=number)) for number in (0, workers)]
    one, other = (filters(calibrated(tmp_path / "run", samples)) for samples in loaded)
    np.testing.assert_array_equal(one, other)
    assert (one != np.eye(12).reshape(one.shape)).any()


def test_no_samples_to_calibrate_with_are_named():
    layer = dsr.models.cifar_fast(lambda: dsr.IF(1.0), (3, 32, 32), 3, width=12).layers["group1"].layers["conv1"]
    with pytest.raises(ValueError, match="calibrate: expected at least one image, got none"):
        layer.calibrate([])


@pytest.mark.parametrize("value", [0, 0.1, 7])
def test_images_of_one_colour_need_a_positive_eps(value):
    images = np.full((5, 3, 6, 6), value, np.float32)
    layer = dsr.nn.fast_layers.WhitenedConv2d(3, 8, 3, eps=0)
    with pytest.raises(ValueError, match="calibrate: patches of the images differ in fewer directions"):
        layer.calibrate([images])
    np.testing.assert_array_equal(layer.filters, np.eye(12).reshape(12, 3, 2, 2))
    layer = dsr.nn.fast_layers.WhitenedConv2d(3, 8, 3)
    layer.calibrate([images])
    assert np.isfinite(layer.filters).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_images_to_calibrate_on_are_finite(bad, rng):
    images = rng.normal(size=(5, 3, 6, 6)).astype(np.float32)
    images[3, 1, 2, 2] = bad
    with pytest.raises(ValueError, match="calibrate: expected finite images"):
        dsr.nn.fast_layers.WhitenedConv2d(3, 8, 3).calibrate([images])


def test_frames_of_samples_with_time_are_images(rng):
    frames = rng.normal(size=(4, 6, 2, 6, 5)).astype(np.float32)
    layer, other = (dsr.nn.fast_layers.WhitenedConv2d(2, 8, 3) for _ in range(2))
    layer.calibrate([frames])
    other.calibrate([frames.reshape(24, 2, 6, 5)])
    np.testing.assert_array_equal(layer.filters, other.filters)
    assert (layer.filters != np.eye(8, dtype=np.float32).reshape(8, 2, 2, 2)).any()


@pytest.mark.parametrize("shape", [(2, 6, 6), (5, 3, 6, 6), (5, 2, 6, 1), (1, 4, 5, 2, 6, 6)])
def test_images_of_another_shape_are_named(shape):
    layer = dsr.nn.fast_layers.WhitenedConv2d(2, 8, 3)
    with pytest.raises(ValueError, match=r"calibrate: expected images of shape \(N, 2, H, W\) or .* got \("):
        layer.calibrate([np.zeros(shape, np.float32)])
