"""The file that libdsr loads: a program as words of 32 bits, little-endian.

A header of 32 bytes: ``DSRMODEL``, the version, the number of steps and T as unsigned integers of 32 bits, the CRC-32
and, in 64 bits, the length of what follows. Then the shapes of input and output, each with its number of axes before
it, the leak of the output, and the steps. A step is: kind, number of inputs, inputs, shape, number of amplitudes (0:
values), amplitudes, and what its kind needs. Numbers without a sign and floats have 32 bits. ``csrc/libdsr/read.c``
reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import program as p
from dsr.files import atomic
from dsr.ops import Values
from dsr.ops.arguments import shown

MAGIC = b"DSRMODEL"
VERSION = 1
MOST_STEPS = 1 << 16

_KINDS = (
    p.Input,
    p.Convolution,
    p.Sum,
    p.AveragePool,
    p.MaxPool,
    p.Upsample,
    p.Concat,
    p.Flatten,
    p.Gate,
    p.Neurons,
)
"""By their numbers in the file."""


def save_program(program: p.Program, path: str | Path) -> int:
    """Write a program as a file that libdsr loads; its length in bytes.

    Parameters
    ----------
    program : Program
        From `dsr.deploy.lowering.lower`.
    path : path
        An older file is replaced at the end, in one step.

    Raises
    ------
    TypeError, ValueError
        `program` is no program, or has a step that libdsr does not know (`dsr.ReLU`, neurons that emit
        graded spikes).
    OSError
        The file could not be written; an older one is as it was.
    """
    content = packed(program)
    atomic.write(path, content)
    return len(content)


def packed(program: p.Program) -> bytes:
    """The content of the file."""
    if not isinstance(program, p.Program):
        raise TypeError(f"save_program: argument 'program': expected a Program, got {shown(program)}")
    if len(program.steps) > MOST_STEPS:
        raise ValueError(f"save_program: expected at most {MOST_STEPS:,} steps, got {len(program.steps):,}")
    program.refuse_graded("save_program", "libdsr")
    parts = [_shape(program.features), _shape(program.output_features), _floats(program.leak)]
    parts += [part for step in program.steps for part in _step(step)]
    body = b"".join(parts)
    head = struct.pack("<IIIIQ", VERSION, len(program.steps), program.timesteps, crc32(body), len(body))
    return MAGIC + head + body


def _words(*numbers: int) -> bytes:
    return np.array(numbers, "<u4").tobytes()


def _floats(numbers: float | NDArray[np.floating[Any]]) -> bytes:
    return np.asarray(numbers, "<f4").tobytes()


def _shape(features: Iterable[int]) -> bytes:
    sizes = tuple(features)
    return _words(len(sizes), *sizes)


def _step(step: p.Step) -> list[bytes]:
    if type(step) not in _KINDS:
        raise ValueError(
            f"save_program: layer '{step.path}': expected layers of spiking networks, got {type(step).__name__}"
        )
    heights = np.zeros(0) if step.amplitude is None else np.atleast_1d(step.amplitude)
    head = _words(_KINDS.index(type(step)), len(step.inputs), *step.inputs, *step.shape, len(heights))
    return [head, _floats(heights), *_rest(step)]


def _rest(step: p.Step) -> list[bytes]:
    match step:
        case p.Convolution():
            g = step.geometry
            numbers = (*g.kernel, *g.stride, *g.padding, *g.dilation, *g.spread, g.groups)
            return [_words(*numbers, step.bias is not None), _floats(step.weight), *_bias(step.bias)]
        case p.Sum():
            return [_words(step.bias is not None), *map(_floats, step.factors), *_bias(step.bias)]
        case p.Pool():
            return [_words(*step.kernel_size, *step.stride, *step.padding)]
        case p.Upsample():
            return [_words(*step.factor)]
        case p.Gate():
            return [_words(step.fires)]
        case p.Neurons():
            both = np.broadcast_arrays(np.atleast_1d(step.model.v_threshold), np.atleast_1d(step.model.fire))
            head = [_floats(step.model.decay), _floats(step.model.gain), _words(len(both[0]))]
            return [*head, *map(_floats, both)]
    return []


def _bias(bias: Values | None) -> list[bytes]:
    return [] if bias is None else [_floats(bias)]
