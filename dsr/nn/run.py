"""Run: what a pass through a network is for, what it may keep, and who watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from dsr.nn.currents import Current, Dense, Signal

if TYPE_CHECKING:
    from dsr.nn.layer import Layer


class Budget:
    """Decides which currents a training pass keeps for its backward pass.

    They are kept as long as they fit the budget together; beyond it the largest is dropped, and computed again when the
    backward pass asks for it. (Convolutions cost about the same at every stage of a network, but the first stages have
    the largest currents.)

    Parameters
    ----------
    size : int
        Bytes.
    """

    def __init__(self, size: int) -> None:
        self.size, self.total, self._seen = size, 0, 0
        self._kept: list[tuple[int, int, str, Current]] = []  # a heap, largest first; the number breaks ties
        self.dropped: list[str] = []

    @property
    def kept(self) -> list[str]:
        """Paths of the layers whose input is kept, in forward order."""
        return [path for _, _, path, _ in sorted(self._kept, key=lambda entry: entry[1])]

    def add(self, path: str, current: Current) -> None:
        """Keep the values of the input of the layer at `path` if there is room, or if there are larger ones to drop."""
        if all(isinstance(term, Dense) for term in current.terms):
            return  # they are stored anyway
        self._seen += 1
        heappush(self._kept, (-current.nbytes, self._seen, path, current))
        self.total += current.nbytes
        while self.total > self.size:
            _, _, dropped, largest = heappop(self._kept)
            self.total -= largest.nbytes
            largest.drop()
            self.dropped.append(dropped)


@dataclass(frozen=True)
class Run:
    """What a pass through a network is for.

    Attributes
    ----------
    training : bool
        Batch statistics, dropout, and state for `backward`; else running statistics and nothing kept.
    observer : callable or None
        Called as ``observer(path, layer, output)`` after each layer's forward pass.
    budget : Budget
        In training: which currents are kept for the backward pass.
    choices : list of (path, choice) or None
        Gets how each layer was evaluated, see `dsr.inspect.plan`.
    frozen : bool
        In training: state for `backward` alone; statistics and dropout are as in evaluation.
    weight_bits : int
        Kernels of convolutions are rounded to so many bits, see `dsr.nn.rounding`; 0: they are not. Gradients pass
        through the rounding as if it were not there.
    """

    training: bool = False
    observer: Callable[[str, Layer, Signal], None] | None = None
    budget: Budget = field(default_factory=lambda: Budget(0))
    choices: list[tuple[str, str]] | None = None
    frozen: bool = False
    weight_bits: int = 0

    def note(self, path: str, choice: str) -> None:
        """Note how the layer at `path` was evaluated."""
        if self.choices is not None:
            self.choices.append((path, choice))
