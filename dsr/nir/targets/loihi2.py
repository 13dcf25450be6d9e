"""Loihi 2, as Lava sees it."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, exp, prod

from dsr.nir.targets.rules import (
    STARTING,
    Finding,
    Rule,
    View,
    eight_bits,
    names,
    no_maximum,
    threshold_is_subtracted,
)

_LOIHI = "Intel, Loihi 2 technology brief (2021)"
_LAVA = "lava, src/lava/proc/lif/models.py and src/lava/proc/conv"


def _loihi2(view: View) -> Iterator[Finding]:
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
            f"{names(pools)}: Lava has no pooling",
            "Write it as a convolution with equal weights.",
            _LAVA,
            fits=True,
        )


RULES: tuple[Rule, ...] = (
    _loihi2,
    no_maximum("Lava", _LAVA),
    eight_bits(2**17 - 1, 24, "Loihi 2", _LAVA),
    threshold_is_subtracted(STARTING, _LAVA),
)
