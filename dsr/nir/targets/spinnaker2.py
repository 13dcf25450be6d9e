"""SpiNNaker2, as py-spinnaker2 reads NIR."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from dsr.nir.targets.rules import (
    STARTING,
    Finding,
    Rule,
    View,
    no_maximum,
    threshold_is_subtracted,
    weights_between_neurons,
)

_SPINNAKER = "py-spinnaker2, src/spinnaker2/s2_nir.py"
_SPINNAKER_CHIP = "SpiNNaker2 datasheet, version 0.03 (2021)"


def _spinnaker2(view: View) -> Iterator[Finding]:
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


RULES: tuple[Rule, ...] = (
    _spinnaker2,
    no_maximum("py-spinnaker2", _SPINNAKER),
    weights_between_neurons("SpiNNaker2", _SPINNAKER, sums=True),
    threshold_is_subtracted(STARTING, _SPINNAKER),
)
