"""SpikingClassifier: learns, is exact where it can be, and is an estimator to scikit-learn without needing it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import dsr
from dsr import data, models
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
    found = SpikingClassifier((8,), epochs=10, random_state=0).fit(points.tolist(), labels.tolist())
    assert found.classes_.tolist() == sorted(labels.tolist()[:2])
    predicted = found.predict(points)
    assert set(predicted.tolist()) == set(labels.tolist())
    assert found.score(points, labels) == (predicted == np.asarray(labels.tolist())).mean() > 0.9
    weights = np.where(codes == 0, 1.0, 0.0)
    assert found.score(points, labels, weights) == (predicted == np.asarray(labels.tolist()))[codes == 0].mean()


def test_probabilities_are_the_softmax_of_rates(clouds):
    points, codes = clouds
    found = SpikingClassifier((8,), epochs=3, timesteps=4, random_state=0).fit(points, codes)
    np.testing.assert_allclose(found.mean_, points.mean(axis=0))
    np.testing.assert_allclose(found.scale_, points.std(axis=0))
    rates = found.network_.forward(((points - points.mean(axis=0)) / points.std(axis=0)).astype(np.float32))
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
    with pytest.raises(ValueError, match=r"set_params: expected one of hidden_layer_sizes, .*, got 'time_steps'"):
        found.set_params(time_steps=3)
    assert found.fit(points, codes).network_.timesteps == 3
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.predict_proba(points), found.predict_proba(points))


GOOD = np.arange(12.0).reshape(6, 2)
LABELS = [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("options", "points", "labels", "error", "words"),
    [
        ({}, GOOD[:, 0], LABELS, ValueError, r"'X': expected shape \(samples, features\), got \(6,\)\. Reshape"),
        ({}, GOOD[:0], [], ValueError, "at least 2 samples, got 0"),
        ({}, GOOD[:, :0], LABELS, ValueError, "0 feature"),
        ({}, np.where(GOOD == 5, np.nan, GOOD), LABELS, ValueError, "expected finite numbers, got NaN or inf"),
        ({}, GOOD * 1e300, LABELS, ValueError, "squares are finite"),
        ({}, GOOD * 1j, LABELS, ValueError, "Complex data not supported"),
        ({}, [["a", "b"]] * 6, LABELS, ValueError, "'X': expected real numbers: could not convert string"),
        ({}, GOOD, LABELS[:5], ValueError, r"'y': expected a label a sample, shape \(6,\), got \(5,\)"),
        ({}, GOOD, [1] * 6, ValueError, "at least 2 classes, got 1 class"),
        ({}, GOOD, None, ValueError, "requires y"),
        ({}, GOOD, [0.5, 1, 0, 1, 0, 1], ValueError, "Unknown label type: .* not whole"),
        ({}, GOOD, [np.inf, 1, 0, 1, 0, 1], ValueError, "'y': Input contains NaN or infinity"),
        ({"timesteps": 0}, GOOD, LABELS, ValueError, "'timesteps': expected an integer >= 1, got 0"),
        ({"epochs": 2.5}, GOOD, LABELS, ValueError, "'epochs': expected an integer >= 1, got 2.5"),
        ({"batch_size": True}, GOOD, LABELS, ValueError, "'batch_size'"),
        ({"neuron": "IF"}, GOOD, LABELS, ValueError, "'neuron': expected 'if' or 'lif', got 'IF'"),
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
    with pytest.raises(ValueError, match="predict: expected a call of fit before it"):
        found.predict(GOOD)
    found.fit(GOOD, LABELS)
    with pytest.raises(ValueError, match="X has 1 features, but SpikingClassifier is expecting 2 features"):
        found.predict(GOOD[:, :1])
    with pytest.raises(ValueError, match="predict_proba: argument 'X': a number is too far"):
        found.predict_proba(GOOD * 1e60)
    with pytest.raises(ValueError, match="fit: argument 'X'"):
        found.fit(GOOD * 1e300, LABELS)
    with pytest.raises(ValueError, match="score: expected a call of fit"):
        found.score(GOOD, LABELS)  # a fit that failed is none


class Table:
    """A data frame, as far as columns."""

    def __init__(self, columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.array(GOOD, dtype)


def test_columns_of_tables_have_names():
    found = SpikingClassifier((2,), epochs=1, random_state=0).fit(Table(["height", "width"]), LABELS)
    assert found.feature_names_in_.tolist() == ["height", "width"]
    np.testing.assert_array_equal(found.predict(Table(["height", "width"])), found.predict(GOOD))
    with pytest.raises(ValueError, match="expected the columns height, width, got width, height"):
        found.predict(Table(["width", "height"]))
    assert not hasattr(found.fit(GOOD, LABELS), "feature_names_in_")
    assert not hasattr(found.fit(Table([0, 1]), LABELS), "feature_names_in_")


def test_scikit_learn_is_not_needed():
    """Where it cannot be imported, and without importing it where it can."""
    program = """
import sys
if sys.argv[1] == "blocked":
    sys.modules["sklearn"] = None
import numpy as np
from dsr.sklearn.classifier import SpikingClassifier
X, y = np.arange(12.0).reshape(6, 2), [0, 1, 0, 1, 0, 1]
try:
    SpikingClassifier().predict(X)
except ValueError as error:
    assert type(error) is ValueError
print(SpikingClassifier((2,), epochs=1).fit(X, y).score(X, y) >= 0, sys.modules.get("sklearn"))
"""
    for how in ("blocked", "free"):
        done = subprocess.run([sys.executable, "-P", "-c", program, how], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True", "None"]


# ---------------------------------------------------------------------------------------------------- scikit-learn


@pytest.fixture(scope="module")
def sklearn():
    return pytest.importorskip("sklearn", reason="scikit-learn is not installed")


def test_the_checks_of_scikit_learn(sklearn):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    with warnings.catch_warnings():
        # that it does not inherit from their base class, as documented
        warnings.filterwarnings("ignore", "Estimator SpikingClassifier does not inherit", UserWarning)
        # of their own
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        results = checks.check_estimator(SpikingClassifier(epochs=15), on_skip=None)
    passed = [result["check_name"] for result in results if result["status"] == "passed"]
    assert len(passed) > 40 and "check_classifiers_train" in passed


def test_the_digits_of_scikit_learn(sklearn):
    from sklearn.base import clone, is_classifier
    from sklearn.datasets import load_digits
    from sklearn.exceptions import NotFittedError
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
    with pytest.warns(sklearn.exceptions.DataConversionWarning, match="A column-vector y was passed"):
        found.fit(images[:50], labels[:50, None])
    with pytest.raises(TypeError, match="sparse"):
        found.fit(pytest.importorskip("scipy.sparse").csr_matrix(images), labels)
