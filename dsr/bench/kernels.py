"""Speed of kernels beside the same work done by a GEMM, by PyTorch where it is installed, and by a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from dsr import _core, ops
from dsr.bench import in_process, pooling, seconds
from dsr.ops import Geometry

SHAPES = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels and image size of PreActResNet-18's stages."""


@dataclass(frozen=True)
class Case:
    """A convolution to as many channels as it has."""

    name: str
    channels: int
    height: int
    width: int
    geometry: Geometry


def _cases() -> Iterator[Case]:
    around = (1, 1, 1, 1)
    for channels, size in SHAPES:
        yield Case("conv3x3", channels, size, size, Geometry((3, 3), padding=around))
    for channels, size in SHAPES:
        yield Case("depthwise 3x3", channels, size, size, Geometry((3, 3), groups=channels, padding=around))
    for channels, size in SHAPES:
        yield Case("conv3x3, 32 groups", channels, size, size, Geometry((3, 3), groups=32, padding=around))
    yield Case("depthwise 3x3, stride 2", 128, 16, 16, Geometry((3, 3), (2, 2), groups=128, padding=around))
    yield Case("conv3x3, dilation 2", 128, 16, 16, Geometry((3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)))
    yield Case("conv1x7", 128, 16, 16, Geometry((1, 7), padding=(0, 0, 3, 3)))
    yield Case("conv1d 5", 128, 1, 256, Geometry((1, 5), padding=(0, 0, 2, 2)))
    yield Case("transposed 4x4, stride 2", 128, 8, 8, Geometry((4, 4), (2, 2), (1, 1, 1, 1)).mirrored())
    yield Case("transposed 2x2, stride 2", 128, 8, 8, Geometry((2, 2), (2, 2)).mirrored())


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
    for case in _cases():
        results += _convolutions(case, timesteps, batch, density, repeats)
    results += _through_neurons(timesteps, batch, density, repeats)
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
    lines = [f"{'level':8} {'threads':>7} {'kernel':40} {'shape':24} {'dsr':>8} {'gemm':>8} {'torch':>8}"]
    for r in results:
        cells = [f"{r[key]:8.1f}" if key in r else " " * 8 for key in ("dsr", "gemm", "torch")]
        if "ns" in r:
            cells = [f"{r['ns']:6.3f} ns a neuron and step, {100 * r['of_copy']:.0f} % of a copy's bandwidth"]
        lines.append(f"{r['level']:8} {r['threads']:7d} {r['kernel']:40} {r['shape']:24} {' '.join(cells)}")
    lines.append("convolutions in GMAC/s, dense multiply-adds counted whether or not there is a spike;")
    lines.append("pooling in billions of elements read a second, of spikes as many as of values; medians")
    return "\n".join(lines)


