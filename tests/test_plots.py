"""Pictures of runs and reports: what is drawn lies inside its axes, legends beside them, and words say what is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dsr

pytest.importorskip("matplotlib", reason="plots need matplotlib")
from dsr import data, inspect
from dsr.inspect import plots as report_plots
from dsr.train import plots

LAYERS = ["neuron1", "neuron2"]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, as matplotlib has them."""
    figures = []

    def keep(figure, path):
        figure.draw_without_rendering()
        figures.append(figure)

    monkeypatch.setattr(plots, "save_figure", keep)
    monkeypatch.setattr(report_plots, "save_figure", keep)
    return figures


def metrics(epochs, layers=LAYERS, metric="accuracy", scale=1.0):
    return [
        {
            "epoch": epoch,
            "loss": scale / epoch,
            f"train_{metric}": 1 - 0.9 / epoch,
            f"validation_{metric}": 1 - 0.95 / epoch,
            "firing_rate": {layer: 0.1 + 0.01 * number for number, layer in enumerate(layers)},
            "v_threshold": dict.fromkeys(layers, 1.0 + epoch),
            "seconds": 1.0,
        }
        for epoch in range(1, epochs + 1)
    ]


def assert_lines_inside(figure):
    for axis in figure.axes:
        (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
        for line in axis.get_lines():
            x, y = (np.asarray(values, float) for values in line.get_data())
            if line.get_transform() != axis.transData:
                continue  # the dashed line across the axes
            assert left <= x.min() and x.max() <= right
            assert bottom <= np.nanmin(y) and np.nanmax(y) <= top


def assert_legends_beside(figure):
    """No legend overlaps any axes, and all are in the picture."""
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + figure.legends
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes if axis.axison)
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
    return [[text.get_text() for text in legend.get_texts()] for legend in legends]


def whole_ticks(axis, which="x"):
    """Of the ticks in sight, whether all are whole numbers."""
    ticks, limits = getattr(axis, f"get_{which}ticks")(), getattr(axis, f"get_{which}lim")()
    seen = [tick for tick in ticks if min(limits) <= tick <= max(limits)]
    return bool(seen) and all(tick == int(tick) for tick in seen)


@pytest.mark.parametrize("epochs", [1, 2, 3, 100])
@pytest.mark.parametrize("layers", [LAYERS[:1], LAYERS, [f"block{i}.neuron" for i in range(20)]])
def test_curves(drawn, epochs, layers):
    plots.curves(metrics(epochs, layers), "curves.png")
    (figure,) = drawn
    titles = [axis.get_ylabel() for axis in figure.axes]
    assert titles == ["training loss", "accuracy, %", "firing rate", "v_threshold"]
    assert_lines_inside(figure)
    names = layers if len(layers) <= 8 else ["block0.neuron", "... to block19.neuron"]
    assert assert_legends_beside(figure) == [["train", "validation"], names, names]
    assert whole_ticks(figure.axes[-1])
    assert figure.axes[2].get_ylim()[0] == figure.axes[3].get_ylim()[0] == 0
    assert len(figure.axes[2].get_lines()) == len(layers)
    if epochs == 1:  # a line of one point would not be seen
        assert all(line.get_marker() == "o" for axis in figure.axes for line in axis.get_lines())


def test_curves_of_other_tasks_and_of_networks_without_spikes(drawn):
    plots.curves(metrics(3, metric="mean_squared_error"), "curves.png")
    plots.curves([m | {"firing_rate": {}, "v_threshold": {}} for m in metrics(3)], "curves.png")
    assert [axis.get_ylabel() for axis in drawn[0].axes][1] == "mean squared error"
    assert drawn[0].axes[1].get_lines()[0].get_ydata()[0] == pytest.approx(0.1)
    assert drawn[1].axes[1].get_lines()[0].get_ydata()[0] == pytest.approx(10)
    assert [axis.get_ylabel() for axis in drawn[1].axes] == ["training loss", "accuracy, %"]


def raster_texts(figure):
    sample, *layers = figure.axes
    return sample.get_title(), [(axis.get_title("left"), axis.get_ylabel()) for axis in layers]


