"""Losses and metrics against their formulas, their gradients against finite differences, and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest

import dsr
from dsr import metrics

# ---- every loss ----------------------------------------------------------------------------------------------------


def calls():
    """A loss with arguments, by name; rates of vectors and of images."""
    rng = np.random.default_rng(3)
    for shape in ((6, 4), (3, 4, 5, 2)):
        rates, reals = rng.normal(size=shape), rng.normal(size=shape)
        labels = rng.integers(0, 4, (shape[0], *shape[2:]))
        weights = [0.5, 2.0, 1.0, 0.0]
        holes = np.where(rng.random(labels.shape) < 0.3, -100, labels)
        yield f"cross_entropy {shape}", dsr.cross_entropy, (rates, labels), {}
        yield f"smoothing {shape}", dsr.cross_entropy, (rates, labels, 0.3), {}
        yield f"weights {shape}", dsr.cross_entropy, (rates, labels, 0.2), {"class_weights": weights}
        yield f"ignored {shape}", dsr.cross_entropy, (rates, holes), {"ignore_label": -100, "class_weights": weights}
        yield f"mse {shape}", dsr.mse, (rates, reals), {}
        yield f"binary {shape}", dsr.binary_cross_entropy, (rates, rng.random(shape)), {}
        yield f"binary midpoint {shape}", dsr.binary_cross_entropy, (rates, reals > 0, 0.7), {}


CALLS = {name: call for name, *call in calls()}


@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_those_of_finite_differences(name):
    loss, (rates, *others), options = CALLS[name]
    value, gradient = loss(rates, *others, **options)
    assert isinstance(value, float) and gradient.dtype == np.float32 and gradient.shape == rates.shape
    assert gradient.flags.c_contiguous
    for place in np.ndindex(rates.shape):
        above, below = rates.copy(), rates.copy()
        above[place] += 1e-5
        below[place] -= 1e-5
        slope = (loss(above, *others, **options)[0] - loss(below, *others, **options)[0]) / 2e-5
        # a value of order 1 in float64: the difference is off by 1e-16 / 1e-5; the gradient, below 1, is float32
        assert abs(slope - gradient[place]) < 1e-7


@pytest.mark.parametrize("name", CALLS)
def test_rates_that_are_not_finite_show_in_the_value(name):
    loss, (rates, *others), options = CALLS[name]
    for wild in (np.nan, np.inf):
        assert not np.isfinite(loss(np.full_like(rates, wild), *others, **options)[0])


def test_the_contract_is_all_that_training_needs():
    """`loss(rates, targets)` of all three lowers the loss of a small network."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 5)).astype(np.float32)
    targets = {
        dsr.cross_entropy: (data[:, :3].argmax(axis=1), 3),
        dsr.mse: (np.sin(data[:, :3]), 3),
        dsr.binary_cross_entropy: (data[:, :2] > 0, 2),
    }
    for loss, (target, outputs) in targets.items():
        body = dsr.Sequential(dsr.Linear(5, 32), dsr.BatchNorm(32), dsr.IF(1.0), dsr.Linear(32, outputs))
        network = dsr.Network(body, timesteps=8, seed=1)
        optimizer = dsr.SGD(network.parameters(), 0.2, momentum=0.9)
        values = []
        for _ in range(60):
            value, gradient = loss(network.forward(data, training=True), target)
            network.backward(gradient)
            optimizer.step()
            values.append(value)
        assert values[-1] < 0.3 * values[0], loss.__name__


# ---- values --------------------------------------------------------------------------------------------------------


def test_cross_entropy_and_its_gradient():
    rng = np.random.default_rng(0)
    rates, labels = rng.normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    for smoothing in (0.0, 0.2):
        loss, grad = dsr.cross_entropy(rates, labels, smoothing)
        probability = np.exp(rates) / np.exp(rates).sum(axis=1, keepdims=True)
        wanted = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
        assert loss == pytest.approx(-(wanted * np.log(probability)).sum() / 6, rel=1e-12)
        np.testing.assert_allclose(grad, (probability - wanted) / 6, atol=2.0**-24)


