"""As `dsr.deploy.c.unflatten`, of the steps of an integer network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsr.deploy import integer_steps as i
from dsr.ops import Geometry
from dsr.ops.geometry import POINTWISE


def unflatten_steps(steps: Sequence[i.Step]) -> tuple[i.Step, ...]:
    """The same steps without the vectors that only convolutions of one tap read."""
    gone = {
        number
        for number, step in enumerate(steps)
        if isinstance(step, i.Flatten) and all(_reads_linearly(reader, number) for reader in steps)
    }
    places, found = dict[int, int](), list[i.Step]()
    for number, step in enumerate(steps):
        if number in gone:
            places[number] = places[step.reads[0]]
            continue
        match step:
            case i.Neurons() | i.ReadCurrent():
                terms = tuple(_moved(term, steps, places, gone) for term in step.terms)
                found.append(replace(step, terms=terms))
            case i.Gate() | i.Concat():
                found.append(replace(step, sources=tuple(places[source] for source in step.sources)))
            case i.Pool() | i.Flatten() | i.Upsample() | i.ReadSpikes():
                found.append(replace(step, source=places[step.source]))
            case _:
                found.append(step)
        places[number] = len(found) - 1
    return tuple(found)


def _reads_linearly(step: i.Step, number: int) -> bool:
    if number not in step.reads:
        return True
    if not isinstance(step, i.Neurons | i.ReadCurrent):
        return False
    terms = [term for term in step.terms if term.source == number]
    return all(isinstance(term, i.Taps) and term.geometry == POINTWISE for term in terms)


def _moved(term: i.Term, steps: Sequence[i.Step], places: dict[int, int], gone: set[int]) -> i.Term:
    source = places[term.source]
    if term.source not in gone or isinstance(term, i.Added):
        return replace(term, source=source)
    shape = steps[steps[term.source].reads[0]].features
    return replace(term, source=source, weight=term.weight.reshape(-1, *shape), geometry=Geometry(shape[1:]))
