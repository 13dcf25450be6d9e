"""SpikingClassifier learns, is reproducible, and passes scikit-learn's checks of an estimator."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import warnings
from datetime import date

import numpy as np
import pytest

import dsr
from dsr import data, models
from dsr.nn.registry import SPIKING

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from dsr.sklearn.classifier import SpikingClassifier


@pytest.fixture(scope="module")
def digits():
    """Handwritten digits as vectors of 64 pixels."""
    found = data.load("digits")
    return [part for samples in (found.train, found.test) for part in (samples.arrays.reshape(-1, 64), samples.labels)]


@pytest.fixture(scope="module")
def clouds():
    """Two overlapping clouds of points."""
    rng = np.random.default_rng(3)
    labels = np.arange(120) % 2
    return rng.normal(size=(120, 3)) + 2.0 * labels[:, None], labels


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_it_learns_digits(digits, neuron):
    images, labels, test_images, test_labels = digits
    found = SpikingClassifier(neuron=neuron, epochs=10, random_state=0).fit(images, labels)
    assert found.score(test_images, test_labels) > 0.95
    assert len(found.loss_curve_) == 10 and found.loss_curve_[-1] < 0.2 < found.loss_curve_[0]
    rates = dsr.spike_rates(found.network_, ((images - found.mean_) / found.scale_).astype(np.float32))
    assert all(0 < rate < 1 for rate in rates.values()) and len(rates) == 2


def test_networks_of_ones_own(digits):
    images, labels, test_images, test_labels = digits
    shaped = SpikingClassifier(model=models.digits, sample_shape=(1, 8, 8), epochs=3, random_state=0)
    shaped.fit(images[:600], labels[:600])
    assert shaped.score(test_images, test_labels) > 0.9
    assert "conv2.weight" in dict(shaped.network_.parameters())


@pytest.mark.parametrize(
    "names",
    [["cat", "dog"], [-3, 7], [False, True], [2.0, 5.0], [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")]],
)
def test_labels_of_any_kind(clouds, names):
    points, codes = clouds
    labels = np.array(names)[codes]
    found = SpikingClassifier((8,), epochs=10, random_state=0).fit(points.tolist(), labels)
    assert found.classes_.tolist() == sorted(labels.tolist()[:2])
    predicted = found.predict(points)
    assert set(predicted.tolist()) == set(labels.tolist())
    assert found.score(points, labels) == (predicted == labels).mean() > 0.9
    weights = np.where(codes == 0, 1.0, 0.0)
    assert found.score(points, labels, weights) == (predicted == labels)[codes == 0].mean()
    if labels.dtype.kind != "M":  # of lists and objects, scikit-learn takes no dates
        for given in (labels.tolist(), labels.astype(object), labels[:, None].tolist()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataConversionWarning)
                again = SpikingClassifier((8,), epochs=10, random_state=0).fit(points, given)
            np.testing.assert_array_equal(again.predict(points), predicted)


def test_probabilities_are_the_softmax_of_rates(clouds):
    points, codes = clouds
    found = SpikingClassifier((8,), epochs=3, timesteps=4, random_state=0).fit(points, codes)
    np.testing.assert_allclose(found.mean_, points.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.scale_, points.std(axis=0), rtol=1e-12)
    rates = found.network_.forward(((points - found.mean_) / found.scale_).astype(np.float32))
    wanted = np.exp(rates.astype(np.float64))
    wanted /= wanted.sum(axis=1, keepdims=True)
    got = found.predict_proba(points)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    np.testing.assert_array_equal(found.predict(points), got.argmax(axis=1))


def test_the_unit_of_a_feature_does_not_matter(clouds):
    """Powers of two change no bit of a mantissa; a feature that never changes tells nothing."""
    points, codes = clouds
    units = np.array([2.0**-40, 1.0, 2.0**40])
    plain = SpikingClassifier((8,), epochs=2, random_state=0).fit(points, codes)
    scaled = SpikingClassifier((8,), epochs=2, random_state=0).fit(points * units, codes)
    np.testing.assert_array_equal(plain.predict_proba(points), scaled.predict_proba(points * units))
    constant = np.column_stack([points, np.full(len(points), 7.0)])
    found = SpikingClassifier((8,), epochs=10, random_state=0).fit(constant, codes)
    assert found.scale_[3] == 1 and found.score(constant, codes) > 0.9


def noise(points, size):
    return size * np.random.default_rng(5).normal(size=len(points))


ROUNDED = [
    lambda points: np.full(len(points), 0.1),
    lambda points: np.full(len(points), 1.7e9 + 1 / 3),
    lambda points: np.full(len(points), -1e-12 / 3),
    lambda points: np.where(points[:, 0] > 0, 0.1 + 0.2, 0.3),
    lambda points: (points / points.sum(axis=1, keepdims=True)).sum(axis=1),
    lambda points: np.zeros(len(points)),
]
ROUNDED32 = [
    lambda points: np.float32(0.1) * points[:, 0].astype(np.float32) / points[:, 0].astype(np.float32),
    lambda points: np.where(points[:, 0] > 0, 3e5, np.nextafter(np.float32(3e5), np.float32(0))),
]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [*((c, d) for c in ROUNDED for d in (np.float32, np.float64)), *((c, np.float32) for c in ROUNDED32)],
)
def test_a_column_that_is_constant_up_to_rounding_changes_nothing(clouds, column, dtype):
    """Neither its rounding, nor that of the test data, nor another value in the test data."""
    points, codes = clouds
    table = np.column_stack([points, column(points)]).astype(dtype)
    found = SpikingClassifier((8,), epochs=5, random_state=0).fit(table, codes)
    assert found.scale_[3] == 1 and found.mean_[3] == pytest.approx(table[:, 3].mean(dtype=float), rel=1e-12)
    np.testing.assert_array_equal(found.predict(table.astype(np.float64)), found.predict(table.astype(np.float32)))
    table[:, 3] += 100
    np.testing.assert_array_equal(found.predict(table), found.predict(np.column_stack([table[:, :3], column(points)])))


@pytest.mark.parametrize(
    ("column", "dtype", "scale"),
    [
        (lambda x: 1e-12 * x, np.float64, 1e-12),
        (lambda x: 1e-100 * x, np.float64, 1e-100),
        (lambda x: 1e6 + 1e-3 * x, np.float64, 1e-3),
        (lambda x: 1e-12 * x, np.float32, 1e-12),
        (lambda x: 1000 + 1e-2 * x, np.float32, 1e-2),
        (lambda x: 100 + 2.0 * np.sign(x), np.float16, 2.0),
        (lambda x: (1 << 50) + 1000 * np.rint(3 * x).astype(np.int64), np.int64, 3000),
    ],
)
def test_small_columns_and_those_with_little_variation_count(clouds, column, dtype, scale):
    _, codes = clouds
    only = column(np.random.default_rng(0).normal(size=120) / 4 + 2.0 * codes - 1).astype(dtype)[:, None]
    found = SpikingClassifier((8,), epochs=20, random_state=0).fit(only, codes)
    assert 0.8 * scale < found.scale_[0] < 1.3 * scale
    assert found.score(only, codes) > 0.95


def test_a_seed_decides_everything(clouds):
    points, codes = clouds

    def probabilities(random_state):
        return SpikingClassifier((8,), epochs=2, random_state=random_state).fit(points, codes).predict_proba(points)

    first = probabilities(5)
    np.testing.assert_array_equal(first, probabilities(5))
    np.testing.assert_array_equal(first, probabilities(np.int64(5)))
    np.testing.assert_array_equal(first, probabilities(np.random.default_rng(5)))
    np.testing.assert_array_equal(probabilities(np.random.RandomState(5)), probabilities(np.random.RandomState(5)))
    for other in (6, None, np.random.RandomState(5)):
        assert (first != probabilities(other)).any()


@pytest.mark.parametrize(("count", "batch_size"), [(2, 32), (3, 1), (33, 32), (65, 32)])
def test_no_batch_has_a_single_sample(clouds, monkeypatch, count, batch_size):
    points, codes = clouds
    seen = []
    monkeypatch.setattr(
        "dsr.sklearn.classifier.cross_entropy", lambda rates, y: seen.append(len(y)) or dsr.cross_entropy(rates, y)
    )
    SpikingClassifier((4,), epochs=1, batch_size=batch_size, random_state=0).fit(points[:count], codes[:count])
    assert sum(seen) == count and min(seen) >= 2 and max(seen) <= max(batch_size, 3)


def test_parameters(clouds):
    points, codes = clouds
    found = SpikingClassifier((8,), neuron="lif", random_state=1)
    assert repr(found) == "SpikingClassifier(hidden_layer_sizes=(8,), neuron='lif', random_state=1)"
    assert found.set_params(timesteps=3, epochs=2) is found
    assert (found.get_params()["timesteps"], found.get_params()["alpha"]) == (3, 0.5)
    with pytest.raises(ValueError, match=r"Invalid parameter 'time_steps' for estimator SpikingClassifier"):
        found.set_params(time_steps=3)
    assert found.fit(points, codes).network_.timesteps == 3
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict_proba(points), found.predict_proba(points))


GOOD = np.arange(12.0).reshape(6, 2)
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "points", "labels", "error", "words"),
    [
        ({}, GOOD[:, 0], LABELS, ValueError, r"'X': Expected 2D array, got 1D array instead: array"),
        ({}, GOOD[:0], [], ValueError, r"'X': Found array with 0 sample\(s\) .* minimum of 2"),
        ({}, GOOD[:, :0], LABELS, ValueError, r"'X': Found array with 0 feature\(s\)"),
        ({}, np.where(GOOD == 5, np.nan, GOOD), LABELS, ValueError, "'X': Input X contains NaN"),
        ({}, GOOD * 1e300, LABELS, ValueError, "squares are finite"),
        ({}, GOOD * 1j, LABELS, ValueError, "Complex data not supported"),
        (
            {},
            [["a", "b"]] * 6,
            LABELS,
            ValueError,
            "'X': dtype='numeric' is not compatible with arrays of bytes/strings",
        ),
        ({}, np.array([["a", 1]] * 6, object), LABELS, ValueError, "'X': could not convert string to float: 'a'"),
        (
            {},
            GOOD,
            LABELS[:5],
            ValueError,
            r"'y': Found input variables with inconsistent numbers of samples: \[6, 5\]",
        ),
        ({}, GOOD, [1] * 6, ValueError, "at least 2 classes, got 1 class"),
        ({}, GOOD, None, ValueError, "'y': requires y"),
        (
            {},
            GOOD,
            np.array(["a", 1] * 3, object),
            ValueError,
            "'y': expected labels that are all .*, got number, str$",
        ),
        ({}, GOOD, ["a", 1] * 3, ValueError, "'y': expected labels that are all .*, got number, str$"),
        ({}, GOOD, ["a", None] * 3, ValueError, "'y': expected labels that are all .*, got NoneType, str$"),
        ({}, GOOD, np.array([1, None] * 3, object), ValueError, "got NoneType, number$"),
        ({}, GOOD, ["a", np.nan] * 3, ValueError, "'y': expected labels that are all .*, got NaN, str$"),
        ({}, GOOD, [1, np.nan] * 3, ValueError, "'y': expected labels that are all .*, got NaN, number$"),
        ({}, GOOD, [date(2020, 1, 1), date(2021, 1, 1)] * 3, ValueError, "got date$"),
        ({}, GOOD, np.eye(2)[LABELS], ValueError, r"'y': y should be a 1d array, got an array of shape \(6, 2\)"),
        ({}, GOOD, [0.5, 1, 0, 1, 0, 1], ValueError, "'y': Unknown label type: continuous"),
        ({}, GOOD, [np.inf, 1, 0, 1, 0, 1], ValueError, "'y': Input y contains infinity"),
        ({"timesteps": 0}, GOOD, LABELS, ValueError, "'timesteps': expected an integer >= 1, got 0"),
        ({"epochs": 2.5}, GOOD, LABELS, ValueError, "'epochs': expected an integer >= 1, got 2.5"),
        ({"batch_size": True}, GOOD, LABELS, ValueError, "'batch_size'"),
        ({"neuron": "IF"}, GOOD, LABELS, ValueError, f"'neuron': expected {' or '.join(map(repr, SPIKING))}, got 'IF'"),
        ({"hidden_layer_sizes": 8}, GOOD, LABELS, ValueError, "'hidden_layer_sizes': expected a sequence"),
        ({"hidden_layer_sizes": (2.5,)}, GOOD, LABELS, ValueError, "'hidden_layer_sizes': expected a sequence"),
        ({"sample_shape": (1, 3, 1)}, GOOD, LABELS, ValueError, r"'sample_shape': .* of 2 numbers, got \(1, 3, 1\)"),
        ({"sample_shape": (1, 2)}, GOOD, LABELS, ValueError, "'sample_shape': "),
        ({"random_state": -1}, GOOD, LABELS, ValueError, "'random_state': expected an integer >= 0"),
        ({"v_threshold": 0.0}, GOOD, LABELS, ValueError, "IF: argument 'v_threshold'"),
        ({"learning_rate": -1.0}, GOOD, LABELS, ValueError, "SGD: argument 'learning_rate'"),
    ],
)
def test_mistakes_are_named(options, points, labels, error, words):
    with pytest.raises(error, match=words):
        SpikingClassifier(**options).fit(points, labels)


def test_what_is_predicted_has_to_fit():
    found = SpikingClassifier((2,), epochs=1, random_state=0)
    with pytest.raises(ValueError, match="This SpikingClassifier instance is not fitted yet"):
        found.predict(GOOD)
    found.fit(GOOD, LABELS)
    with pytest.raises(ValueError, match="X has 1 features, but SpikingClassifier is expecting 2 features"):
        found.predict(GOOD[:, :1])
    with pytest.raises(ValueError, match="predict_proba: argument 'X': expected numbers like those of fit"):
        found.predict_proba(GOOD * 1e60)
    with pytest.raises(ValueError, match="fit: argument 'X'"):
        found.fit(GOOD * 1e300, LABELS)
    with pytest.raises(ValueError, match="not fitted yet"):
        found.score(GOOD, LABELS)  # a fit that failed is none


def test_columns_of_data_frames_have_names():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(GOOD, columns=["height", "width"])
    found = SpikingClassifier((2,), epochs=1, random_state=0).fit(table, LABELS)
    assert found.feature_names_in_.tolist() == ["height", "width"]
    with pytest.raises(ValueError, match=r"predict: argument 'X': .* should match those that were passed during fit"):
        found.predict(table[["width", "height"]])
    assert not hasattr(found.fit(GOOD, LABELS), "feature_names_in_")


def test_scikit_learn_is_imported_on_use_only():
    """And its absence is an error that says what to install."""
    program = """