def test_cross_entropy_of_large_rates_is_finite():
    loss, grad = dsr.cross_entropy(np.array([[1e4, -1e4]]), np.array([1]))
    assert loss == pytest.approx(2e4)
    np.testing.assert_allclose(grad, [[1, -1]])


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0], [0.0, 1.0], [0]])
def test_cross_entropy_refuses_wrong_labels(labels):
    with pytest.raises(ValueError, match="cross_entropy: argument 'labels'"):
        dsr.cross_entropy(np.zeros((2, 4)), np.array(labels))


def test_cross_entropy_by_hand():
    """Two classes with rates log 3 and 0: probabilities 3/4 and 1/4."""
    rates = np.log([[3.0, 1.0], [3.0, 1.0], [3.0, 1.0]])
    parts = -np.log([0.75, 0.25, 0.25])
    assert dsr.cross_entropy(rates, [0, 1, 1])[0] == pytest.approx(parts.mean())
    value, gradient = dsr.cross_entropy(rates, [0, 1, 9], ignore_label=9)
    assert value == pytest.approx(parts[:2].mean())
    np.testing.assert_allclose(gradient, [[-0.125, 0.125], [0.375, -0.375], [0, 0]], atol=1e-7)
    value, gradient = dsr.cross_entropy(rates, [0, 1, 1], class_weights=[4, 1])
    assert value == pytest.approx((4 * parts[0] + parts[1] + parts[2]) / 6)
    np.testing.assert_allclose(gradient[0], [4 * -0.25 / 6, 4 * 0.25 / 6], atol=1e-7)


def test_cross_entropy_of_pixels_is_that_of_as_many_samples():
    rng = np.random.default_rng(1)
    rates, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    value, gradient = dsr.cross_entropy(rates, labels, 0.1)
    rows = rates.transpose(0, 2, 3, 1).reshape(-1, 3)
    expected, flat = dsr.cross_entropy(rows, labels.reshape(-1), 0.1)
    assert value == expected
    np.testing.assert_array_equal(gradient.transpose(0, 2, 3, 1).reshape(-1, 3), flat)


@pytest.mark.parametrize("options", [{"ignore_label": 1}, {"class_weights": [1.0, 0.0]}])
def test_nothing_to_learn_is_a_loss_of_zero(options):
    value, gradient = dsr.cross_entropy(np.ones((2, 2)), [1, 1], **options)
    assert (value, gradient.tolist()) == (0.0, [[0, 0], [0, 0]])


def test_mse_and_binary_by_hand():
    value, gradient = dsr.mse([[1.0, 2.0]], [[0.0, 4.0]])
    assert (value, gradient.tolist()) == (2.5, [[1.0, -2.0]])
    value, gradient = dsr.binary_cross_entropy([[0.0, np.log(3)]], [[1.0, 0.0]])
    assert value == pytest.approx((np.log(2) + np.log(4)) / 2)
    np.testing.assert_allclose(gradient, [[-0.25, 0.375]])
    # a rate of neurons is never negative; half the threshold is the middle
    assert dsr.binary_cross_entropy([[1.0]], [[1]], midpoint=1.0)[0] == pytest.approx(np.log(2))
    value, gradient = dsr.binary_cross_entropy([[1e4, -1e4]], [[0, 1]])
    assert (value, gradient.tolist()) == (1e4, [[0.5, -0.5]])


