"""What neuromorphic chips can take, from public sources, and what of a network they cannot.

>>> for finding in check(network, (2, 48, 48), "speck"):
...     print(finding)

The network is looked at as it would be deployed: batch normalisation and heights of spikes in the weights, pooling as
sums (`dsr.nir.folding`). Figures change with chips and their software; each has the source that it was read in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, exp, log2, prod

import numpy as np

from dsr.nir.folding import AnyNode, Flatten, Folded, Neurons, Output, Pool, Step, Style, Weights, as_features, fold
from dsr.nn.network import Network
from dsr.ops import Geometry
from dsr.ops.arguments import shown

_SPECK = "sinabs documentation, docs/speck/overview.md"
_SPECK_NETWORKS = "sinabs documentation, docs/speck/faqs/available_network_arch.md"
_SPECK_CODE = "sinabs, sinabs/backend/dynapcnn/chips/dynapcnn.py and dynapcnn_layer.py"
_SPECK_RESET = "sinabs documentation, docs/speck/faqs/tips_for_training.md"
_SPECK_LEAK = "sinabs documentation, docs/speck/faqs/available_algorithmic_operation.md and docs/speck/dangers.md"
_XYLO = "https://rockpool.ai/devices/xylo-overview.html (Xylo Audio 2)"
_LOIHI = "Intel, Loihi 2 technology brief (2021)"
_LAVA = "lava, src/lava/proc/lif/models.py and src/lava/proc/conv"
_SPINNAKER = "py-spinnaker2, src/spinnaker2/s2_nir.py"
_SPINNAKER_CHIP = "SpiNNaker2 datasheet, version 0.03 (2021)"


@dataclass(frozen=True)
class Finding:
    """Something about a layer that a chip cannot take, or that one should know.

    Attributes
    ----------
    layer : str
        Its name; empty: the whole network.
    what : str
        What it has, and the limit.
    change : str
        What to do.
    source : str
        Where the limit was read.
    fits : bool
        True where the chip takes it, with something that one should know.
    """

    layer: str
    what: str
    change: str
    source: str
    fits: bool = False

    def __str__(self) -> str:
        return f"{self.layer or 'network'}: {self.what}. {self.change} [{self.source}]"


@dataclass(frozen=True)
class _View:
    """A graph, with what its rules ask for often."""

    graph: Folded

    def of(self, kind: type[AnyNode]) -> Iterator[tuple[str, AnyNode]]:
        return ((name, node) for name, node in self.graph.nodes.items() if isinstance(node, kind))

    def weights(self) -> Iterator[tuple[str, Weights]]:
        return ((name, node) for name, node in self.graph.nodes.items() if isinstance(node, Weights))

    def neurons(self) -> Iterator[tuple[str, Neurons]]:
        return iter(self.graph.neurons().items())

    def pools(self) -> Iterator[tuple[str, Pool]]:
        return ((name, node) for name, node in self.graph.nodes.items() if isinstance(node, Pool))

    def ahead(self, name: str, kinds: tuple[type[AnyNode], ...], back: bool = False) -> list[str]:
        """The next nodes (`back`: the last ones) of these kinds on all ways from a node, which pass all others."""
        step = self.graph.sources if back else self.graph.readers
        found: dict[str, None] = {}
        for following in step(name):
            if isinstance(self.graph.nodes[following], kinds):
                found[following] = None
            else:
                found |= dict.fromkeys(self.ahead(following, kinds, back))
        return list(found)

    def charge(self, neurons: str) -> float:
        """A threshold in units of the largest weight into its neurons; 0 without weights."""
        node = self.graph.nodes[neurons]
        assert isinstance(node, Neurons)
        sizes = [
            float(np.abs(before.weight).max(initial=0))
            for name in self.graph.sources(neurons)
            if isinstance(before := self.graph.nodes[name], Weights)
        ]
        largest = max(sizes, default=0.0)
        return float(np.max(node.v_threshold)) / largest if largest else 0.0


Rule = Callable[[_View], Iterator[Finding]]


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _no_steps(chip: str, source: str) -> Rule:
    def rule(view: _View) -> Iterator[Finding]:
        for name, _ in view.of(Step):
            layer = name.removesuffix(".any")
            yield Finding(
                layer, f"{chip} has no maximum pooling", "Use AvgPool2d, which becomes a sum, or a stride.", source
            )

    return rule


def _weights_between_neurons(chip: str, source: str, sums: bool) -> Rule:
    """Each layer of neurons has weights of its own; `sums`: several layers of weights may lead to one."""

    def rule(view: _View) -> Iterator[Finding]:
        kinds = (Weights, Neurons, Output, Step)
        for name, _ in view.weights():
            bare = [n for n in view.ahead(name, kinds) if not isinstance(view.graph.nodes[n], Neurons)]
            if bare:
                yield Finding(
                    name,
                    f"its values go to {_names(bare)} without neurons; on {chip} neurons follow each layer of weights",
                    "Add neurons, make one layer of two that follow each other, or put pooling behind the neurons.",
                    source,
                )
        for name, _ in view.neurons():
            before = view.ahead(name, (Weights, Neurons, Step), back=True)
            weights = [n for n in before if isinstance(view.graph.nodes[n], Weights)]
            if len(weights) < max(len(before), 1):
                yield Finding(
                    name,
                    f"it gets spikes or values without weights; on {chip} weights go before neurons",
                    "Put a convolution before them; a shortcut can be added to spikes instead (SpikeResidual).",
                    source,
                )
            if len(weights) > 1 and not sums:
                yield Finding(
                    name,
                    f"it sums {_names(weights)}; on {chip} neurons have one layer of weights",
                    "Add the spikes of two layers before a convolution instead (SpikeResidual).",
                    source,
                )

    return rule


def _integrate_and_fire(chip: str, leak: str, source: str) -> Rule:
    def rule(view: _View) -> Iterator[Finding]:
        for name, node in view.neurons():
            if node.leak:
                yield Finding(name, f"its neurons leak by a factor; {chip} {leak}", "Use IF neurons.", source)

    return rule


def _threshold_is_subtracted(how: str, source: str) -> Rule:
    def rule(view: _View) -> Iterator[Finding]:
        layers = [name for name, node in view.neurons() if node.alpha != 1]
        if layers:
            yield Finding(
                "",
                f"{_names(layers)} fire at alpha = {view.graph.neurons()[layers[0]].alpha:g} of what they subtract; "
                "the chip fires at the threshold that it subtracts",
                how,
                source,
                fits=True,
            )

    return rule


def _one_threshold(chip: str, source: str) -> Rule:
    def rule(view: _View) -> Iterator[Finding]:
        for name, node in view.neurons():
            if np.ndim(node.v_threshold):
                yield Finding(
                    name,
                    f"each channel has a threshold of its own; {chip} has one for a layer",
                    "Train with one threshold for the layer (a number as v_threshold).",
                    source,
                )

    return rule


def _eight_bits(largest: int, state_bits: int, chip: str, source: str) -> Rule:
    """Weights of 8 bits in one scale with thresholds up to `largest`."""

    def rule(view: _View) -> Iterator[Finding]:
        for name, _ in view.neurons():
            units = 127 * view.charge(name)
            if units > largest:
                left = log2(2 * 127 * largest / units + 1)
                yield Finding(
                    name,
                    f"its threshold is {units:,.0f} where the largest weight is 127; {chip} holds {largest:,}",
                    f"Its weights would keep {max(left, 0):.1f} of 8 bits: train with a lower threshold.",
                    source,
                )
        yield Finding(
            "",
            f"weights are rounded to 8 bits, potentials to {state_bits}",
            "Measure what that costs, and train further with rounded weights if it is too much.",
            source,
            fits=True,
        )

    return rule


_SPECK_CORES = 9
_SPECK_KERNELS = (16, 16, 16, 32, 32, 64, 64, 16, 16)
_SPECK_NEURONS = (64, 64, 64, 32, 32, 16, 16, 16, 16)
"""Memory of the cores, in 1,024 entries of 8-bit weights and 16-bit states [_SPECK_CODE]."""


def _speck_shapes(view: _View) -> Iterator[Finding]:
    features = view.graph.nodes["input"].features
    if len(features) != 3 or max(features[1:]) > 128:
        yield Finding("input", f"samples are {features}; Speck takes images of up to 128x128", "Resize them.", _SPECK)
    for name, node in view.weights():
        geometry = node.geometry
        if geometry is not None:
            if len(node.before) != 3:
                yield Finding(name, "it is of signals (C, L); Speck has 2-D convolutions", "Use images.", _SPECK)
            yield from _speck_convolution(name, geometry)
        channels = max(node.before[0] if geometry is not None else 0, node.features[0])
        if channels > 1024:
            yield Finding(name, f"it has {channels:,} channels; Speck takes 1,024", "Use a smaller width.", _SPECK)
        if len(node.features) == 3 and max(node.features[1:]) > 64:
            maps = f"{node.features[1]}x{node.features[2]}"
            yield Finding(name, f"its maps are {maps}; Speck takes 64x64", "Use a stride, or smaller images.", _SPECK)
        if node.bias.any():
            yield Finding(
                name,
                "it has a bias (that of batch normalisation, if not its own); on Speck a bias is a leak, which needs a "
                "clock and is advised against",
                "Train without bias and without BatchNorm, as the recipe speck does.",
                _SPECK_LEAK,
            )
    for name, pool in view.pools():
        size = pool.kernel_size
        if size[0] != size[1] or size[0] not in (1, 2, 4) or pool.stride != size or pool.padding != (0, 0):
            yield Finding(
                name,
                f"it pools {size[0]}x{size[1]} with stride {pool.stride} and padding {pool.padding}; Speck sums "
                "squares of 1, 2 or 4 pixels that do not overlap",
                "Pool by 2 or 4.",
                _SPECK,
            )


def _speck_convolution(name: str, geometry: Geometry) -> Iterator[Finding]:
    height, width = geometry.kernel
    if height != width or height > 16:
        yield Finding(
            name, f"its kernel is {height}x{width}; Speck takes squares of up to 16x16", "Make it smaller.", _SPECK
        )
    if any(stride not in (1, 2, 4, 8) for stride in geometry.stride):
        yield Finding(name, f"its stride is {geometry.stride}; Speck takes 1, 2, 4 and 8", "Use one of them.", _SPECK)
    top, bottom, left, right = geometry.padding
    if (top, left) != (bottom, right) or max(geometry.padding) > 7:
        yield Finding(
            name,
            f"its padding is {geometry.padding}; Speck takes 0 to 7, the same on opposite sides",
            "Use an odd kernel, or less padding.",
            _SPECK,
        )
    if geometry.dilation != (1, 1) or geometry.groups != 1:
        yield Finding(
            name,
            f"it has dilation {geometry.dilation} and {geometry.groups} groups; Speck has neither",
            "Use an ordinary convolution.",
            _SPECK_CODE,
        )


def _speck_destinations(view: _View) -> Iterator[Finding]:
    for name, _ in view.neurons():
        readers = view.ahead(name, (Weights, Neurons, Step, Output))
        if len(readers) > 2:
            yield Finding(
                name,
                f"its spikes go to {_names(readers)}; a core of Speck sends to 2",
                "Use fewer branches.",
                _SPECK_NETWORKS,
            )


def _speck_cores(view: _View) -> Iterator[Finding]:
    """A core for each layer of weights, with room for its kernel and its neurons."""
    needs = {name: _speck_memory(view, name, node) for name, node in view.weights()}
    if len(needs) > _SPECK_CORES:
        yield Finding(
            "", f"it has {len(needs)} layers of weights; Speck has {_SPECK_CORES} cores", "Use fewer.", _SPECK
        )
    cores = list(zip(_SPECK_KERNELS, _SPECK_NEURONS, strict=True))
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
                _SPECK_CODE,
            )
    missing = _without_core(fitting)
    if missing and all(fitting.values()) and len(needs) <= _SPECK_CORES:
        yield Finding(
            "",
            f"each layer fits in a core, but not all at once: there is none left for {_names(missing)}",
            "Use fewer channels in the largest layers.",
            _SPECK_CODE,
        )


def _speck_memory(view: _View, name: str, node: Weights) -> tuple[int, int]:
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


def _speck_classes(view: _View) -> Iterator[Finding]:
    outputs = prod(view.graph.nodes["output"].features)
    if outputs > 15:
        yield Finding(
            "output",
            f"it has {outputs} outputs; the read-out pins of Speck tell 15 classes",
            "Count the spikes of the last layer on the host.",
            _SPECK_NETWORKS,
            fits=True,
        )
    yield Finding(
        "",
        "the chip has no time steps: a neuron may fire as often as spikes come in, and late ones are not waited for",
        "Expect other counts than in dsr; samples are events, whose numbers in a frame are what dsr calls the values.",
        "sinabs documentation, docs/speck/dangers.md",
        fits=True,
    )


def _xylo(view: _View) -> Iterator[Finding]:
    inputs, outputs = (view.graph.nodes[name].features for name in ("input", "output"))
    for name, node in view.weights():
        if node.geometry is not None:
            yield Finding(name, "it is a convolution; Xylo has dense layers only", "Use a model such as mlp.", _XYLO)
    for name, _ in view.pools():
        yield Finding(name, "Xylo has no pooling", "Use a model such as mlp.", _XYLO)
    if prod(inputs) > 16:
        yield Finding("input", f"it has {prod(inputs):,} inputs; Xylo has 16 channels", "Use fewer.", _XYLO)
    if prod(outputs) > 8:
        yield Finding("output", f"it has {prod(outputs):,} outputs; Xylo Audio 2 has 8", "Use fewer classes.", _XYLO)
    last = set(view.graph.sources("output"))
    hidden = {name: prod(node.features) for name, node in view.neurons() if name not in last}
    if sum(hidden.values()) > 1000:
        yield Finding("", f"it has {sum(hidden.values()):,} hidden neurons; Xylo has 1,000", "Use fewer.", _XYLO)
    for name in hidden:
        fan_out = sum(prod(view.graph.nodes[n].features) for n in view.ahead(name, (Weights,)))
        if fan_out > 64:
            yield Finding(
                name,
                f"each of its neurons leads to {fan_out} others; Xylo Audio 2 takes 64",
                "Use narrower layers.",
                _XYLO,
            )
    for name, neurons in view.neurons():
        leak = neurons.leak
        shift = log2(1 / leak) if leak else 0.0
        if not leak:
            yield Finding(
                name, "its neurons do not leak; potentials of Xylo always decay, by a shift of bits", "Use LIF.", _XYLO
            )
        elif abs(exp(-leak) - (1 - 2.0 ** -round(shift))) > 0.01:
            yield Finding(
                name,
                f"its potentials keep {exp(-leak):.4f} of a step; Xylo shifts bits, and has "
                f"{1 - 2.0 ** -max(round(shift), 1):.4f}",
                f"Use tau = {2 ** max(round(shift), 1)} delta_t.",
                _XYLO,
            )
    yield Finding(
        "",
        "neurons of Xylo have synapses with a time constant of their own, which dsr has not",
        "Write it with dsr export --for rockpool, which makes the synapse short.",
        _XYLO,
        fits=True,
    )


def _loihi2(view: _View) -> Iterator[Finding]:
    neurons = sum(prod(node.features) for _, node in view.neurons())
    weights = sum(node.weight.size for _, node in view.weights())
    if neurons > 1_000_000:
        yield Finding("", f"it has {neurons:,} neurons; a chip has 1 million", "Use several chips.", _LOIHI)
    if weights > 120_000_000:
        yield Finding("", f"it has {weights:,} weights; a chip has 120 million synapses", "Use several chips.", _LOIHI)
    cores = sum(ceil(prod(node.features) / 8192) for _, node in view.neurons())
    if cores > 128:
        yield Finding("", f"its neurons need {cores} cores at 8,192 each; a chip has 128", "Use several chips.", _LOIHI)
    for name, node in view.neurons():
        error = abs(4096 * (1 - exp(-node.leak)) - round(4096 * (1 - exp(-node.leak))))
        if node.leak and error > 0.01 * 4096 * (1 - exp(-node.leak)):
            yield Finding(
                name, "its decay is rounded to 1/4096 by more than 1 %", "Use a longer delta_t.", _LAVA, fits=True
            )
    yield Finding(
        "",
        "the LIF process of Lava sets potentials to 0 at a spike, those of dsr subtract",
        "Write a neuron process of your own (microcode can subtract), with 24-bit potentials.",
        _LAVA,
        fits=True,
    )
    pools = [name for name, _ in view.pools()]
    if pools:
        yield Finding(
            "",
            f"{_names(pools)}: Lava has no pooling",
            "Write it as a convolution with equal weights.",
            _LAVA,
            fits=True,
        )


def _spinnaker2(view: _View) -> Iterator[Finding]:
    for name, node in view.weights():
        geometry = node.geometry
        if geometry is None:
            continue
        if len(node.before) != 3:
            yield Finding(name, "py-spinnaker2 has no 1-D convolution", "Use images of height 1.", _SPINNAKER)
        if geometry.dilation != (1, 1) or geometry.groups != 1:
            yield Finding(
                name, "py-spinnaker2 reads neither dilation nor groups", "Use an ordinary convolution.", _SPINNAKER
            )
        if geometry.padding[:1] + geometry.padding[2:3] != geometry.padding[1:2] + geometry.padding[3:]:
            yield Finding(name, 'py-spinnaker2 does not read padding "same"', "Use an odd kernel.", _SPINNAKER)
    for name, pool in view.pools():
        if pool.stride != pool.kernel_size or pool.padding != (0, 0):
            yield Finding(
                name, "py-spinnaker2 pools windows that do not overlap, without padding", "Use such.", _SPINNAKER
            )
    # a byte a weight, and four a potential: the least that the network can take
    needed = sum(node.weight.size for _, node in view.weights()) + 4 * sum(
        prod(node.features) for _, node in view.neurons()
    )
    memory = 152 * 128 * 1024
    if needed > memory:
        yield Finding(
            "",
            f"weights and potentials take {needed:,} bytes at least; the 152 cores of a chip have {memory:,}",
            "Use a smaller width, or several chips.",
            _SPINNAKER_CHIP,
        )
    yield Finding(
        "",
        "samples reach the chip as spikes, values of samples do not",
        "Give it event data, or encode images as spikes (dsr.functional).",
        _SPINNAKER,
        fits=True,
    )


_STARTING = (
    "Train with alpha = 1, or set the threshold to v_threshold and the initial potential to (1 - alpha) v_threshold."
)

TARGETS: dict[str, tuple[Rule, ...]] = {
    "speck": (
        _speck_shapes,
        _no_steps("Speck", _SPECK),
        _weights_between_neurons("Speck", _SPECK_NETWORKS, sums=False),
        _integrate_and_fire("Speck", "has a constant leak only", _SPECK_LEAK),
        _one_threshold("Speck", _SPECK_CODE),
        _speck_destinations,
        _speck_cores,
        _eight_bits(2**15 - 1, 16, "Speck", _SPECK),
        _threshold_is_subtracted(_STARTING, _SPECK_RESET),
        _speck_classes,
    ),
    "xylo": (
        _xylo,
        _no_steps("Xylo", _XYLO),
        _weights_between_neurons("Xylo", _XYLO, sums=True),
        _eight_bits(2**15 - 1, 16, "Xylo", _XYLO),
        _threshold_is_subtracted("Train with alpha = 1.", _XYLO),
    ),
    "loihi2": (
        _loihi2,
        _no_steps("Lava", _LAVA),
        _eight_bits(2**17 - 1, 24, "Loihi 2", _LAVA),
        _threshold_is_subtracted(_STARTING, _LAVA),
    ),
    "spinnaker2": (
        _spinnaker2,
        _no_steps("py-spinnaker2", _SPINNAKER),
        _weights_between_neurons("SpiNNaker2", _SPINNAKER, sums=True),
        _threshold_is_subtracted(_STARTING, _SPINNAKER),
    ),
}
"""Rules by chip."""


def check(network: Network, features: tuple[int, ...], target: str) -> list[Finding]:
    """What a chip cannot take of a network, and what one should know.

    Parameters
    ----------
    network : Network
        Trained or not: most limits are those of shapes.
    features : tuple of int
        Shape of a sample, ``(C, H, W)``, ``(C, L)`` or ``(N,)``.
    target : {"speck", "xylo", "loihi2", "spinnaker2"}
        The chip.

    Returns
    -------
    list of Finding
        Those that do not fit first.

    Raises
    ------
    ValueError
        The chip is unknown, or samples of this shape do not fit the network.
    """
    if target not in TARGETS:
        raise ValueError(f"check: argument 'target': expected one of {', '.join(TARGETS)}, got {shown(target)}")
    if not isinstance(network, Network):
        raise TypeError(f"check: argument 'network': expected a Network, got {type(network).__name__}")
    features = as_features("check", features)
    try:
        graph = fold("check", network, features, Style(sums=True, diagonal=True))
    except ValueError as error:
        if "do not fit the network" in str(error):
            raise
        # a layer that no graph has, no chip has
        layer, _, reason = str(error).removeprefix("check: layer '").partition("': ")
        return [Finding(layer, reason, "Use another layer.", "NIR, https://neuroir.org")]
    view = _View(graph)
    findings = [finding for rule in TARGETS[target] for finding in rule(view)]
    return sorted(findings, key=lambda finding: finding.fits)
