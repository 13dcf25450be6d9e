"""SpikingRegressor learns, is reproducible, and passes scikit-learn's checks of an estimator."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import dsr

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.utils.estimator_checks import parametrize_with_checks

from dsr.sklearn.regressor import SpikingRegressor


@pytest.fixture(scope="module")
def waves():
    """Points of the plane, and two functions of them; a line explains little of either."""
    points = np.random.default_rng(2).uniform(-3, 3, (900, 2))
    return points, np.column_stack([100 + 20 * np.sin(points[:, 0]), 1e-3 * np.abs(points[:, 1])])


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_it_learns_curves(waves, neuron):
    points, targets = waves
    found = SpikingRegressor(neuron=neuron, random_state=0).fit(points[:600], targets[:600])
    assert found.score(points[600:], targets[600:]) > 0.9
    assert len(found.loss_curve_) == 30 and found.loss_curve_[-1] < 0.15 < found.loss_curve_[0]
    np.testing.assert_allclose(found.target_mean_, targets[:600].mean(axis=0))
    np.testing.assert_allclose(found.target_scale_, targets[:600].std(axis=0))


def test_answers_are_the_mean_current_scaled_back(waves):
    points, targets = waves
    found = SpikingRegressor((8,), epochs=3, random_state=0).fit(points, targets)
    layers = [type(layer) for layer in found.network_.body.children().values()]
    assert layers == [dsr.Linear, dsr.BatchNorm, dsr.IF, dsr.Linear]
    rates = found.network_.forward(((points - found.mean_) / found.scale_).astype(np.float32))
    np.testing.assert_allclose(found.predict(points), rates * targets.std(axis=0) + targets.mean(axis=0), rtol=1e-6)


def test_the_unit_of_a_target_does_not_matter(waves):
    """Powers of two change no bit of a mantissa."""
    points, targets = waves
    plain = SpikingRegressor((8,), epochs=2, random_state=0).fit(points, targets).predict(points)
    scaled = SpikingRegressor((8,), epochs=2, random_state=0).fit(points, targets * 2.0**40).predict(points)
    np.testing.assert_array_equal(scaled, plain * 2.0**40)


@pytest.mark.parametrize("value", [7.0, 0.1, 0.0, -1e9 / 3])
def test_a_constant_target_is_the_answer(waves, value):
    points, targets = waves
    both = np.column_stack([targets[:, 0], np.full(len(points), value)])
    found = SpikingRegressor((8,), epochs=20, random_state=0).fit(points, both)
    assert found.target_scale_[1] == 1
    np.testing.assert_allclose(found.predict(points)[:, 1], value, rtol=1e-6, atol=0.2)


@pytest.mark.parametrize("shape", [(900,), (900, 1)])
def test_answers_have_the_shape_of_the_targets(waves, shape):
    points, targets = waves
    given = targets[:, 0].reshape(shape)
    found = SpikingRegressor((8,), epochs=2, random_state=1)
    assert found.fit(points.tolist(), given.tolist()).predict(points[:5]).shape == (5, *shape[1:])
    assert found.predict(points).ravel().tolist() == found.fit(points, given).predict(points).ravel().tolist()
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict(points), found.predict(points))


def test_models_of_ones_own(waves):
    points, targets = waves

    def model(make_neuron, sample_shape, outputs):
        assert (sample_shape, outputs) == ((2,), 1)
        return dsr.Sequential(dsr.Linear(2, 16), dsr.BatchNorm(16), make_neuron(), only=dsr.Linear(16, outputs))

    found = SpikingRegressor(model=model, epochs=2, random_state=0).fit(points, targets[:, 0])
    assert "only.weight" in dict(found.network_.parameters())


GOOD = np.arange(12.0).reshape(6, 2)
REALS = [0.5, 1, 0, 1, 0, -1]


@pytest.mark.parametrize(
    ("options", "points", "targets", "words"),
    [
        ({}, GOOD[:, 0], REALS, r"fit: argument 'X': Expected 2D array, got 1D array instead: array"),
        ({}, np.where(GOOD == 5, np.nan, GOOD), REALS, "fit: argument 'X': Input X contains NaN"),
        ({}, GOOD, None, "fit: argument 'y': requires y"),
        ({}, GOOD, REALS[:5], r"fit: argument 'y': .*inconsistent numbers of samples: \[6, 5\]"),
        ({}, GOOD, [*REALS[:5], np.nan], "fit: argument 'y': Input y contains NaN"),
        ({}, GOOD, [*REALS[:5], np.inf], "fit: argument 'y': Input y contains infinity"),
        ({}, GOOD, [*REALS[:5], 1e300], r"fit: argument 'y': expected numbers up to 2\*\*126, got 1e\+300"),
        ({}, GOOD, ["a"] * 6, "fit: argument 'y': "),
        ({}, GOOD, [None] * 6, "fit: argument 'y': "),
        ({}, GOOD, np.ones(6) * 1j, "fit: argument 'y': Complex data not supported"),
        ({}, GOOD, 1.0, r"fit: argument 'y': expected shape \(samples,\) or \(samples, outputs\), got \(\)"),
        ({}, GOOD, np.ones((6, 2, 2)), "fit: argument 'y': Found array with dim 3"),
        ({}, GOOD, np.ones((6, 0)), "fit: argument 'y': "),
        ({"timesteps": 0}, GOOD, REALS, ": argument 'timesteps': expected an integer >= 1, got 0"),
        ({"neuron": "relu"}, GOOD, REALS, ": argument 'neuron': expected 'if' or 'lif', got 'relu'"),
        ({"hidden_layer_sizes": 8}, GOOD, REALS, ": argument 'hidden_layer_sizes': expected a sequence"),
        ({"random_state": -1}, GOOD, REALS, ": argument 'random_state': expected an integer >= 0"),
    ],
)
def test_mistakes_are_named(options, points, targets, words):
    with pytest.raises((TypeError, ValueError), match=rf"^SpikingRegressor\.?{words}"):
        SpikingRegressor(**options).fit(points, targets)


def test_what_is_predicted_has_to_fit():
    found = SpikingRegressor((2,), epochs=1, random_state=0)
    with pytest.raises(ValueError, match="This SpikingRegressor instance is not fitted yet"):
        found.predict(GOOD)
    found.fit(GOOD, REALS)
    with pytest.raises(ValueError, match="predict: argument 'X': X has 1 features, but SpikingRegressor"):
        found.predict(GOOD[:, :1])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@parametrize_with_checks([SpikingRegressor(epochs=15)])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_data_of_scikit_learn():
    from sklearn.base import clone, is_regressor
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import cross_val_score

    X, y = load_diabetes(return_X_y=True)
    found = SpikingRegressor(random_state=0)
    assert is_regressor(found) and clone(found).get_params() == found.get_params()
    # a table of 442 patients on which little beats a line
    spiking, line = (cross_val_score(model, X, y, cv=4).mean() for model in (found, LinearRegression()))
    assert 0.35 < spiking < line < 0.6
