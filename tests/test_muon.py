"""Muon against its formula and against singular values."""

import numpy as np
import pytest

import dsr
from dsr import _core
from dsr.optim.muon import orthogonalised


def iterate(matrix, iterations=5):
    """Newton-Schulz in float64, as the docstring has it."""
    x = matrix.astype(np.float64)
    x = (x if len(x) <= x.shape[1] else x.T) / np.linalg.norm(x)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if len(matrix) <= matrix.shape[1] else x.T


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 7), (40, 40), (64, 300)])
def test_orthogonalised(shape, rng):
    matrix = rng.normal(size=shape).astype(np.float32)
    result = orthogonalised(matrix)
    np.testing.assert_allclose(result, iterate(matrix), atol=1e-4)
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    turned = left.T @ result @ right.T
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4)
    large = values > 0.01 * np.linalg.norm(values)
    assert ((np.diag(turned)[large] > 0.6) & (np.diag(turned)[large] < 1.25)).all()


@pytest.mark.parametrize(
    "spectrum", [np.logspace(0, -6, 48), np.repeat([1.0, 0.0], 24)], ids=["six decades", "half rank"]
)
def test_small_singular_values_keep_their_place(spectrum, rng):
    """The iterations see squares of singular values: what is lost in small ones stays below a thousandth."""
    left, _, right = np.linalg.svd(rng.normal(size=(48, 400)), full_matrices=False)
    matrix = (left * spectrum @ right).astype(np.float32)
    assert np.linalg.norm(orthogonalised(matrix) - iterate(matrix), 2) < 2e-3


def test_a_gradient_of_zeros_moves_nothing():
    assert not orthogonalised(np.zeros((3, 5), np.float32)).any()


@pytest.mark.parametrize("shape", [(6, 2, 3, 3), (40, 2, 3, 3)])
def test_steps(shape, rng):
    """Five steps of a convolution's weight and of a bias, against the formulas in float64."""
    weight = dsr.Parameter(rng.normal(size=shape))
    bias = dsr.Parameter(rng.normal(size=shape[0]))
    bias.rate = 8.0
    optimizer = dsr.Muon([("weight", weight), ("bias", bias)], 0.1, 0.9, 0.02)
    value, buffer = weight.value.astype(np.float64), np.zeros(shape)
    other, moved = bias.value.astype(np.float64), None
    for _ in range(5):
        weight.grad, bias.grad = (rng.normal(size=p.value.shape).astype(np.float32) for p in (weight, bias))
        optimizer.step()
        buffer = 0.9 * buffer + 0.1 * weight.grad
        direction = iterate((0.9 * buffer + 0.1 * weight.grad).reshape(shape[0], -1)).reshape(shape)
        value = value * (1 - 0.1 * 0.02) - 0.1 * max(1.0, shape[0] / 18) ** 0.5 * direction
        moved = bias.grad.astype(np.float64) if moved is None else 0.9 * moved + bias.grad
        other = other - 0.1 * 8 * (bias.grad + 0.9 * moved)
    np.testing.assert_allclose(weight.value, value, atol=1e-4)
    np.testing.assert_allclose(bias.value, other, rtol=1e-5, atol=1e-5)


def test_state_and_threads(rng):
    """The same bits for any number of threads, and after the state was loaded elsewhere."""
    start = rng.normal(size=(48, 400)).astype(np.float32)
    grads = [rng.normal(size=start.shape).astype(np.float32) for _ in range(4)]
    before, results = _core.threads(), []
    try:
        for threads in (1, 2, 3):
            _core.set_threads(threads)
            p = dsr.Parameter(start)
            optimizer = dsr.Muon([("p", p)], 0.1)
            for step, grad in enumerate(grads):
                if step == threads:
                    state = optimizer.state()
                    optimizer = dsr.Muon([("p", p)], 0.1)
                    optimizer.load_state(state)
                p.grad = grad
                optimizer.step()
            results.append(p.value)
    finally:
        _core.set_threads(before)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize(
    ("argument", "value"), [("momentum", 0.0), ("momentum", 1.0), ("iterations", 0), ("weight_decay", -1.0)]
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"^Muon: argument '{argument}'"):
        dsr.Muon([], 0.1, **{argument: value})
