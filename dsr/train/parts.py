"""Parts: a batch that is computed in several passes, one after the other, as so many ranks would compute it at once.

With ``accumulate = k`` a step needs the memory of a batch of one k-th. Part j has the samples ``batch[j::k]``, those of
rank j of k, and everything else that such a rank has of its own: its masks of dropout, and batch normalisation with the
statistics of its samples, which begins from the running statistics of the step before. Gradients and running statistics
are summed in the order of the parts, weighted by their share of the samples. So a step in k parts has the bits of one
on k ranks. On R ranks the parts of rank r are ``batch[r k + j::R k]``; each rank sums its own first, which rounds
otherwise than R k ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dsr.nn.describe import description
from dsr.nn.layer import Parameter
from dsr.nn.network import Network
from dsr.ops import Values

if TYPE_CHECKING:
    from dsr.nn.describe import Total
    from dsr.train.distributed import Group


class Parts:
    """The buffers of each part, and the sums over the parts of the step that is under way.

    Parameters
    ----------
    network : Network
        Its buffers are those of the first part between steps.
    count : int
        Parts of a batch; with 1, nothing is copied.
    first : int
        Number of the first of these parts among all: of rank r, ``r * count``.
    joined : bool
        Whether there are others besides these.
    total : callable or None
        For batch normalisation, see `dsr.Layer.join_ranks`.
    """

    def __init__(
        self, network: Network, count: int = 1, first: int = 0, joined: bool = False, total: Total | None = None
    ) -> None:
        layers = [layer for _, layer in network.body.walk() if layer.buffers()]
        self.count = count
        self._buffers = [buffer for layer in layers for buffer in layer.buffers().values()]
        start = self._copies()
        self._before: list[list[NDArray[Any]]] = []
        for number in range(first, first + count) if joined or count > 1 else ():
            self._load(start)
            for layer in layers:
                missing = "{} has buffers, and does not say how ranks share them; give it join_ranks()"
                description("align", layer, "join_ranks", missing)(number, total)
            self._before.append(self._copies())
        if self._before:
            self._load(self._before[0])
        self._statistics = [statistic for layer in layers for statistic in layer.running_statistics().values()]
        self._after: list[list[NDArray[Any]]] = []
        self._sums: list[Values] = []
        self._numbers: list[Sequence[float]] = []

    def _copies(self) -> list[NDArray[Any]]:
        return [buffer.copy() for buffer in self._buffers]

    def _load(self, copies: Sequence[NDArray[Any]]) -> None:
        for buffer, kept in zip(self._buffers, copies, strict=True):
            buffer[...] = kept

    def split(self, batch: NDArray[np.int64], rank: int = 0, size: int = 1) -> list[NDArray[np.int64]]:
        """The samples of each part of this rank."""
        first = rank * self.count
        return [batch[number :: size * self.count] for number in range(first, first + self.count)]

    def begin(self, number: int) -> None:
        """Before the passes of a part: its buffers go into the network."""
        if number == 0:
            self._after, self._sums, self._numbers = [], [], []
        if self.count > 1:
            self._load(self._before[number])

    def add(self, parameters: Mapping[str, Parameter], share: float, numbers: Sequence[float]) -> None:
        """After the passes of a part: its gradients, which are parts already, and running statistics by its share."""
        self._numbers.append(numbers)
        if self.count == 1:
            return
        grads = [p.grad for p in parameters.values() if p.grad is not None]
        found = [*grads, *(np.float32(share) * statistic for statistic in self._statistics)]
        if not self._sums:
            self._sums = [array.copy() for array in found]
        elif len(found) != len(self._sums):
            raise RuntimeError("Parts.add: expected gradients of the same parameters in all parts of a batch")
        else:
            with np.errstate(all="ignore"):  # what is not finite is found, with its name, in the sum
                for total, array in zip(self._sums, found, strict=True):
                    total += array
        self._after.append(self._copies())

    def combine(self, group: Group, parameters: Mapping[str, Parameter], share: float = 1.0) -> NDArray[np.float64]:
        """After all parts: gradients and running statistics summed over them and the ranks.

        Parameters
        ----------
        group : Group
            The ranks.
        parameters : mapping of str to Parameter
            Whose gradients.
        share : float
            Of this rank in the samples of the batch; with one part, by which running statistics count.

        Returns
        -------
        ndarray of float64, shape (ranks * parts, numbers)
            The numbers of each part.
        """
        numbers = group.gather(np.array(self._numbers, np.float64).reshape(-1)).reshape(group.size * self.count, -1)
        if self.count > 1:
            trained = [parameter for parameter in parameters.values() if parameter.grad is not None]
            for parameter, total in zip(trained, self._sums, strict=False):
                parameter.grad = total
            statistics = self._sums[len(trained) :]
        elif group.size > 1:
            statistics = [np.float32(share) * statistic for statistic in self._statistics]
        else:
            return numbers
        means = group.sum_with_gradients(parameters, statistics)
        for part in self._after:
            self._load(part)
            self._write(means)
            for kept, buffer in zip(part, self._buffers, strict=True):
                kept[...] = buffer
        if self._after:
            self._load(self._after[0])
        self._write(means)
        self._sums = []
        return numbers

    def _write(self, means: Sequence[Values]) -> None:
        for statistic, mean in zip(self._statistics, means, strict=True):
            statistic[...] = mean

    def commit(self) -> None:
        """The step is done: the next one begins from its buffers. Asks for no memory."""
        if self._after:
            self._before, self._after = self._after, []
