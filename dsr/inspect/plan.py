"""Plan: how each layer of a network is evaluated, and which of its currents a training step keeps.

>>> print(inspect.plan(network, images).text())
>>> print(inspect.plan(network, images, training=True).text())
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dsr.nn.network import Network
from dsr.nn.run import Budget, Run


@dataclass(frozen=True)
class PlanRow:
    """How a layer was evaluated.

    Attributes
    ----------
    path, kind : str
        The layer.
    forward, backward : tuple of str
        The choices made in its forward pass, and, in training, in its backward pass, in order; none where there is
        nothing to choose.
    """

    path: str
    kind: str
    forward: tuple[str, ...]
    backward: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """How a network was evaluated.

    Attributes
    ----------
    rows : tuple of PlanRow
        The layers, in forward order.
    kept, dropped : tuple of str
        In training, by the paths of the layers that read them: the currents that are kept for the backward pass, and
        those that `Network`'s ``keep_bytes`` has no room for, which are computed again.
    """

    rows: tuple[PlanRow, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]

    def text(self) -> str:
        """A line for each layer."""
        width = max((len(row.path) for row in self.rows), default=0)
        lines = []
        for row in self.rows:
            choices = "; ".join((*row.forward, *(f"back: {choice}" for choice in row.backward)))
            if row.path in self.kept or row.path in self.dropped:
                choices += "; input kept" if row.path in self.kept else "; input dropped"
            lines.append(f"{row.path:{width}}  {row.kind}: {choices or 'nothing to choose'}")
        return "\n".join(lines)


def plan(network: Network, data: ArrayLike, *, training: bool = False) -> Plan:
    """Say how a network is evaluated for some data.

    Parameters
    ----------
    network : Network
        It is not changed.
    data : array_like
        As for `Network.forward`; firing rates and the batch size have a say.
    training : bool
        A training step, forward and backward, instead of an evaluation.

    Raises
    ------
    TypeError, ValueError
        `data` does not fit the network.
    """
    twin = copy.deepcopy(network)
    run = Run(training, budget=Budget(network.keep_bytes), choices=[])
    output = twin.evaluate(data, run)
    assert run.choices is not None
    ahead = len(run.choices)
    if training:
        twin.backward(np.zeros_like(output))
    choices = _by_path(run.choices[:ahead]), _by_path(run.choices[ahead:])
    rows = tuple(
        PlanRow(path, layer.kind(), *(tuple(part.get(path, ())) for part in choices))
        for path, layer in network.body.walk()
        if not layer.children()
    )
    return Plan(rows, tuple(run.budget.kept), tuple(run.budget.dropped))


def _by_path(choices: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, choice in choices:
        found.setdefault(path, []).append(choice)
    return found