import sys
import dsr
from dsr import *
print("sklearn" in sys.modules)
if sys.argv[1] == "absent":
    sys.modules["sklearn"] = None
try:
    print(dsr.SpikingClassifier.__name__)
except ImportError as error:
    print(error)
"""
    for how, last in (
        ("absent", r"dsr\.SpikingClassifier and dsr\.SpikingRegressor need .*: pip install dsr\[sklearn\]"),
        ("there", "Spiking.*"),
    ):
        done = subprocess.run([sys.executable, "-P", "-c", program, how], capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        assert first == "False" and re.match(last, second)


# ---------------------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@parametrize_with_checks([SpikingClassifier(epochs=15)])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_the_digits_of_scikit_learn():
    from sklearn.base import clone, is_classifier
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = load_digits(return_X_y=True)
    found = SpikingClassifier(epochs=8, random_state=0)
    assert is_classifier(found) and clone(found).get_params() == found.get_params()
    assert cross_val_score(found, images, labels, cv=3).min() > 0.9
    search = GridSearchCV(make_pipeline(StandardScaler(), clone(found)), {"spikingclassifier__timesteps": [1, 5]}, cv=2)
    search.fit(images[:400], labels[:400])
    assert search.best_score_ > 0.8
    with pytest.raises(NotFittedError):
        clone(found).predict(images)
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        found.fit(images[:50], labels[:50, None])
    with pytest.raises(TypeError, match="argument 'X': Sparse data was passed"):
        found.fit(pytest.importorskip("scipy.sparse").csr_matrix(images), labels)
