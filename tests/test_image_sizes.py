"""Image sizes that change from epoch to epoch; the network and the recipes that are trained so."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from test_run_data import pictures

import dsr
from dsr import models, train
from dsr.__main__ import main
from dsr.data import ArraySamples, DataSet
from dsr.data.images import Decoder
from dsr.data.samples import epoch_draws
from dsr.files.checkpoint import CheckpointError
from dsr.inspect.summary import summary
from dsr.train import memory, recipe, run_folder
from dsr.train.interrupt import Interrupted

SMALL = {
    "data": "folder",
    "model": "image_deep",
    "width": 4,
    "timesteps": 2,
    "v_threshold": 1.0,
    "image_size": 40,
    "random_resized_crop": True,
    "crop_area": 0.5,
    "flip": True,
    "epochs": 4,
    "batch_size": 8,
}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("colours"), "abc", side=48, train_count=8)


class Stop(train.Callback):
    def after_step(self, trainer, loss):
        if trainer.position.step == 7:
            signal.raise_signal(signal.SIGINT)


def trainer(path, folder, workers=0, callbacks=(), **changes):
    chosen = recipe.from_dict({**SMALL, **changes})
    return train.Trainer(chosen, run_folder.load_data(chosen, path, workers), folder, str, callbacks=callbacks)


def images_of(run, epoch):
    return run.batches.images(epoch, run.batches.of_epoch(epoch))


def sides_of(run, epochs):
    """Sides of the training images by epoch."""
    found = []
    for epoch in range(epochs):
        found.append(next(images_of(run, epoch))[0].shape[-2:])
    return [height for height, width in found if height == width]


def test_each_epoch_has_its_size(coloured):
    run = trainer(coloured, None, image_sizes={"3": 33, 1: 48})
    assert run.recipe.image_sizes == {1: 48, 3: 33}
    assert sides_of(run, 5) == [40, 48, 48, 33, 33]
    assert run.held_out.batch(np.arange(2)).shape == (2, 3, 40, 40)
    assert sides_of(trainer(coloured, None), 2) == [40, 40]
    held_out = trainer(coloured, None, image_sizes={0: 32}, validation=6)
    assert sides_of(held_out, 1) == [32] and len(held_out.training) == 18
    whole = trainer(coloured, None, image_sizes={0: 40})
    for (one, _), (two, _) in zip(*(images_of(run, 0) for run in (whole, trainer(coloured, None))), strict=True):
        np.testing.assert_array_equal(one, two)  # at the size of measurement, nothing else changes
    as_stored = trainer(coloured, None, image_size=0, random_resized_crop=False, image_sizes={1: 36})
    assert sides_of(as_stored, 2) == [48, 36]


def test_a_resumed_run_has_the_same_bits(coloured, tmp_path):
    """It is stopped in the middle of the first epoch of another size, and goes on with a worker."""
    sizes = {"image_sizes": {0: 32, 2: 48}, "epochs": 3}
    whole = trainer(coloured, tmp_path / "whole", **sizes)
    metrics = whole.fit()
    with pytest.raises(Interrupted):
        trainer(coloured, tmp_path / "parts", callbacks=[Stop()], **sizes).fit()
    resumed = trainer(coloured, tmp_path / "parts", 1, **sizes)
    resumed.resume()
    assert (resumed.position.epoch, resumed.position.batch) == (2, 1)
    assert resumed.fit()["loss"] == metrics["loss"]
    for (name, one), (_, two) in zip(whole.network.arrays(), resumed.network.arrays(), strict=True):
        assert np.array_equal(one, two), name
    assert run_folder.load_run(tmp_path / "whole")[1].image_sizes == {0: 32, 2: 48}
    other = trainer(coloured, tmp_path / "parts", **{**sizes, "image_sizes": {0: 32}})
    with pytest.raises(CheckpointError, match="its recipe differs"):
        other.resume()


def test_memory_is_that_of_the_largest_size(coloured):
    def passes(**sizes):
        run = trainer(coloured, None, **sizes)
        needed = memory.of_recipe(run.recipe, run.network, run.optimizer, run.data.features, run.training)
        return needed.passes - memory.WORK

    at_48 = pytest.approx(passes(image_size=48), rel=0.02)
    assert passes(image_sizes={0: 32, 2: 48}) == at_48 and passes(image_sizes={2: 32}, image_size=48) == at_48
    assert passes(image_sizes={0: 48, 2: 40}, image_size=32) == at_48
    assert passes(image_sizes={0: 32}, image_size=48) < 0.7 * at_48.expected  # nothing is trained at 48


def test_what_has_no_other_size_is_refused(coloured, capsys, tmp_path):
    with pytest.raises(
        ValueError, match=r"'image_sizes': expected sizes that the network .* take, got 24 \(Linear line"
    ):
        trainer(coloured, None, model="digits", image_sizes={1: 24})
    with pytest.raises(ValueError, match=r"'image_sizes': expected sizes .*, got 12 \("):
        trainer(coloured, None, image_sizes={1: 12})
    trainer(coloured, tmp_path / "teacher", model="digits", epochs=1).fit()
    taught = {"teacher": str(tmp_path / "teacher"), "teacher_share": 0.5}
    with pytest.raises(
        ValueError, match=r"'image_sizes': expected sizes that .*\(and its teacher\) take, got 32 \(Lin"
    ):
        trainer(coloured, None, **taught, image_sizes={1: 32})
    assert trainer(coloured, None, **taught, image_sizes={1: 40}).teacher is not None
    samples = ArraySamples(np.zeros((8, 3, 32, 32), np.float32), np.arange(8) % 2)
    found = DataSet("own", ("a", "b"), (3, 32, 32), samples, samples)
    with pytest.raises(ValueError, match=r"'image_sizes': expected none with data = own: .* shape \(3, 32, 32\)"):
        train.Trainer(dsr.Network(dsr.Linear(3, 2), 1), found, None, str, image_sizes={0: 16})
    for wrong in ({-1: 32}, {"a": 32}, {0: 0}, {0: 1.5}, {"0": 32, 0: 40}, [32], {0: True}):
        with pytest.raises(
            ValueError, match=r"'image_sizes': expected a table of sides in pixels by epochs done, such"
        ):
            recipe.from_dict({**SMALL, "image_sizes": wrong})
    with pytest.raises(ValueError, match=r"got \{0 = 0, a = 'b'\}"):
        recipe.from_dict({**SMALL, "image_sizes": {0: 0, "a": "b"}})
    late = recipe.load("imagenette", ["epochs=2"])
    assert recipe.without_effect(late) == ["image_sizes from epoch 2 on has no effect with epochs = 2"]
    words = ["train", "imagenette", "--data", str(coloured), "--set", "image_sizes={0 = 64, 1 = none}"]
    assert main(words) == 1 and "'image_sizes': expected a table of sides" in capsys.readouterr().err


def test_crops_have_their_least_area(coloured):
    """A crop of all of the area and of nearly square shape is most of the picture; one of 8 % need not be."""
    from dsr.data.augment import resized_crop

    draws = epoch_draws(500, 3, 0)
    for least in (0.08, 0.35, 0.9):
        areas = np.array([np.prod(resized_crop(100, 100, one, least)[2:]) for one in draws]) / 100**2
        assert least - 0.02 < areas.min() < least + 0.05 and areas.max() <= 1
    made = data_of(coloured, crop_area=0.9).train.decoder
    assert made.crop_area == 0.9 and Decoder().crop_area == 0.08
    one, two = (data_of(coloured, crop_area=area).train.batch(np.arange(4), draws[:4]) for area in (0.08, 0.9))
    assert not np.array_equal(one, two)


def data_of(path, **options):
    return run_folder.load_data(recipe.from_dict({**SMALL, **options}), path)


def test_layers_and_sizes():
    network = dsr.Network(models.image_deep(lambda: dsr.IF(1.0), (3, 128, 96), 10, width=8), 2)
    shapes = [row.shape for row in summary(network, (3, 128, 96)) if "Conv2d" in row.kind]
    expected = [(4, 64, 48), (8, 32, 24), (16, 16, 12), (32, 8, 6), (32, 4, 3)]
    assert shapes == [expected[0], *(shape for shape in expected[1:] for _ in range(3))]
    with pytest.raises(
        ValueError, match=r"image_deep: argument 'features': .* H and W at least 32, got \(3, 128, 31\)"
    ):
        models.image_deep(lambda: dsr.IF(1.0), (3, 128, 31), 10)


def test_the_recipes_start_and_learn(coloured, tmp_path):
    """As they are but for what so few pictures need: directly; and from the weights of a ReLU network."""
    small = ["width=8", "image_size=48", "image_sizes={0 = 32, 2 = 48}", "batch_size=6", "bias_rate=1", "epochs=6"]

    def run(name, *changes):
        chosen = recipe.load(name, [*small, "warmup_steps=4", *changes])
        return train.Trainer(chosen, run_folder.load_data(chosen, coloured), tmp_path / name, str)

    for name in ("imagenette", "imagenette-relu"):
        assert run(name).fit()["test_accuracy"] > 0.9
    spiking = run("imagenette-hybrid", "start_quantile=0.9", "epochs=6")  # plain colours: nearly all activations are 0
    spiking.start_from(tmp_path / "imagenette-relu")
    thresholds = [neuron.mean_threshold() for _, neuron in spiking.network.neurons()]
    assert len(set(thresholds)) == len(thresholds)  # by the activations of each layer
    assert spiking.fit()["train_accuracy"] > 0.8
    direct, relu, hybrid = (recipe.load(f"imagenette{name}").to_dict() for name in ("", "-relu", "-hybrid"))
    for key in ("model", "width", "image_size", "crop_area", "optimizer", "momentum", "batch_size", "label_smoothing"):
        assert direct[key] == relu[key] == hybrid[key]