def test_metrics_by_hand():
    rates, labels = [[3, 1, 2], [1, 1, 0], [0, 5, 5], [2, 1, 0]], [2, 0, 2, 1]
    assert metrics.accuracy(rates, labels) == 0.25  # of equal rates the first counts
    assert metrics.top_k_accuracy(rates, labels, 2) == 1.0
    assert metrics.top_k_accuracy(rates, labels, 1) == metrics.accuracy(rates, labels)
    assert metrics.accuracy(rates, [2, 0, 2, -1], ignore_label=-1) == pytest.approx(1 / 3)
    pixels = np.array(rates).T.reshape(1, 3, 2, 2)
    assert metrics.accuracy(pixels, np.array(labels).reshape(1, 2, 2)) == 0.25
    assert metrics.mean_absolute_error([[1.0, 2.0]], [[0.0, 4.0]]) == 1.5
    assert metrics.mean_squared_error([[1.0, 2.0]], [[0.0, 4.0]]) == 2.5
    found, true = [[1, 0, 0], [1, 2, 0], [0, 2, 0]], [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    np.testing.assert_allclose(metrics.label_accuracy(found, true), [1 / 3, 1, 1])
    np.testing.assert_allclose(metrics.f1_score(found, true), [0.5, 1, np.nan])
    np.testing.assert_allclose(metrics.f1_score(found, true, midpoint=1.5), [0, 1, np.nan])
    assert metrics.f1_score(np.ones((2, 3, 4, 4)), np.ones((2, 3, 4, 4))).tolist() == [1, 1, 1]


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_accuracy_is_that_of_the_largest_rate(classes):
    rng = np.random.default_rng(classes)
    rates, labels = rng.integers(0, 3, (200, classes)), rng.integers(0, classes, 200)
    assert metrics.accuracy(rates, labels) == (rates.argmax(axis=1) == labels).mean()
    assert metrics.top_k_accuracy(rates, labels, classes) == 1


# ---- bad input -----------------------------------------------------------------------------------------------------

OF_CLASSES = [dsr.cross_entropy, metrics.accuracy, metrics.top_k_accuracy]
OF_REALS = [dsr.mse, metrics.mean_absolute_error, metrics.mean_squared_error]
OF_LABELS = [dsr.binary_cross_entropy, metrics.label_accuracy, metrics.f1_score]


@pytest.mark.parametrize("function", [*OF_CLASSES, *OF_REALS, *OF_LABELS])
def test_wrong_rates(function):
    name = function.__name__
    for wrong in (np.zeros(3), 0.0, np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 3, 0, 4))):
        given = re.escape(f"with at least one sample, got shape {np.shape(wrong)}")
        with pytest.raises(ValueError, match=rf"^{name}: argument 'rates': expected \(B, N\) or .* {given}$"):
            function(wrong, np.zeros(3, int))
    for wrong in ("text", None, [[1j]], [["a"]], {}):
        with pytest.raises(TypeError, match=f"^{name}: argument 'rates': expected "):
            function(wrong, np.zeros(3, int))


@pytest.mark.parametrize("function", OF_CLASSES)
@pytest.mark.parametrize(
    ("labels", "given"),
    [
        ([0, 4], "expected classes 0 to 3, got 0 to 4"),
        ([-1, 0], "expected classes 0 to 3, got -1 to 0"),
        ([0.0, 1.0], "got float64 of shape (2,); .astype(int) makes integers of whole numbers"),
        ([0.5, 1.0], "got float64 of shape (2,)"),
        ([0, np.nan], "got float64 of shape (2,)"),
        ([True, False], "got bool of shape (2,)"),
        ([0], "got int64 of shape (1,)"),
        ([[0], [1]], "got int64 of shape (2, 1); .reshape(-1) removes the second axis"),
        (np.eye(4, dtype=int)[:2], "got int64 of shape (2, 4); .argmax(axis=1) makes class numbers of one-hot rows"),
    ],
)
def test_wrong_labels(function, labels, given):
    with pytest.raises(ValueError, match=f"^{function.__name__}: argument 'labels': .*{re.escape(given)}"):
        function(np.zeros((2, 4)), labels)
    if np.shape(labels) == (2,):
        with pytest.raises(ValueError, match=f"^{function.__name__}: argument 'labels': "):
            function(np.zeros((2, 4)), labels, ignore_label=7)
        pixels = np.array(labels).reshape(1, 1, 2)
        with pytest.raises(ValueError, match=f"^{function.__name__}: argument 'labels': "):
            function(np.zeros((1, 4, 1, 2)), pixels)
        for wrong in (pixels[0], pixels.reshape(-1), pixels.transpose(0, 2, 1)):
            with pytest.raises(ValueError, match=r"argument 'labels': expected shape \(1, 1, 2\), one class per pixel"):
                function(np.zeros((1, 4, 1, 2)), wrong)


