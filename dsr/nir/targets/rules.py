"""Findings about a network and a chip, and rules that several chips share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from dsr.nir.folding import AnyNode, Folded, Neurons, Output, Pool, Step, Weights


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
class View:
    """A graph, with what its rules ask for often."""

    graph: Folded

    def of(self, kind: type[AnyNode]) -> Iterator[tuple[str, AnyNode]]:
        """The nodes of a kind with their names."""
        return ((name, node) for name, node in self.graph.nodes.items() if isinstance(node, kind))

    def weights(self) -> Iterator[tuple[str, Weights]]:
        """Convolutions and linear layers."""
        return ((name, node) for name, node in self.graph.nodes.items() if isinstance(node, Weights))

    def neurons(self) -> Iterator[tuple[str, Neurons]]:
        """Layers of neurons."""
        return iter(self.graph.neurons().items())

    def pools(self) -> Iterator[tuple[str, Pool]]:
        """Pooling."""
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


Rule = Callable[[View], Iterator[Finding]]


def names(names: Sequence[str]) -> str:
    """Names of layers as a message has them."""
    return ", ".join(f"'{name}'" for name in names)


def no_maximum(chip: str, source: str) -> Rule:
    """No maximum pooling."""

    def rule(view: View) -> Iterator[Finding]:
        for name, _ in view.of(Step):
            layer = name.removesuffix(".any")
            yield Finding(
                layer, f"{chip} has no maximum pooling", "Use AvgPool2d, which becomes a sum, or a stride.", source
            )

    return rule


def weights_between_neurons(chip: str, source: str, sums: bool) -> Rule:
    """Each layer of neurons has weights of its own; `sums`: several layers of weights may lead to one."""

    def rule(view: View) -> Iterator[Finding]:
        kinds = (Weights, Neurons, Output, Step)
        for name, _ in view.weights():
            bare = [n for n in view.ahead(name, kinds) if not isinstance(view.graph.nodes[n], Neurons)]
            if bare:
                yield Finding(
                    name,
                    f"its values go to {names(bare)} without neurons; on {chip} neurons follow each layer of weights",
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
                    f"it sums {names(weights)}; on {chip} neurons have one layer of weights",
                    "Add the spikes of two layers before a convolution instead (SpikeResidual).",
                    source,
                )

    return rule


def integrate_and_fire(chip: str, leak: str, source: str) -> Rule:
    """No neurons that leak; `leak` is what the chip has instead."""

    def rule(view: View) -> Iterator[Finding]:
        for name, node in view.neurons():
            if node.leak:
                yield Finding(name, f"its neurons leak by a factor; {chip} {leak}", "Use IF neurons.", source)

    return rule


def threshold_is_subtracted(how: str, source: str) -> Rule:
    """Neurons fire at the threshold that they subtract; `how` they take others."""

    def rule(view: View) -> Iterator[Finding]:
        layers = [name for name, node in view.neurons() if node.alpha != 1]
        if layers:
            yield Finding(
                "",
                f"{names(layers)} fire at alpha = {view.graph.neurons()[layers[0]].alpha:g} of what they subtract; "
                "the chip fires at the threshold that it subtracts",
                how,
                source,
                fits=True,
            )

    return rule


def one_threshold(chip: str, source: str) -> Rule:
    """A layer has one threshold."""

    def rule(view: View) -> Iterator[Finding]:
        for name, node in view.neurons():
            if np.ndim(node.v_threshold):
                yield Finding(
                    name,
                    f"each channel has a threshold of its own; {chip} has one for a layer",
                    "Train with one threshold for the layer (a number as v_threshold).",
                    source,
                )

    return rule


def eight_bits(largest: int, state_bits: int, chip: str, source: str) -> Rule:
    """Weights of 8 bits in one scale with thresholds up to `largest`."""

    def rule(view: View) -> Iterator[Finding]:
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


STARTING = (
    "Train with alpha = 1, or set the threshold to v_threshold and the initial potential to (1 - alpha) v_threshold."
)
"""What to do where a chip fires at the threshold that it subtracts."""
