"""dsr.ops.exponential.exp beside the exponential in integers of 1,600 bits."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from dsr import functional, ops, reference
from dsr.nn.spikes import decaying_weights
from dsr.ops.exponential import exp

BITS = 1600


def nearest(x: float) -> float:
    """The float64 nearest to e**x, x in [-1000, 10]: the series of x / 2**12 in fixed point, squared 12 times."""
    numerator, denominator = x.as_integer_ratio()
    small = (numerator << (BITS - 12)) // denominator
    total = term = 1 << BITS
    count = 0
    while term not in (0, -1):  # towards -infinity, negative terms end at -1
        count += 1
        term = (term * small >> BITS) // count
        total += term
    for _ in range(12):
        total = total * total >> BITS
    return total / (1 << BITS)  # Python divides integers to the nearest float64


def test_the_nearest_float():
    rng = random.Random(7)
    values = [
        0.0,
        -0.0,
        -5e-324,
        -1e-300,
        -(2.0**-54),
        -(2.0**-53),
        -1.0,
        1.0,
        -0.5,
        -20.0,
        -708.5,
        -744.4,
        -745.2,
        -999.0,
    ]
    values += [-rng.random() * 10 ** rng.randint(-8, 2) for _ in range(150)]
    values += [-step / tau * t for step in (1.0, 0.05, 0.3) for tau in (1.0, 2.0, 5.0, 30.0) for t in range(10)]
    wrong = [x for x in values if exp(x) != nearest(x)]
    assert wrong == []


# where glibc 2.36 gives the float beside it; of 60,000 numbers in [-10, 0] there are 51
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ("-0x1.9437574f89ef9p+0", "0x1.a6459ed0f67a0p-3"),
        ("-0x1.7a356aac6d766p+1", "0x1.aabb9cc7274d2p-5"),
        ("-0x1.b431922168688p+0", "0x1.74afbec06444cp-3"),
        ("-0x1.ec34aa05c448ap+2", "0x1.df40d79b06d10p-12"),
    ],
)
def test_where_platforms_differ(x, expected):
    assert exp(float.fromhex(x)) == nearest(float.fromhex(x)) == float.fromhex(expected)


def test_beyond_the_range():
    assert exp(-1e4) == exp(-1e308) == exp(-math.inf) == 0.0
    assert math.isnan(exp(math.nan))


def test_neurons_take_it(monkeypatch):
    """Leaks and weights are made of it, not of the platform's."""

    def refuse(*_):
        raise AssertionError("the exponential of the platform")

    monkeypatch.setattr(math, "exp", refuse)
    monkeypatch.setattr(np, "exp", refuse)
    tau, delta_t, steps = 3.7, 0.3, 5
    weights = np.array([nearest(-(delta_t / tau) * (steps - 1 - t)) for t in range(steps)])
    assert ops.lif_model(1.0, tau, delta_t, dtype=np.float64).decay == nearest(-delta_t / tau)
    assert reference.lif_neuron(np.float64, 1.0, tau, delta_t).decay == nearest(-delta_t / tau)
    scaled = (steps * weights / weights.sum()).astype(np.float32)
    assert decaying_weights(steps, tau, delta_t).tolist() == scaled.tolist()
    train = np.eye(steps)
    rates = functional.weighted_firing_rate(train, tau=tau, delta_t=delta_t)
    assert rates.tolist() == (weights / np.add.accumulate(weights)[-1]).tolist()