@pytest.mark.parametrize("function", [*OF_REALS, *OF_LABELS])
def test_wrong_targets(function):
    start = f"{function.__name__}: argument 'targets': expected"
    for shape, wrong, hint in (
        ((3, 1), np.zeros(3), "shape (3, 1) as 'rates', got (3,); .reshape(-1, 1) makes it one target per sample"),
        ((3, 4), np.zeros(3, int), "shape (3, 4) as 'rates', got (3,); np.eye(N)[labels] makes a row of 0 and 1"),
        ((3, 4), np.zeros((4, 3)), "shape (3, 4) as 'rates', got (4, 3)"),
        ((3, 4), 0.0, "shape (3, 4) as 'rates', got ()"),
        ((2, 2), [[0, 1], [np.nan, 1]], "finite numbers, got nan at (1, 0)"),
        ((2, 2), [[0, np.inf], [0, 1]], "finite numbers, got inf at (0, 1)"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{start} {hint}')}"):
            function(np.zeros(shape), wrong)
    with pytest.raises(TypeError, match=f"^{start} real numbers"):
        function(np.zeros((3, 1)), ["a", "b", "c"])
    if function in OF_LABELS:
        for wrong in (-1, 2, 1.0001):
            with pytest.raises(ValueError, match=f"^{start} .*, got "):
                function(np.zeros((1, 2)), [[0, wrong]])
        for wrong in ("a", None, [1.0]):
            with pytest.raises(TypeError, match=f"{function.__name__}: argument 'midpoint': expected a number"):
                function(np.zeros((1, 1)), [[1]], midpoint=wrong)
        with pytest.raises(ValueError, match="argument 'midpoint': expected a number, got nan"):
            function(np.zeros((1, 1)), [[1]], midpoint=np.nan)


@pytest.mark.parametrize("wrong", [[1.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 1.0]], 1.0])
def test_wrong_class_weights(wrong):
    with pytest.raises(ValueError, match=r"cross_entropy: argument 'class_weights': expected 2 numbers >= 0, one per"):
        dsr.cross_entropy(np.zeros((1, 2)), [0], class_weights=wrong)


def test_other_wrong_options():
    for wrong in (1.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="argument 'ignore_label': expected an integer, got"):
            dsr.cross_entropy(np.zeros((1, 2)), [0], ignore_label=wrong)
    with pytest.raises(TypeError, match="accuracy: argument 'ignore_label': expected an integer, got 'x'"):
        metrics.accuracy(np.zeros((1, 2)), [0], ignore_label="x")
    for wrong in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"argument 'label_smoothing': expected a number in \[0, 1\)"):
            dsr.cross_entropy(np.zeros((1, 2)), [0], wrong)
    with pytest.raises(ValueError, match="argument 'labels': expected a label that is not ignored, got 3 alone"):
        metrics.accuracy(np.zeros((2, 2)), [3, 3], ignore_label=3)
    with pytest.raises(ValueError, match="top_k_accuracy: argument 'k': expected an integer >= 1, got 0"):
        metrics.top_k_accuracy(np.zeros((1, 2)), [0], 0)
    for function in (*OF_CLASSES[1:], *OF_REALS[1:], *OF_LABELS[1:]):
        targets = [0] if function in OF_CLASSES else [[0, 1]]
        with pytest.raises(ValueError, match=f"{function.__name__}: argument 'rates': expected finite values, got nan"):
            function([[np.nan, 1.0]], targets)
