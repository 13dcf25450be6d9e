"""Linear layers on flattened images as convolutions of the images: the vectors need not be stored."""

from __future__ import annotations

from dataclasses import replace

from dsr.deploy import program as p
from dsr.ops import Geometry
from dsr.ops.geometry import POINTWISE


def unflatten(program: p.Program) -> p.Program:
    """The same program without the vectors that only convolutions of one tap read."""
    steps, readers = program.steps, program.readers()
    gone = {
        number
        for number, step in enumerate(steps)
        if isinstance(step, p.Flatten) and readers[number] and all(_is_linear(steps[r]) for r in readers[number])
    }
    places, found = dict[int, int](), list[p.Step]()
    for number, step in enumerate(steps):
        if number in gone:
            places[number] = places[step.inputs[0]]
            continue
        read = replace(step, inputs=tuple(places[source] for source in step.inputs))
        if isinstance(read, p.Convolution) and step.inputs[0] in gone:
            shape = steps[steps[step.inputs[0]].inputs[0]].shape
            read = replace(read, weight=read.weight.reshape(-1, *shape), geometry=Geometry(shape[1:]))
        places[number] = len(found)
        found.append(read)
    return replace(program, steps=tuple(found))


def _is_linear(step: p.Step) -> bool:
    return isinstance(step, p.Convolution) and step.geometry == POINTWISE
