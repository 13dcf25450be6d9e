"""Xylo Audio 2: dense layers of leaky neurons."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log2, prod

from dsr.nir.folding import Weights
from dsr.nir.targets.rules import (
    Finding,
    Rule,
    View,
    eight_bits,
    no_maximum,
    threshold_is_subtracted,
    weights_between_neurons,
)

_XYLO = "https://rockpool.ai/devices/xylo-overview.html (Xylo Audio 2)"


def _xylo(view: View) -> Iterator[Finding]:
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


RULES: tuple[Rule, ...] = (
    _xylo,
    no_maximum("Xylo", _XYLO),
    weights_between_neurons("Xylo", _XYLO, sums=True),
    eight_bits(2**15 - 1, 16, "Xylo", _XYLO),
    threshold_is_subtracted("Train with alpha = 1.", _XYLO),
)
