"""Optimisers and schedules against their formulas."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

import dsr
from dsr.optim.schedule import cosine, triangular
from dsr.train import learning_rate, recipe


def parameter(value):
    result = dsr.Parameter(np.array(value))
    return result


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    p = parameter([1.0, -2.0])
    optimizer = dsr.SGD([("p", p)], 0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    value, buffer = np.array([1.0, -2.0]), None
    for step in range(5):
        grad = np.array([0.5, 0.25]) * (step + 1)
        p.grad = grad.astype(np.float32)
        optimizer.step()
        d = grad + 0.01 * value
        buffer = d if buffer is None else 0.9 * buffer + d
        value = value - 0.1 * (d + 0.9 * buffer if nesterov else buffer)
    np.testing.assert_allclose(p.value, value, rtol=1e-5)


def test_adam():
    p = parameter([1.0, -2.0])
    optimizer = dsr.Adam([("p", p)], 0.1, weight_decay=0.01)
    value, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(1, 6):
        grad = np.array([0.5, -0.25]) * step
        p.grad = grad.astype(np.float32)
        optimizer.step()
        d = grad + 0.01 * value
        m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d * d
        value = value - 0.1 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(p.value, value, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda p: dsr.SGD(p, 0.1, momentum=0.9), lambda p: dsr.Adam(p, 0.1)])
def test_state_carries_an_optimiser_on(make):
    def run(optimizer, p, steps):
        for step in steps:
            p.grad = np.float32([step + 1, -step])
            optimizer.step()

    whole, first = parameter([1.0, 2.0]), parameter([1.0, 2.0])
    run(make([("p", whole)]), whole, range(6))
    before = make([("p", first)])
    run(before, first, range(3))
    after = make([("p", first)])
    after.load_state(before.state())
    run(after, first, range(3, 6))
    np.testing.assert_array_equal(whole.value, first.value)


def test_optimisers_refuse_states_that_do_not_fit():
    optimizer = dsr.SGD([("p", parameter([1.0, 2.0]))], 0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"SGD.load_state: 'momentum.q'"):
        optimizer.load_state({"momentum.q": np.zeros(2)})
    with pytest.raises(ValueError, match="SGD: argument 'momentum'"):
        dsr.SGD([], 0.1, momentum=1.5)


def test_cosine_with_warm_up():
    def rate(step):
        return cosine(Fraction(step, 10), base=2.0, epochs=4, step=step, warmup_steps=5)

    assert rate(0) == pytest.approx(0.4)
    assert rate(9) == pytest.approx(2.0)
    assert rate(20) == pytest.approx(1.0)
    assert rate(39) == pytest.approx(2.0 * (1 + np.cos(0.75 * np.pi)) / 2)


def test_triangle():
    """The definition in steps, to the bit: 40 steps, of which 15 are the warm-up."""
    for step in range(41):
        rate = triangular(
            Fraction(step, 10), base=0.12, epochs=4, step=step, warmup_steps=15, warmup_epochs=Fraction(15, 10)
        )
        assert rate == 0.12 * min((step + 1) / 15, (40 - step) / 25, 1.0), step


def test_a_triangle_of_warm_up_alone():
    rates = [triangular(s / 10, base=1.0, epochs=1, step=s, warmup_steps=20, warmup_epochs=2) for s in range(10)]
    assert rates == [(s + 1) / 20 for s in range(10)]


@pytest.mark.parametrize("schedule", ["cosine", "triangular"])
@pytest.mark.parametrize("steps", [7, 23])
def test_a_schedule_goes_on_where_it_was_with_other_steps_per_epoch(schedule, steps):
    """10 epochs of 20 steps; after 60 % they have other steps: the rate falls on, and ends near zero."""
    chosen = recipe.load("digits", [f"schedule={schedule}", "epochs=10", "warmup_steps=30", "learning_rate=0.1"])
    before = [learning_rate(chosen, Fraction(s, 20), s, Fraction(30, 20)) for s in range(120)]
    after = [learning_rate(chosen, 6 + Fraction(s, steps), 120 + s, Fraction(30, 20)) for s in range(4 * steps)]
    top = before.index(max(before))
    assert max(before) == 0.1 * (1.0 if schedule == "triangular" else (1 + np.cos(0.1 * np.pi)) / 2)
    assert all(a >= b for a, b in pairwise([*before[top:], *after]))
    assert after[0] == learning_rate(chosen, Fraction(120, 20), 120, Fraction(30, 20))
    assert 0 < after[-1] < 0.003


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "1", Fraction(-1, 3)])
def test_schedules_refuse_positions_that_are_none(wrong):
    for schedule in (cosine, triangular):
        with pytest.raises(
            (TypeError, ValueError), match=f"{schedule.__name__}: argument 'epoch': expected a number >= 0"
        ):
            schedule(wrong, base=1.0, epochs=3)