def _convolutions(case: Case, timesteps: int, batch: int, density: float, repeats: int) -> list[dict[str, Any]]:
    rng, geometry, channels = np.random.default_rng(0), case.geometry, case.channels
    image, lanes = (channels, case.height, case.width), (timesteps, batch)
    spikes = (rng.random((*image, *lanes), np.float32) < density).astype(np.float32)
    words, flat = ops.pack_words(spikes), spikes.reshape(*image, -1)
    weight = rng.normal(size=(channels, channels // geometry.groups, *geometry.kernel)).astype(np.float32)
    pixels = geometry.output_size(case.height, case.width)
    constant = rng.normal(size=(channels, *pixels, batch)).astype(np.float32)
    slope, current = rng.normal(size=channels).astype(np.float32), rng.random((channels, *pixels, *lanes), np.float32)
    grad, table_bits = current.reshape(channels, *pixels, -1), ops.best_table_bits(density, geometry.taps)
    stride = geometry.spread[0] * geometry.spread[1]  # of the taps, so many fall between the pixels
    work = weight.size * pixels[0] * pixels[1] * timesteps * batch / stride / 1e9
    forward = {
        "dsr": lambda: ops.conv2d_spikes(words, weight, None, 1.0, geometry, table_bits),
        "gemm": lambda: ops.conv2d(flat, weight, None, geometry),
    }
    gradient = {
        "dsr": lambda: ops.conv2d_spikes_weight_gradient(
            constant, slope, current, words, weight.shape, 1.0, geometry, table_bits
        ),
        "gemm": lambda: ops.conv2d_weight_gradient(grad, flat, geometry),
    }
    below = {"gemm": lambda: ops.conv2d_input_gradient(grad, weight, case.height, case.width, geometry)}
    if find_spec("torch") is not None:
        forward["torch"], gradient["torch"], below["torch"] = _torch(flat, weight, grad, geometry)
    name = f"{channels}x{case.height}x{case.width}, {flat.shape[3]} lanes"
    return [
        {"kernel": f"{case.name} {what}", "shape": name}
        | {who: work / seconds(call, repeats) for who, call in calls.items()}
        for what, calls in (("forward", forward), ("weight gradient", gradient), ("input gradient", below))
    ]


def _through_neurons(timesteps: int, batch: int, density: float, repeats: int) -> list[dict[str, Any]]:
    """A convolution of spikes through neurons to spikes, with float weights and with integers of 8 bits."""
    rng, geometry, results = np.random.default_rng(0), Geometry((3, 3), padding=(1, 1, 1, 1)), list[dict[str, Any]]()
    table_bits = ops.best_table_bits(density, geometry.taps)
    for channels, size in SHAPES:
        spikes = rng.random((channels, size, size, timesteps, batch), np.float32) < density
        words = ops.pack_words(spikes.astype(np.float32))
        weight = rng.normal(size=(channels, channels, 3, 3)).astype(np.float32)
        packed = ops.pack_integers(np.rint(weight * (127 / np.abs(weight).max())).astype(np.int8), geometry, channels)
        convolution = ops.SpikeConvolution(words, weight, None, 1.0, geometry, table_bits)
        zeros, reset = np.zeros(channels, np.int32), np.full(channels, 1000, np.int32)
        neurons, model = ops.IntegerNeurons(zeros, reset, reset // 2), ops.if_model(8 * float(np.abs(weight).max()))
        work = weight.size * size * size * timesteps * batch / 1e9
        calls: dict[str, Callable[[], Any]] = {
            "": partial(ops.conv2d_neuron_spikes, convolution, model),
            ", integers": partial(
                ops.integer_conv2d_neuron_spikes, ops.IntegerInput(words, packed, 0, table_bits), neurons
            ),
        }
        shape = f"{channels}x{size}x{size}, {timesteps * batch} lanes"
        results += [
            {"kernel": f"conv3x3 to spikes{what}", "shape": shape, "dsr": work / seconds(call, repeats)}
            for what, call in calls.items()
        ]
    return results


def _torch(flat: ops.Values, weight: ops.Values, grad: ops.Values, geometry: Geometry) -> list[Callable[[], Any]]:
    """The same convolution and its gradients in PyTorch, channels last (its best layout)."""
    torch = import_module("torch")
    torch.set_num_threads(_core.threads())

    def tensor(array: ops.Values) -> Any:
        images = torch.from_numpy(np.ascontiguousarray(array.transpose(3, 0, 1, 2)))
        return images.contiguous(memory_format=torch.channels_last)

    transposed = geometry.spread != (1, 1)
    g = geometry.mirrored() if transposed else geometry
    turned = ops.mirrored_weight(weight, g.groups) if transposed else weight
    x, y, w = tensor(flat), tensor(grad), torch.from_numpy(turned).contiguous(memory_format=torch.channels_last)
    how = (list(g.stride), [g.padding[0], g.padding[2]], list(g.dilation), transposed, [0, 0], g.groups)

    def backward(*wanted: bool) -> Callable[[], Any]:
        return lambda: torch.ops.aten.convolution_backward(y, x, w, None, *how, [*wanted, False])

    return [lambda: torch.convolution(x, w, None, *how), backward(False, True), backward(True, False)]


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
