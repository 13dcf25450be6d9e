"""Memory of calls that have returned, kept for the next calls; threads may share it."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

MOST_KINDS = 16
"""Kinds, such as sizes of batches, whose memory is kept."""
PLANS_KEPT = 4
"""Of a stream: numbers of time steps at once whose calls and memory are kept."""

Item = TypeVar("Item")


class Idle(Generic[Item]):
    """Objects that are not in use, by kind."""

    def __init__(self) -> None:
        self._items: dict[Hashable, list[Item]] = {}
        self._lock = Lock()

    def take(self, kind: Hashable) -> Item | None:
        """One of this kind, which is the caller's until it is given back; None if there is none."""
        with self._lock:
            items = self._items.get(kind)
            return items.pop() if items else None

    def give_back(self, kind: Hashable, item: Item) -> None:
        """Keep it for the next `take`; those of another kind may be dropped for it."""
        with self._lock:
            self._items.setdefault(kind, []).append(item)
            if len(self._items) > MOST_KINDS:
                del self._items[next(other for other in self._items if other != kind)]
