"""The step of stochastic gradient descent, as the extension makes it, against the oracle bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from checks import assert_same
from ops_table import floats

from dsr import _core, reference

# around the 16 lanes of a vector and the chunk of 2**14
SIZES = [0, 1, 15, 16, 17, 16383, 16384, 16385, 50000]


def check(size, momentum, weight_decay, nesterov, first, rng):
    value, grad, buffer = (floats(rng, size) for _ in range(3))
    hyper = 0.1, momentum, weight_decay, nesterov
    expected = reference.sgd_update(value, grad, None if first else buffer, *hyper)
    _core.sgd_update(value, grad, buffer, *hyper, first)
    assert_same(value, expected[0])
    assert_same(buffer, expected[1])


@pytest.mark.parametrize("size", SIZES)
def test_parity(size, rng):
    for momentum, weight_decay, nesterov, first in itertools.product((0.0, 0.9), (0.0, 5e-4), (0, 1), (0, 1)):
        check(size, momentum, weight_decay, nesterov, first, rng)


def test_threads(threads, rng):
    check(100_003, 0.9, 5e-4, 1, 0, rng)


def test_first_step_does_not_read_the_buffer(rng):
    """Memory that was never written may hold NaN."""
    value, grad, buffer = floats(rng, 40), floats(rng, 40), np.full(40, np.nan, np.float32)
    _core.sgd_update(value, grad, buffer, 0.1, 0.9, 0.0, 0, 1)
    assert_same(buffer, grad)
    assert np.isfinite(value).all()
