"""What neuromorphic chips can take, from public sources, and what of a network they cannot.

>>> for finding in check(network, (2, 48, 48), "speck"):
...     print(finding)

The network is looked at as it would be deployed: batch normalisation and heights of spikes in the weights, pooling as
sums (`dsr.nir.folding`). Figures change with chips and their software; each has the source that it was read in.
"""

from __future__ import annotations

from dsr.nir.folding import Style, as_features, fold
from dsr.nir.targets import loihi2, speck, spinnaker2, xylo
from dsr.nir.targets.rules import Finding, Rule, View
from dsr.nn.network import Network
from dsr.ops.arguments import shown

__all__ = ["TARGETS", "Finding", "check"]

TARGETS: dict[str, tuple[Rule, ...]] = {
    "speck": speck.RULES,
    "xylo": xylo.RULES,
    "loihi2": loihi2.RULES,
    "spinnaker2": spinnaker2.RULES,
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
    view = View(graph)
    findings = [finding for rule in TARGETS[target] for finding in rule(view)]
    return sorted(findings, key=lambda finding: finding.fits)
