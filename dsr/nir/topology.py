"""The shape of a NIR graph: its order, and where paths that part meet again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Edge = tuple[str, str]


def flat(nir: Any, graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[Edge]]:
    """Nodes and edges with all graphs inside taken apart; their Input and Output stay, and pass on what they get."""
    nodes: dict[str, Any] = {}
    edges: list[Edge] = []
    entrance: dict[str, str] = {}
    exit_: dict[str, str] = {}
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if not isinstance(node, nir.NIRGraph):
            nodes[path] = node
            continue
        inner, inner_edges = flat(nir, node, f"{path}.")
        nodes |= inner
        edges += inner_edges
        ends = [
            [f"{path}.{n}" for n, x in node.nodes.items() if isinstance(x, kind)] for kind in (nir.Input, nir.Output)
        ]
        if len(ends[0]) != 1 or len(ends[1]) != 1:
            raise ValueError(
                f"from_nir: graph '{path}': expected one Input and one Output, got {len(ends[0])} and {len(ends[1])}"
            )
        entrance[path], exit_[path] = ends[0][0], ends[1][0]
    for source, target in graph.edges:
        for name in (source, target):
            if name not in graph.nodes:
                raise ValueError(f"from_nir: edge ({prefix}{source}, {prefix}{target}): there is no node '{name}'")
        a, b = f"{prefix}{source}", f"{prefix}{target}"
        edges.append((exit_.get(a, a), entrance.get(b, b)))
    return nodes, edges


class Sum:
    """A sum of several nodes that is read as a whole, which graphs have no node for."""


def with_sums(nodes: Mapping[str, Any], edges: Sequence[Edge]) -> tuple[dict[str, Any], list[Edge]]:
    """The graph with a node for each sum that several nodes read, or that is part of a larger one.

    Two spiking layers that are summed and read by two others are four edges of which none can be left out; with a node
    in their middle, paths that part there and paths that meet there are those of a residual block.
    """
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        sources[target].append(source)
    readers: dict[frozenset[str], list[str]] = {}
    for name, before in sources.items():
        if len(set(before)) > 1:
            readers.setdefault(frozenset(before), []).append(name)
    nodes, made = dict(nodes), dict[frozenset[str], str]()
    for parts in sorted(readers, key=len):
        names = readers[parts]
        left, summed = set(parts), []
        for smaller in sorted(made, key=len, reverse=True):
            if smaller <= left:
                left -= smaller
                summed.append(made[smaller])
        summed += [name for name in sources[names[0]] if name in left]
        if len(names) > 1 or any(parts < other for other in readers):
            unique, number = f"{names[0]}.input", 1
            while unique in nodes:
                number += 1
                unique = f"{names[0]}.input_{number}"
            nodes[unique], made[parts], sources[unique] = Sum(), unique, summed
            summed = [unique]
        for name in names:
            if len(sources[name]) == len(parts):  # else an edge occurs twice, which is refused later
                sources[name] = list(summed)
    return nodes, [(source, target) for target, before in sources.items() for source in before]


class Topology:
    """A directed graph without cycles, from one Input to one Output.

    Parameters
    ----------
    nodes : mapping of str to node
        NIR nodes by name.
    edges : sequence of (str, str)
        Between them.

    Attributes
    ----------
    after : dict of str to list of str
        The nodes that a node's edges lead to.
    meeting : dict of str to (str or None)
        The first node that all ways from a node to the Output go through; None for the Output.

    Raises
    ------
    ValueError
        There is a cycle, a node that is not between Input and Output, or not one of each.
    """

    def __init__(self, nodes: Mapping[str, Any], edges: Sequence[Edge]) -> None:
        self.nodes = nodes
        self.after: dict[str, list[str]] = {name: [] for name in nodes}
        before: dict[str, list[str]] = {name: [] for name in nodes}
        for source, target in edges:
            if target in self.after[source]:
                raise ValueError(f"from_nir: edge ({source}, {target}) occurs twice")
            self.after[source].append(target)
            before[target].append(source)
        self.input = self._only(before, "Input")
        self.output = self._only(self.after, "Output")
        order = self._order(before)
        self.meeting: dict[str, str | None] = {}
        rank = {name: number for number, name in enumerate(order)}
        for name in reversed(order):
            meeting = None
            for following in self.after[name]:
                meeting = following if meeting is None else self._common(meeting, following, rank)
            self.meeting[name] = meeting

    def _only(self, neighbours: Mapping[str, list[str]], kind: str) -> str:
        """The one node without neighbours on one side, which has to be of the given kind."""
        ends = [name for name, others in neighbours.items() if not others]
        side = "into" if kind == "Input" else "out of"
        for name in ends:
            if type(self.nodes[name]).__name__ != kind:
                raise ValueError(f"from_nir: node '{name}': expected an edge {side} it, got none")
        if len(ends) != 1:
            raise ValueError(f"from_nir: expected one {kind} without an edge {side} it, got {len(ends)}")
        return ends[0]

    def _order(self, before: Mapping[str, list[str]]) -> list[str]:
        """All nodes, each after those that lead to it."""
        waiting = {name: len(sources) for name, sources in before.items()}
        order = [self.input]
        for name in order:
            for following in self.after[name]:
                waiting[following] -= 1
                if waiting[following] == 0:
                    order.append(following)
        if len(order) < len(self.nodes):
            name = self._on_cycle(set(self.nodes) - set(order), before)
            raise ValueError(f"from_nir: node '{name}' is on a cycle; dsr has feed-forward networks only")
        return order

    @staticmethod
    def _on_cycle(left: set[str], before: Mapping[str, list[str]]) -> str:
        """A node on a cycle: going back from any node that was left, the first that comes again."""
        name, seen = min(left), set[str]()
        while name not in seen:
            seen.add(name)
            name = min(source for source in before[name] if source in left)
        return name

    def _common(self, a: str, b: str, rank: Mapping[str, int]) -> str:
        """The first node that all ways from `a` and all ways from `b` go through."""
        while a != b:
            if rank[a] > rank[b]:
                a, b = b, a
            following = self.meeting[a]
            assert following is not None, "the Output is on all ways"
            a = following
        return a
