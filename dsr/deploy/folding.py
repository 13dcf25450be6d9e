"""Batch normalisation into weights: factors and biases of sums go into the convolutions before them.

Everything is computed in double and rounded to float32 once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dsr.deploy.program import Convolution, Program, Step, Sum
from dsr.ops import Values

Doubles = NDArray[np.float64]


@dataclass(eq=False)
class _Node:
    """A step while it changes."""

    step: Step
    inputs: list[int]
    bias: Doubles = field(default_factory=lambda: np.zeros(0))
    weight: Doubles = field(default_factory=lambda: np.zeros(0))  # of a convolution
    factors: list[Doubles] = field(default_factory=list)  # of a sum
    gone: bool = False

    @classmethod
    def of(cls, step: Step) -> _Node:
        """The step as it is."""
        node = cls(step, list(step.inputs))
        if isinstance(step, Convolution | Sum):
            node.bias = np.zeros(step.shape[0]) if step.bias is None else step.bias.astype(np.float64)
        if isinstance(step, Convolution):
            node.weight = step.weight.astype(np.float64)
        if isinstance(step, Sum):
            node.factors = [factor.astype(np.float64) for factor in step.factors]
        return node

    def scale(self, factor: Doubles) -> None:
        """Multiply what a convolution gives."""
        self.weight *= factor.reshape(-1, 1, 1, 1)
        self.bias *= factor

    def closed(self, places: Sequence[int]) -> Step:
        """The step again, which reads steps at these places."""
        step = replace(self.step, inputs=tuple(places[i] for i in self.inputs))
        if isinstance(step, Convolution):
            return replace(step, weight=_rounded(step, self.weight), bias=_bias(step, self.bias))
        if isinstance(step, Sum):
            factors = tuple(_rounded(step, factor) for factor in self.factors)
            return replace(step, factors=factors, bias=_bias(step, self.bias))
        return step


def fold(program: Program) -> Program:
    """The same program with factors and biases of sums in the weights of convolutions that nothing else reads.

    A sum that only another sum reads becomes part of that. The bias of a sum goes into its first such convolution, and
    a sum of nothing but one is gone. Sums of spikes and of pooled values, which have no weights of their own, keep
    their factors.
    """
    nodes = [_Node.of(step) for step in program.steps]
    for number, node in enumerate(nodes):
        if isinstance(node.step, Sum):
            _fold_sum(nodes, number)
    places, steps = [0] * len(nodes), list[Step]()
    for number, node in enumerate(nodes):
        if not node.gone:
            places[number] = len(steps)
            steps.append(node.closed(places))
    return replace(program, steps=tuple(steps), folded=True)


def _fold_sum(nodes: list[_Node], number: int) -> None:
    node, own, k = nodes[number], list[_Node](), 0
    while k < len(node.inputs):
        i, factor = node.inputs[k], node.factors[k]
        below = nodes[i]
        alone = sum(other.inputs.count(i) for other in nodes if not other.gone) == 1
        if alone and isinstance(below.step, Sum):
            node.inputs[k : k + 1] = below.inputs
            node.factors[k : k + 1] = [factor * inner for inner in below.factors]
            node.bias += factor * below.bias
            below.gone = True
            continue
        if alone and isinstance(below.step, Convolution):
            below.scale(factor)
            node.factors[k] = np.ones_like(factor)
            own.append(below)
        k += 1
    if own:
        own[0].bias += node.bias
        node.bias = np.zeros_like(node.bias)
    if own and len(node.inputs) == 1:
        node.gone = True
        for other in nodes[number + 1 :]:
            other.inputs = [node.inputs[0] if i == number else i for i in other.inputs]


def _rounded(step: Step, values: Doubles) -> Values:
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise FloatingPointError(f"lower: layer '{step.path}': its weights with those of the normalisation overflow")
    return rounded


def _bias(step: Step, values: Doubles) -> Values | None:
    return _rounded(step, values) if values.any() else None
