"""Early exit: samples leave when their output is clear, with the rates of as many steps; curves and thresholds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_program import case

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.deploy.early_exit import Point, choose, clearness, curve, early_exit, early_exit_in_parts, rates_so_far
from dsr.deploy.integer_model import IntegerStream
from dsr.deploy.plan import Plan
from dsr.deploy.slots import Head
from dsr.train import recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs on digits, with samples for validation."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    chosen = recipe.load("digits", ["epochs=2", "width=8", "validation=200"])
    train.Trainer(chosen, data.load("digits"), folder, str).fit()
    return folder


def test_clearness():
    rates = np.array([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]], np.float32)
    np.testing.assert_allclose(clearness(rates), [np.exp(3) / (1 + np.e + np.exp(3)), 1 / 3])
    np.testing.assert_array_equal(clearness(rates, "margin"), [2, 0])
    assert clearness(np.full((1, 2), 2e38, np.float32))[0] == 0.5


@pytest.mark.parametrize("by", ["probability", "margin"])
@pytest.mark.parametrize("with_time", [False, True])
def test_samples_leave_with_the_rates_of_as_many_steps(by, with_time):
    network, _ = case("mlp", "lif")
    network.timesteps = 6
    rng = np.random.default_rng(0)
    data = 2 * rng.normal(size=(6,) * with_time + (21, 3, 32, 32)).astype(np.float32)
    session = dsr.compile(network, batch=16, features=(3, 32, 32))
    so_far = rates_so_far(session, data)
    assert so_far.shape == (6, 21, 10)
    np.testing.assert_allclose(so_far[-1], session(data), rtol=1e-6)
    clear = clearness(so_far, by)
    threshold = float(np.quantile(clear[1], 0.6))
    found = early_exit(session, data, threshold, by, least=2)
    assert found.timesteps.min() == 2 < found.timesteps.max()  # and the batch got smaller in between
    assert len(np.unique(found.timesteps)) >= 3
    for number, steps in enumerate(found.timesteps):
        np.testing.assert_allclose(found.rates[number], so_far[steps - 1, number], rtol=1e-5, atol=1e-6)
        assert steps == 6 or clear[steps - 1, number] >= threshold - 1e-6
        assert (clear[1 : steps - 1, number] < threshold + 1e-6).all()
    never = early_exit(session, data, float("inf"), by)
    assert (never.timesteps == 6).all()
    np.testing.assert_allclose(never.rates, session(data), rtol=1e-6)
    assert early_exit(session, data[:, :0] if with_time else data[:0], 0.5).rates.shape == (0, 10)


@pytest.mark.parametrize(("name", "with_time"), [("digits", False), ("mlp", True)])
def test_integer_networks_leave_with_the_very_rates_of_as_many_steps(name, with_time):
    """Batches get smaller on the way, which changes no bit of those that stay."""
    network, example = case(name, "lif")
    rng = np.random.default_rng(0)
    data = 2 * rng.normal(size=(6,) * with_time + (70, *example.shape[1:])).astype(np.float32)
    model = dsr.quantize(network, data[0] if with_time else data, features=example.shape[1:])
    model.timesteps = 6
    so_far = rates_so_far(model, data)
    np.testing.assert_array_equal(so_far[-1], model.run(data))
    clear = clearness(so_far)
    threshold = float(np.quantile(clear[1], 0.6))
    found = early_exit(model, data, threshold)
    assert len(np.unique(found.timesteps)) >= 3
    passed = clear >= threshold
    passed[-1] = True
    np.testing.assert_array_equal(found.timesteps, passed.argmax(axis=0) + 1)
    np.testing.assert_array_equal(found.rates, so_far[found.timesteps - 1, np.arange(70)])
    if with_time:  # as many frames as there are
        assert (early_exit(model, data[:2], 2.0).timesteps == 2).all()
        assert rates_so_far(model, data[:2, :0]).shape == (2, 0, 10)


@pytest.mark.parametrize("name", ["digits", "preact_resnet18", "spike_element_wise", "pools_everywhere", "spikes_out"])
def test_slots_are_filled_again_and_again(name):
    """More samples than slots; stems that are read behind the neurons too; and outputs of spikes."""
    if name == "spikes_out":
        body = dsr.Sequential(dsr.Conv2d(1, 33, 3), dsr.IF(0.5), dsr.Flatten(), dsr.Linear(33 * 36, 10), dsr.IF(0.2))
        network, data = dsr.Network(body, 4), np.empty((1, 1, 8, 8), np.float32)
    else:
        network, data = case(name, "lif" if name == "spike_element_wise" else "if")
    network.timesteps = 4
    data = 2 * np.random.default_rng(3).normal(size=(19, *data.shape[1:])).astype(np.float32)
    session = dsr.compile(network, batch=3, features=data.shape[1:])
    so_far = rates_so_far(session, data)
    clear = clearness(so_far)
    threshold = (
        float(np.quantile(clear, 0.75)) - 1e-5
    )  # beside the numbers there are: values behind neurons are rounded
    passed = clear >= threshold
    passed[-1] = True
    found = early_exit(session, data, threshold)
    assert len(np.unique(found.timesteps)) >= 2
    np.testing.assert_array_equal(found.timesteps, passed.argmax(axis=0) + 1)
    np.testing.assert_allclose(found.rates, so_far[found.timesteps - 1, np.arange(19)], rtol=1e-5, atol=1e-6)
    again = early_exit_in_parts(session, iter([data[:1], data[1:1], data[1:12], data[12:]]), threshold)
    np.testing.assert_array_equal(again.timesteps, found.timesteps)
    np.testing.assert_allclose(again.rates, found.rates, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["static", "frames", "integers"])
def test_time_steps_are_those_of_samples_that_have_not_left(kind, monkeypatch):
    """All slots are full as long as samples are left; of static samples, stem and first neurons are computed once."""
    network, data = case("digits", "if")
    network.timesteps = 5
    data = np.random.default_rng(1).normal(size=(5,) * (kind == "frames") + (200, *data.shape[1:])).astype(np.float32)
    session = dsr.compile(network, batch=8, features=data.shape[-3:])
    if kind == "integers":
        session = dsr.quantize(network, data, features=data.shape[-3:])
        session.batch = 8
    lanes, heads = [], []

    def noted(of, name, note):
        done = getattr(of, name)
        monkeypatch.setattr(of, name, lambda self, *a, **o: note.append(self.batch) or done(self, *a, **o))

    noted(Plan, "run", lanes)
    noted(Head, "__call__", heads)
    noted(IntegerStream, "advance", lanes)
    rates = rates_so_far(session, data)
    lanes.clear()
    found = early_exit(session, data, float(np.median(clearness(rates)[1])))
    assert 1.2 < found.timesteps.mean() < 4
    slots, needed = 16 if kind == "static" else 8, int(found.timesteps.sum())
    assert sum(heads) == (200 if kind == "static" else 0)
    steps = sum(lanes) - sum(heads)
    assert needed <= steps <= needed + 2 * slots  # at the end some are empty, until half of them are
    assert lanes.count(slots) > needed / slots - 5


def test_parts_are_alike():
    network, data = case("digits", "if")
    session = dsr.compile(network, features=data.shape[1:])
    frames = np.zeros((session.timesteps, *data.shape), np.float32)
    with pytest.raises(ValueError, match=r"early_exit_in_parts: argument 'parts': expected parts of the same kind, st"):
        early_exit_in_parts(session, [data, frames], 0.5)
    with pytest.raises(ValueError, match=r"early_exit_in_parts: argument 'parts': expected shape \(B, 1, 8, 8\)"):
        early_exit_in_parts(session, [data, data[0]], 0.5)
    with pytest.raises(TypeError, match=r"early_exit_in_parts: argument 'parts': expected an iterable of arrays"):
        early_exit_in_parts(session, None, 0.5)
    assert early_exit_in_parts(session, [], 0.5).rates.shape == (0, 10)


def test_the_curve_is_what_early_exit_gives():
    network, data = case("digits", "if")
    network.timesteps = 5
    data = np.random.default_rng(1).normal(size=(40, *data.shape[1:])).astype(np.float32)
    session = dsr.compile(network, features=data.shape[1:])
    labels = session(data).argmax(axis=1)
    points = curve(rates_so_far(session, data), labels, [0.15, 0.11, 0.2])
    assert [point.threshold for point in points] == [0.11, 0.15, 0.2, np.inf]
    assert points[-1] == Point(np.inf, 1.0, 5.0)
    assert points[0].timesteps < points[-1].timesteps and points[0].accuracy < 1
    for point in points:
        found = early_exit(session, data, point.threshold)
        assert point.timesteps == found.timesteps.mean()
        assert point.accuracy == (found.rates.argmax(axis=1) == labels).mean()
    assert curve(rates_so_far(session, data), labels, [0.11], least=3)[0].timesteps >= 3


def test_a_threshold_is_chosen():
    points = [Point(0.5, 0.90, 1.2), Point(0.9, 0.975, 2.0), Point(0.95, 0.975, 2.5), Point(np.inf, 0.98, 5.0)]
    assert choose(points).threshold == 0.9
    assert choose(points, 0).threshold == np.inf
    assert choose(points, 0.1).threshold == 0.5


def test_the_command(run, tmp_path, capsys):
    """Figures of both ways; a threshold that nothing reaches gives those of all steps."""
    assert main(["evaluate", str(run)]) == 0
    plain = re.search(r"test accuracy ([\d.]+) %", capsys.readouterr().out)[1]
    line = (
        r"test accuracy ([\d.]+) % with early exit at a (\w+) of ([\d.]+)(.*)\n"
        r"mean T ([\d.]+) of 5, [\d.]+ ms per sample; with all steps ([\d.]+) %, [\d.]+ ms per sample\n"
    )
    assert main(["evaluate", str(run), "--early-exit", "1"]) == 0
    exited, by, threshold, _, steps, all_steps = re.fullmatch(line, capsys.readouterr().out).groups()
    assert (exited, by, threshold, steps, all_steps) == (plain, "probability", "1", "5.00", plain)
    assert main(["evaluate", str(run), "--early-exit", "0.3", "--exit-by", "margin"]) == 0
    _, by, _, _, steps, all_steps = re.fullmatch(line, capsys.readouterr().out).groups()
    assert by == "margin" and 1 < float(steps) < 5 and all_steps == plain
    assert main(["evaluate", str(run), "--early-exit", "auto"]) == 0
    exited, *_, chosen, steps, _ = re.fullmatch(line, capsys.readouterr().out).groups()
    assert chosen == ", chosen on 200 samples for validation" and float(steps) < 5
    assert float(exited) > float(plain) - 3


def test_the_plot(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "exits.png"
    assert main(["evaluate", str(run), "--early-exit", "0.3", "--plot", str(picture)]) == 0
    assert f"the curve is in {picture}" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_models_predict_by_a_session_of_their_weights(run):
    model = dsr.load(run)
    data = np.random.default_rng(0).normal(size=(70, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(model.outputs(data), model.network(data), rtol=1e-5, atol=1e-6)
    made = model._compiled
    model.outputs(data[:3])
    assert model._compiled is made
    model.network.timesteps = 3
    np.testing.assert_allclose(model.outputs(data), model.network(data), rtol=1e-5, atol=1e-6)
    for _, parameter in model.network.parameters():
        parameter.value *= 2
    np.testing.assert_allclose(model.outputs(data), model.network(data), rtol=1e-5, atol=1e-6)
    norm = next(layer for _, layer in model.network.body.walk() if isinstance(layer, dsr.BatchNorm))
    norm.eps = 1.0
    made = model.outputs(data)
    np.testing.assert_allclose(made, model.network(data), rtol=1e-5, atol=1e-6)
    model._compiled = None
    np.testing.assert_array_equal(model.outputs(data), made)


class Own(dsr.Layer):
    """Does not say what it does."""

    def forward(self, signal, run):
        return signal


def test_layers_that_cannot_be_compiled_are_evaluated_as_before():
    network = dsr.Network(dsr.Sequential(Own(), dsr.Linear(4, 3), dsr.IF(0.5)), 3, inputs="NC")
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(dsr.Model(network).outputs(data), network(data))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda s, x: early_exit(s, x, 0),
            ValueError,
            "early_exit: argument 'threshold': expected a number > 0, got",
        ),
        (
            lambda s, x: early_exit(s, x, 0.9, "rate"),
            ValueError,
            "argument 'by': expected 'probability' or 'margin'",
        ),
        (lambda s, x: early_exit(s, x, 0.9, least=0), ValueError, "argument 'least': expected an integer >= 1, got 0"),
        (lambda s, x: early_exit(s, x[:, :, 1:], 0.9), ValueError, "early_exit: argument 'data': expected shape"),
        (
            lambda s, x: early_exit(None, x, 0.9),
            TypeError,
            "argument 'session': expected a Session or an IntegerModel, got NoneType",
        ),
        (
            lambda s, x: curve(rates_so_far(s, x)[0], [0, 0]),
            ValueError,
            r"expected shape \(T, B, classes\), got \(2,",
        ),
        (lambda s, x: curve(rates_so_far(s, x), [0, 10]), ValueError, "argument 'labels': expected classes 0 to 9"),
        (
            lambda s, x: curve(rates_so_far(s, x), [0, 1], [-1]),
            ValueError,
            "argument 'thresholds': expected numbers",
        ),
        (lambda s, x: choose([]), ValueError, "choose: argument 'points': expected at least one, got none"),
        (lambda s, x: clearness(np.zeros((2, 1), np.float32)), ValueError, "expected at least two classes"),
    ],
)
def test_bad_input(call, error, message):
    network, data = case("digits", "if")
    with pytest.raises(error, match=message):
        call(dsr.compile(network, features=data.shape[1:]), data)


def test_bad_commands(run, tmp_path, capsys):
    for arguments, message in (
        (
            ["--early-exit", "0.9", "--views", "mirror"],
            "expected a run of classes, seen in one view, got --views mi",
        ),
        (["--plot", str(tmp_path / "a.png")], "argument --plot: expected --early-exit with it"),
    ):
        assert main(["evaluate", str(run), *arguments]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--early-exit", "-1"])
    assert "expected a number > 0, got '-1'" in capsys.readouterr().err
