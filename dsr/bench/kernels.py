"""Speed of kernels beside the same work done by a GEMM, by PyTorch where it is installed, and by a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dsr import _core, ops
from dsr.bench import in_process, pooling, seconds

SHAPES = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels and image size of PreActResNet-18's stages."""


def measure(density: float = 0.1, batch: int = 128, timesteps: int = 5, repeats: int = 5) -> list[dict[str, Any]]:
    """Measure in this process, at its level and number of threads.

    Returns
    -------
    list of dict
        ``kernel``, ``shape``, ``dsr`` and where they apply ``gemm`` and ``torch`` (GMAC/s, of pooling billions of
        elements a second; of neurons ns per neuron and step, with the fraction of the bandwidth of a copy),
        ``threads``, ``level``.
    """
    results = []
    for channels, size in SHAPES:
        results += _convolutions(channels, size, timesteps, batch, density, repeats)
    results += pooling.measure(density, repeats) + _neurons(repeats)
    return [r | {"threads": _core.threads(), "level": _core.level()} for r in results]


def measure_all(levels: Sequence[str] | None, threads: Sequence[int], **options: Any) -> list[dict[str, Any]]:
    """`measure` for each level (None: all of this build) and number of threads, each in a process of its own."""
    results: list[dict[str, Any]] = []
    for level in _core.levels() if levels is None else levels:
        for count in threads:
            program = f"""import dsr; from dsr.bench import kernels
dsr.set_num_threads({count}); result = kernels.measure(**{options!r})"""
            results += [r for r in in_process(program, DSR_LEVEL=level) if r["level"] == level]
    return results


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results of `measure_all` as text."""
    lines = [f"{'level':8} {'threads':>7} {'kernel':34} {'shape':16} {'dsr':>8} {'gemm':>8} {'torch':>8}"]
    for r in results:
        cells = [f"{r[key]:8.1f}" if key in r else " " * 8 for key in ("dsr", "gemm", "torch")]
        if "ns" in r:
            cells = [f"{r['ns']:6.3f} ns a neuron and step, {100 * r['of_copy']:.0f} % of a copy's bandwidth"]
        lines.append(f"{r['level']:8} {r['threads']:7d} {r['kernel']:34} {r['shape']:16} {' '.join(cells)}")
    lines.append("convolutions in GMAC/s, dense multiply-adds counted whether or not there is a spike;")
    lines.append("pooling in billions of elements read a second, of spikes as many as of values; medians")
    return "\n".join(lines)


def _convolutions(
    channels: int, size: int, timesteps: int, batch: int, density: float, repeats: int
) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    shape = (channels, size, size, timesteps, batch)
    spikes = (rng.random(shape, np.float32) < density).astype(np.float32)
    words, flat = ops.pack_words(spikes), spikes.reshape(channels, size, size, -1)
    weight = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32)
    constant = rng.normal(size=(channels, size, size, batch)).astype(np.float32)
    slope, current = rng.normal(size=channels).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    group = ops.row_group(density)
    work = 9 * channels**2 * flat[0].size / 1e9
    taps = {"kernel_h": 3, "kernel_w": 3, "stride": 1, "padding": 1}
    forward = {
        "dsr": lambda: ops.conv2d_spikes(words, weight, None, 1.0, 1, 1, group),
        "gemm": lambda: ops.conv2d(flat, weight, None, 1, 1),
    }
    gradient = {
        "dsr": lambda: ops.conv2d_spikes_weight_gradient(
            constant, slope, current, words, weight.shape, 1.0, 1, 1, group
        ),
        "gemm": lambda: ops.conv2d_weight_gradient(current.reshape(flat.shape), flat, **taps),
    }
    _add_torch(forward, gradient, flat, weight, current.reshape(flat.shape))
    name = f"{channels}x{size}x{size}, {flat.shape[3]} lanes"
    return [
        {"kernel": kernel, "shape": name} | {who: work / seconds(call, repeats) for who, call in calls.items()}
        for kernel, calls in (("conv3x3 forward", forward), ("conv3x3 weight gradient", gradient))
    ]


def _add_torch(
    forward: dict[str, Callable[[], Any]],
    gradient: dict[str, Callable[[], Any]],
    flat: ops.Values,
    weight: ops.Values,
    grad: ops.Values,
) -> None:
    """The same convolutions in PyTorch, channels last (its best layout), where it is installed."""
    if find_spec("torch") is None:
        return
    torch = import_module("torch")
    torch.set_num_threads(_core.threads())

    def tensor(array: ops.Values) -> Any:
        images = torch.from_numpy(np.ascontiguousarray(array.transpose(3, 0, 1, 2)))
        return images.contiguous(memory_format=torch.channels_last)

    x, g, w = tensor(flat), tensor(grad), torch.from_numpy(weight).contiguous(memory_format=torch.channels_last)
    conv2d, backward = torch.nn.functional.conv2d, torch.ops.aten.convolution_backward
    only_weight = [False, True, False]
    forward["torch"] = lambda: conv2d(x, w, padding=1)
    gradient["torch"] = lambda: backward(g, x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, only_weight)


def _neurons(repeats: int) -> list[dict[str, Any]]:
    """Neurons read a current and write bits: compared with a copy of the current, per byte moved."""
    shape = (64, 32, 32, 5, 64)
    current, target = np.random.default_rng(0).normal(size=shape).astype(np.float32), np.empty(shape, np.float32)
    copy_bytes_a_second = 2 * current.nbytes / seconds(lambda: np.copyto(target, current), repeats)
    moved = current.nbytes * (1 + 1 / 32 + 1 / 5)  # the current, the bits, the sums over time
    weights = np.ones(5, np.float32)
    calls = {
        "IF spikes, thresholds of channels": lambda: ops.neuron_spikes(
            current, 5, ops.if_model(np.ones(64, np.float32))
        ),
        "IF spikes": lambda: ops.neuron_spikes(current, 5, ops.if_model(1.0)),
        "LIF spikes": lambda: ops.neuron_spikes(current, 5, ops.lif_model(1.0, 1.0, 0.1), weights),
    }
    results = []
    for name, call in calls.items():
        time = seconds(call, repeats)
        of_copy = moved / time / copy_bytes_a_second
        results.append(
            {"kernel": name, "shape": "64x32x32, T 5, B 64", "ns": 1e9 * time / current.size, "of_copy": of_copy}
        )
    return results
