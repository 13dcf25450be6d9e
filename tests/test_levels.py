"""EXACT operations give the same bits on every instruction level, and every kernel is reached by a test."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from functional_table import FUNCTIONS
from ops_table import EXACT
from patience import patiently
from workload import digests

from dsr import _core

LEVELS = _core.levels()

# kernel -> a function whose parity with the oracle, and whose equality over levels, is tested; stems of functional
# have a kernel for float32 and one for float64
REAL_KERNELS = {
    "neuron_forward": "if_forward",
    "time_mean": "weighted_firing_rate",
    "rate": "lif_rate",
    "rate_backward": "if_backward",
    "encode_bernoulli": "encode_bernoulli",
    "encode_latency": "encode_latency",
    "encode_phase": "encode_phase",
    "encode_delta": "encode_delta",
}
LANE_KERNELS = {
    "neuron_spikes": "neuron_spikes LIF",
    "pack_words": "pack_words",
    "unpack_words": "unpack_words",
    "count_bits": "count_bits",
    "count_words": "count_words",
    "transpose_words": "transpose_words",
    "count_steps": "count_steps",
    "add_words": "add_words",
    "sum_words": "sum_words",
    "dropout_words": "dropout_words",
    "moments": "moments",
    "product_moments": "product_moments",
    "expand_gradient": "expand_gradient",
    "weighted_sum": "weighted_sum",
    "affine": "affine",
    "pool_planes": "pool_planes",
    "avg_pool": "avg_pool",
    "avg_pool_backward": "avg_pool_backward",
    "max_pool": "max_pool",
    "max_pool_backward": "max_pool_backward",
    "or_pool": "or_pool",
}
# tested in test_spike_conv, test_integer_conv and test_sgd_update
OTHER_KERNELS = {
    "expand_words": "conv2d_spikes",
    "build_lists": "conv2d_spikes",
    "sum_rows": "conv2d_spikes",
    "sum_masked": "conv2d_neuron_spikes",
    "masked_lanes": "conv2d_spikes",
    "sum_masked_taps": "conv2d_spikes_weight_gradient",
    "sum_tap_products": "conv2d_weight_gradient",
    "add_taps": "conv2d",
    "build_table": "conv2d_spikes",
    "rows_to_lanes": "conv2d_spikes",
    "lanes_to_rows": "conv2d_spikes_weight_gradient",
    "gradient_lanes": "conv2d_spikes_weight_gradient",
    "neuron_rows": "conv2d_neuron_spikes",
    "widen_integer_rows": "integer_conv2d_neuron_spikes",
    "sum_value_rows": "integer_conv2d",
    "sum_integer_rows": "integer_conv2d_spikes",
    "build_integer_table": "integer_conv2d_spikes",
    "integer_neuron_rows": "integer_conv2d_neuron_spikes",
    "sum_steps": "conv2d_spikes_sum",
    "sgd_update": "sgd_update",
    "winograd_taps": "conv2d_input_gradient",
    "winograd_spread": "conv2d_input_gradient",
    "winograd_gather": "conv2d_input_gradient",
    "winograd_widen": "conv2d_weight_gradient",
    "winograd_collect": "conv2d_weight_gradient",
}


def run_python(level: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """-P in `arguments`: import the dsr that this process has, not a folder of that name."""
    environment = {**os.environ, "DSR_LEVEL": level}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=patiently(300),
    )


@cache
def workload(level: str) -> dict[str, object]:
    """The fixed workload in a process of its own, which takes the level asked for or the best one below it."""
    done = run_python(level, str(Path(__file__).with_name("workload.py")))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("level", LEVELS)
def test_results_are_those_of_this_process(level):
    """This process runs on the level that the environment or the processor chose; the other one on `level`."""
    if workload(level)["level"] != level:
        pytest.skip(f"this processor has no {level}; it got {workload(level)['level']}")
    assert workload(level)["digests"] == digests()


@pytest.mark.parametrize("level", LEVELS)
def test_neurons_without_a_leak_have_the_bits_of_the_general_loop(level):
    assert workload(level)["digests"]["adding loop"] == workload(level)["digests"]["general loop"]


def test_a_level_that_the_processor_lacks_falls_back_to_the_next():
    chosen = [workload(level)["level"] for level in LEVELS]
    for wanted, got in zip(LEVELS, chosen, strict=True):
        assert LEVELS.index(got) <= LEVELS.index(wanted)
    assert chosen == sorted(chosen, key=LEVELS.index)


def test_the_best_level_of_the_processor_is_taken():
    """What the system says of the processor, beside what the extension finds out by itself."""
    if platform.machine() == "x86_64":
        try:
            flags = set(re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
        except OSError:
            pytest.skip("no /proc/cpuinfo")
        wide = {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
        best = "avx512" if wide <= flags else "avx2" if "avx2" in flags else "scalar"
    else:
        best = LEVELS[-1]
    assert run_python("", "-P", "-c", "from dsr import _core; print(_core.level())").stdout.strip() == best


def test_levels_begin_with_the_one_of_every_processor():
    assert LEVELS[0] == workload("scalar")["level"] == "scalar"
    assert len(set(LEVELS)) == len(LEVELS)


def test_unknown_level():
    done = run_python("nonsense", "-P", "-c", "import dsr")
    assert done.returncode != 0
    assert f"DSR_LEVEL: expected one of {', '.join(LEVELS)}, got 'nonsense'" in done.stderr


def test_empty_level_means_the_best():
    assert run_python("", "-P", "-c", "from dsr import _core; print(_core.level())").stdout.strip() in LEVELS


def test_every_kernel_is_reached():
    reals = {f"{kernel}_{suffix}" for kernel in REAL_KERNELS for suffix in ("f32", "f64")}
    assert sorted([*reals, *LANE_KERNELS, *OTHER_KERNELS]) == sorted(_core.kernels())
    assert set(REAL_KERNELS.values()) <= set(FUNCTIONS)
    assert set(LANE_KERNELS.values()) <= set(EXACT)
    for function in [*REAL_KERNELS.values(), *LANE_KERNELS.values(), *OTHER_KERNELS.values()]:
        assert any(name.startswith(function) for name in digests())