def test_raster_says_which_neurons_and_beside_what(drawn):
    body = dsr.Sequential(
        dsr.Conv2d(1, 8, 3, padding=1), dsr.IF(1.0), dsr.Flatten(), dsr.Linear(512, 3), out=dsr.IF(0.2)
    )
    network = dsr.Network(body, 5, seed=1)
    image = data.load("digits").train.batch(np.array([0]))
    classes = ("one", "two", "three")
    plots.raster(network, image, "raster.png", label=np.int64(1), classes=classes)
    plots.raster(network, image, "raster.png", most=600)
    title, layers = raster_texts(drawn[0])
    answer = classes[int(network.predict(image)[0])]
    assert title == f"label: two\nprediction: {answer}"
    assert layers == [("1: 171 of 512 neurons: 0, 3, 6, ...", "neuron"), ("out: all 3 neurons", "class")]
    assert [text.get_text() for text in drawn[0].axes[2].get_yticklabels()] == list(classes)
    grey = (image[0, 0] - image.min()) / (image.max() - image.min())
    np.testing.assert_allclose(drawn[0].axes[0].get_images()[0].get_array(), grey, atol=1e-6)
    seen = {}
    network.forward(image, observer=lambda path, layer, output: seen.setdefault(path, output))
    spikes = seen["1"].dense().reshape(5, 512) != 0
    np.testing.assert_array_equal(drawn[0].axes[1].get_images()[0].get_array(), spikes[:, ::3].T)
    title, layers = raster_texts(drawn[1])
    assert title == f"prediction: {int(network.predict(image)[0])}"
    assert layers[0] == ("1: all 512 neurons", "neuron")
    assert [text.get_text() for text in drawn[1].axes[2].get_yticklabels()] == ["0", "1", "2"]
    for figure in drawn:
        assert all(whole_ticks(axis) and whole_ticks(axis, "y") for axis in figure.axes[1:])


@pytest.mark.parametrize("timesteps", [1, 6, 40])
@pytest.mark.parametrize("shape", [(1, 30), (None, 1, 30), (1, 3, 6, 6), (1, 2, 6, 6), (None, 1, 3, 6, 6)])
def test_raster_of_any_data(drawn, shape, timesteps):
    shape = tuple(timesteps if size is None else size for size in shape)
    vector = len(shape) <= 3
    layer = dsr.Linear(30, 25) if vector else dsr.Conv2d(shape[-3], 4, 3)
    network = dsr.Network(dsr.Sequential(layer, dsr.IF(0.5)), timesteps)
    plots.raster(network, np.random.default_rng(0).random(shape, np.float32), "raster.png", label=[0.5, 1.0])
    (figure,) = drawn
    title, layers = raster_texts(figure)
    assert title.startswith("prediction: ") if vector else title == "sample"  # a label that is no class is not shown
    assert layers == [("1: all 25 neurons" if vector else "1: all 64 neurons", "neuron")]
    assert figure.axes[0].get_xlabel() == ("mean over time" if len(shape) in (3, 5) else "")
    assert whole_ticks(figure.axes[1]) and whole_ticks(figure.axes[1], "y")
    assert_lines_inside(figure)


def test_raster_needs_spikes(drawn):
    network = dsr.Network(dsr.Sequential(dsr.Linear(3, 2)), 2)
    with pytest.raises(ValueError, match="raster: expected a network with spiking layers, got none"):
        plots.raster(network, np.zeros((1, 3)), "raster.png")


@pytest.mark.parametrize("alphas", [(None,), (None, 0.3, 1.0)])
@pytest.mark.parametrize("layers", [2, 10])
def test_pictures_of_a_report(drawn, tmp_path, layers, alphas):
    parts = [layer for n in range(layers) for layer in (dsr.Linear(6, 6), dsr.BatchNorm(6), dsr.IF(0.5))]
    network = dsr.Network(dsr.Sequential(*parts), 3, seed=2)
    samples = np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32)
    network.forward(samples, training=True)
    report = inspect.measure(network, samples, np.arange(8) % 6)
    curves = inspect.error_curves(network, samples, np.arange(8) % 6, timesteps=[1, 3, 9], alphas=alphas)
    report_plots.pictures(replace(report, curves=curves), tmp_path)
    firing, energy, errors = drawn
    names = [layer.path for layer in report.layers]
    if layers > 8:
        names = [names[0], f"... to {names[-1]}"]
    accuracy = ["its own alpha", *(f"alpha = {alpha:g}" for alpha in alphas[1:])]
    assert assert_legends_beside(errors) == [accuracy, names]
    assert len(assert_legends_beside(energy)[0]) == 2
    assert assert_legends_beside(firing) == []
    assert_lines_inside(errors)
    for axis in firing.axes[:layers]:
        assert whole_ticks(axis)
        assert max(bar.get_height() for bar in axis.patches) < axis.get_ylim()[1]
    assert [text.get_text() for text in errors.axes[0].get_xticklabels()] == ["1", "3", "9"]
    assert "10^" not in "".join(text.get_text() for text in errors.axes[0].get_yticklabels(which="both"))
