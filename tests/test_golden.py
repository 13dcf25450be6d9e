"""Single neuron layers against numbers written by the authors' code: ../shared/golden/{if,lif}_*.npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks import assert_same

from dsr import functional, reference

CASES = ["if_T20", "if_T4_threshold_below_bound", "if_T5", "lif_T10_tau2.5", "lif_T20", "lif_T5"]
EPS = 2.0**-24


class Golden:
    """One file, and the functions of its kind of neuron with their numbers filled in."""

    def __init__(self, path: Path, module: Any) -> None:
        with np.load(path) as file:
            self.array = {name: file[name] for name in file.files}
        self.current = self.array["current"]
        self.steps = int(self.array["timesteps"])
        bound = float(self.array["v_threshold_min"])
        self.v_threshold = max(float(self.array["v_threshold"]) - bound, 0) + bound
        self.leaky = str(self.array["kind"]) == "lif"
        self.tau, self.delta_t = (float(self.array[name]) if self.leaky else 1.0 for name in ("tau", "dt"))
        self.module, self.stem = module, "lif" if self.leaky else "if"
        self.times = (self.tau, self.delta_t) if self.leaky else ()
        weights = reference.time_weights(self.steps, *self.times) if self.leaky else np.ones(self.steps)
        self.weights = (weights / weights.sum()).reshape(-1, *[1] * (self.current.ndim - 1))

    def forward(self) -> np.ndarray:
        run = getattr(self.module, f"{self.stem}_forward")
        return run(self.current, self.v_threshold, *self.times, float(self.array["alpha"]))

    def represent(self, train: np.ndarray) -> np.ndarray:
        run = self.module.weighted_firing_rate if self.leaky else self.module.firing_rate
        return run(train, *self.times)

    def backward(self, grad_output: np.ndarray) -> tuple[np.ndarray, float]:
        run = getattr(self.module, f"{self.stem}_backward")
        return run(grad_output.astype(np.float32), self.current, self.v_threshold, *self.times)

    def mean_bound(self, train: np.ndarray) -> np.ndarray:
        """How far two float32 weighted means of T values may be apart: either errs by at most T + 2 roundings of
        sum w|x| / W (products, additions, division), and float32 weights by 4 more (exponent, exp, their sum).
        """
        return (2 * (self.steps + 2) + 4) * EPS * (self.weights * np.abs(train)).sum(axis=0)


@pytest.fixture(params=CASES)
def path(request, shared):
    return shared / "golden" / f"{request.param}.npz"


@pytest.fixture(params=[functional, reference], ids=["functional", "reference"])
def golden(request, path):
    return Golden(path, request.param)


def test_every_file_is_a_case(shared):
    assert sorted(file.stem for file in shared.glob("golden/*if_T*.npz") if "mini" not in file.stem) == CASES


def test_spikes(golden):
    output = golden.forward()
    assert np.count_nonzero(output) > 0
    assert_same(output, golden.array["output"])


def test_representations(golden):
    for train, expected in (("output", "rate"), ("current", "mean_current")):
        error = np.abs(golden.represent(golden.array[train]) - golden.array[expected])
        assert (error <= golden.mean_bound(golden.array[train])).all()


@pytest.mark.parametrize("suffix", ["", "_steps"])
def test_gradients(golden, suffix):
    grad_output = golden.array["grad_output_steps"] if suffix else golden.weights * golden.array["grad_rate"]
    gradient, above = golden.backward(grad_output)
    expected, expected_above = golden.array[f"grad_current{suffix}"], float(golden.array[f"grad_threshold{suffix}"])
    # the same neurons pass the gradient, and some do not
    assert np.array_equal(gradient != 0, expected != 0)
    assert 0 < np.count_nonzero(expected) < expected.size
    # g = T r(d) takes 4 roundings on each side behind the mean: grad_output itself, times T, by tau, by T
    share_bound = (golden.mean_bound(grad_output) + 8 * EPS * np.abs(expected[0]) * golden.tau) / golden.tau
    assert (np.abs(gradient - expected) <= share_bound).all()
    # the threshold: g = T r(d) (a plain sum for IF) of n saturated neurons, added one by one in float32 by the authors
    saturated = golden.array["mean_current"] > golden.tau * golden.v_threshold / golden.delta_t
    g = golden.steps * (golden.weights * np.abs(grad_output)).sum(axis=0)[saturated]
    bound = golden.steps * golden.mean_bound(grad_output)[saturated].sum() + (saturated.sum() + 8) * EPS * g.sum()
    assert saturated.any()
    assert abs(above - expected_above) <= bound * (golden.delta_t if golden.leaky else 1)
