"""Samples and data sets: labels are checked where samples are made, and at each place that compares with them."""

from __future__ import annotations

import numpy as np
import pytest

import dsr
from dsr import inspect, train
from dsr.data import ArraySamples, DataSet, Samples

LABELS = np.array([0, 1, 2, 1, 0, 2])
WRONG = {
    "a column": (LABELS[:, np.newaxis], r"got int64 of shape \(6, 1\); \.reshape\(-1\)"),
    "one-hot": (np.eye(3, dtype=int)[LABELS], r"got int64 of shape \(6, 3\); \.argmax\(axis=1\)"),
    "fractions": (LABELS + 0.9, r"got float64 of shape \(6,\)$"),
    "whole floats": (LABELS.astype(np.float32), r"got float32 of shape \(6,\); \.astype\(int\)"),
    "not a number": (np.where(LABELS == 2, np.nan, LABELS), r"got float64 of shape \(6,\)$"),
    "flags": (LABELS == 1, r"got bool of shape \(6,\)"),
    "negative": (LABELS - 1, r"expected classes 0 to \d+, got -1 to 1"),
    "too few": (LABELS[:5], r"expected 6 integers, one per sample, got int64 of shape \(5,\)"),
    "a scalar": (np.array(3), r"got int64 of shape \(\)"),
    "names": (LABELS.astype(str), "expected real numbers, got dtype"),
}


class OwnSamples(Samples):
    """Samples of a user, whose labels nobody has checked."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 6

    def batch(self, numbers, draws=None):
        return np.zeros((len(numbers), 1, 2, 2), np.float32)


def network():
    body = dsr.Sequential(dsr.Flatten(), dsr.Linear(4, 3), dsr.IF(1.0))
    return dsr.Network(body, timesteps=2)


ENTRIES = {
    "ArraySamples: argument 'labels'": lambda y: ArraySamples(np.zeros((6, 1, 2, 2), np.float32), y),
    "DataSet: argument 'train.labels'": lambda y: DataSet("own", "abc", (1, 2, 2), OwnSamples(y), OwnSamples(LABELS)),
    "DataSet: argument 'test.labels'": lambda y: DataSet("own", "abc", (1, 2, 2), OwnSamples(LABELS), OwnSamples(y)),
    "accuracy: argument 'samples.labels'": lambda y: train.accuracy(network(), OwnSamples(y)),
    "cross_entropy: argument 'labels'": lambda y: dsr.cross_entropy(np.zeros((6, 3)), y),
    "measure: argument 'labels'": lambda y: inspect.measure(network(), np.zeros((6, 1, 2, 2)), y),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("entry", ENTRIES)
def test_labels_that_are_not_a_class_number_per_sample(entry, wrong):
    labels, words = WRONG[wrong]
    with pytest.raises((TypeError, ValueError), match=f"^{entry}: .*{words}"):
        ENTRIES[entry](labels)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "ArraySamples" not in entry])
def test_labels_beyond_the_classes(entry):
    with pytest.raises(ValueError, match=f"^{entry}: expected classes 0 to 2, got 0 to 3"):
        ENTRIES[entry](np.array([0, 1, 2, 3, 0, 1]))


@pytest.mark.parametrize(
    "labels", [LABELS, LABELS.tolist(), LABELS.astype(">u2"), LABELS[::-1], LABELS.astype(np.int8)]
)
def test_any_integers_are_labels(labels):
    for entry in ENTRIES.values():
        entry(labels)
    samples = ArraySamples(np.zeros((6, 2)), labels)
    assert samples.labels.dtype == np.int64
    np.testing.assert_array_equal(samples.labels, np.asarray(labels))


def test_no_samples_have_no_labels():
    assert len(ArraySamples(np.zeros((0, 2)), [])) == 0


@pytest.mark.parametrize("name", ["1.weight", "1.bias", "2.v_threshold"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_have_no_accuracy(name, value):
    """Comparisons with NaN are false, so its neurons are silent, and the first class would win."""
    net = network()
    dict(net.arrays())[name].reshape(-1)[0] = value
    with pytest.raises(FloatingPointError, match=rf"accuracy: 1 of \d+ numbers of {name} are not finite"):
        train.accuracy(net, OwnSamples(LABELS))


def test_outputs_that_are_not_finite_have_no_accuracy():
    net = dsr.Network(dsr.Sequential(flatten=dsr.Flatten(), head=dsr.Linear(4, 3)), timesteps=2)
    samples = ArraySamples(np.full((6, 1, 2, 2), np.float32(1e38)), LABELS)
    dict(net.arrays())["head.weight"][...] = 2
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="not finite; layer head is the first"):
        train.accuracy(net, samples)
