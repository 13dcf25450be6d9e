"""Speck: a chip of nine cores, each with a convolution, integrate-and-fire neurons and sum pooling."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2, prod

from dsr.nir.folding import Flatten, Neurons, Output, Step, Weights
from dsr.nir.targets.rules import (
    STARTING,
    Finding,
    Rule,
    View,
    eight_bits,
    integrate_and_fire,
    names,
    no_maximum,
    one_threshold,
    threshold_is_subtracted,
    weights_between_neurons,
)
from dsr.ops import Geometry

_OVERVIEW = "sinabs documentation, docs/speck/overview.md"
_NETWORKS = "sinabs documentation, docs/speck/faqs/available_network_arch.md"
_CODE = "sinabs, sinabs/backend/dynapcnn/chips/dynapcnn.py and dynapcnn_layer.py"
_RESET = "sinabs documentation, docs/speck/faqs/tips_for_training.md"
_LEAK = "sinabs documentation, docs/speck/faqs/available_algorithmic_operation.md and docs/speck/dangers.md"

_CORES = 9
_KERNELS = (16, 16, 16, 32, 32, 64, 64, 16, 16)
_NEURONS = (64, 64, 64, 32, 32, 16, 16, 16, 16)
"""Memory of the cores, in 1,024 entries of 8-bit weights and 16-bit states [_CODE]."""


def _shapes(view: View) -> Iterator[Finding]:
    features = view.graph.nodes["input"].features
    if len(features) != 3 or max(features[1:]) > 128:
        yield Finding(
            "input", f"samples are {features}; Speck takes images of up to 128x128", "Resize them.", _OVERVIEW
        )
    for name, node in view.weights():
        geometry = node.geometry
        if geometry is not None:
            if len(node.before) != 3:
                yield Finding(name, "it is of signals (C, L); Speck has 2-D convolutions", "Use images.", _OVERVIEW)
            yield from _convolution(name, geometry)
        channels = max(node.before[0] if geometry is not None else 0, node.features[0])
        if channels > 1024:
            yield Finding(name, f"it has {channels:,} channels; Speck takes 1,024", "Use a smaller width.", _OVERVIEW)
        if len(node.features) == 3 and max(node.features[1:]) > 64:
            maps = f"{node.features[1]}x{node.features[2]}"
            yield Finding(
                name, f"its maps are {maps}; Speck takes 64x64", "Use a stride, or smaller images.", _OVERVIEW
            )
        if node.bias.any():
            yield Finding(
                name,
                "it has a bias (that of batch normalisation, if not its own); on Speck a bias is a leak, which needs a "
                "clock and is advised against",
                "Train without bias and without BatchNorm, as the recipe speck does.",
                _LEAK,
            )
    for name, pool in view.pools():
        size = pool.kernel_size
        if size[0] != size[1] or size[0] not in (1, 2, 4) or pool.stride != size or pool.padding != (0, 0):
            yield Finding(
                name,
                f"it pools {size[0]}x{size[1]} with stride {pool.stride} and padding {pool.padding}; Speck sums "
                "squares of 1, 2 or 4 pixels that do not overlap",
                "Pool by 2 or 4.",
                _OVERVIEW,
            )


def _convolution(name: str, geometry: Geometry) -> Iterator[Finding]:
    height, width = geometry.kernel
    if height != width or height > 16:
        yield Finding(
            name, f"its kernel is {height}x{width}; Speck takes squares of up to 16x16", "Make it smaller.", _OVERVIEW
        )
    if any(stride not in (1, 2, 4, 8) for stride in geometry.stride):
        yield Finding(
            name, f"its stride is {geometry.stride}; Speck takes 1, 2, 4 and 8", "Use one of them.", _OVERVIEW
        )
    top, bottom, left, right = geometry.padding
    if (top, left) != (bottom, right) or max(geometry.padding) > 7:
        yield Finding(
            name,
            f"its padding is {geometry.padding}; Speck takes 0 to 7, the same on opposite sides",
            "Use an odd kernel, or less padding.",
            _OVERVIEW,
        )
    if geometry.dilation != (1, 1) or geometry.groups != 1:
        yield Finding(
            name,
            f"it has dilation {geometry.dilation} and {geometry.groups} groups; Speck has neither",
            "Use an ordinary convolution.",
            _CODE,
        )


def _destinations(view: View) -> Iterator[Finding]:
    for name, _ in view.neurons():
        readers = view.ahead(name, (Weights, Neurons, Step, Output))
        if len(readers) > 2:
            yield Finding(
                name,
                f"its spikes go to {names(readers)}; a core of Speck sends to 2",
                "Use fewer branches.",
                _NETWORKS,
            )


def _cores(view: View) -> Iterator[Finding]:
    """A core for each layer of weights, with room for its kernel and its neurons."""
    needs = {name: _memory(view, name, node) for name, node in view.weights()}
    if len(needs) > _CORES:
        yield Finding("", f"it has {len(needs)} layers of weights; Speck has {_CORES} cores", "Use fewer.", _OVERVIEW)
    cores = list(zip(_KERNELS, _NEURONS, strict=True))
    fitting = {
        name: [i for i, (k, n) in enumerate(cores) if kernel <= 1024 * k and neurons <= 1024 * n]
        for name, (kernel, neurons) in needs.items()
    }
    for name, (kernel, neurons) in needs.items():
        if not fitting[name]:
            yield Finding(
                name,
                f"in one core it needs {kernel:,} entries of weights and {neurons:,} of neurons (sizes rounded up "
                "to powers of two); those of Speck have (16,384; 65,536), (32,768; 32,768) or (65,536; 16,384)",
                "Use fewer channels, or smaller maps.",
                _CODE,
            )
    missing = _without_core(fitting)
    if missing and all(fitting.values()) and len(needs) <= _CORES:
        yield Finding(
            "",
            f"each layer fits in a core, but not all at once: there is none left for {names(missing)}",
            "Use fewer channels in the largest layers.",
            _CODE,
        )


def _memory(view: View, name: str, node: Weights) -> tuple[int, int]:
    """Entries of weights and of neurons; a linear layer is a convolution of the image that was flattened."""
    out, inner, height, width = node.weight.shape
    for source in view.graph.sources(name):
        flat = view.graph.nodes[source]
        if isinstance(flat, Flatten):
            inner, height, width = flat.before[0], prod(flat.before[1:]), 1
    kernel = inner * 2 ** (ceil(log2(height * width)) + ceil(log2(out)))
    image = node.features[1:] if len(node.features) == 3 else (1, 1)
    return kernel, node.features[0] * prod(2 ** ceil(log2(size)) for size in image)


def _without_core(fitting: dict[str, list[int]]) -> list[str]:
    """Layers that get no core of their own, in the best assignment (augmenting paths)."""
    owner: dict[int, str] = {}

    def place(name: str, tried: set[int]) -> bool:
        for core in fitting[name]:
            if core not in tried:
                tried.add(core)
                if core not in owner or place(owner[core], tried):
                    owner[core] = name
                    return True
        return False

    return [name for name in fitting if not place(name, set())]


def _classes(view: View) -> Iterator[Finding]:
    outputs = prod(view.graph.nodes["output"].features)
    if outputs > 15:
        yield Finding(
            "output",
            f"it has {outputs} outputs; the read-out pins of Speck tell 15 classes",
            "Count the spikes of the last layer on the host.",
            _NETWORKS,
            fits=True,
        )
    yield Finding(
        "",
        "the chip has no time steps: a neuron may fire as often as spikes come in, and late ones are not waited for",
        "Expect other counts than in dsr; samples are events, whose numbers in a frame are what dsr calls the values.",
        "sinabs documentation, docs/speck/dangers.md",
        fits=True,
    )


RULES: tuple[Rule, ...] = (
    _shapes,
    no_maximum("Speck", _OVERVIEW),
    weights_between_neurons("Speck", _NETWORKS, sums=False),
    integrate_and_fire("Speck", "has a constant leak only", _LEAK),
    one_threshold("Speck", _CODE),
    _destinations,
    _cores,
    eight_bits(2**15 - 1, 16, "Speck", _OVERVIEW),
    threshold_is_subtracted(STARTING, _RESET),
    _classes,
)
