"""The file that libdsr loads: a program, of floats or of integers, as words of 32 bits, little-endian.

A header of 32 bytes: ``DSRMODEL``, the version, the number of steps and T as unsigned integers of 32 bits, the CRC-32
and, in 64 bits, the length of what follows. Then the shapes of input and output, each with its number of axes before
it, the leak of the output, and the steps. A step is: kind, number of inputs, inputs, shape, number of amplitudes (0:
values), amplitudes, and what its kind needs. Numbers have 32 bits; only the weights of convolutions of integers have 8,
four in a word, and a flag before them: 1 where the kernel is the sum of the four shifts of the smaller one that is
stored (`dsr.deploy.integer_file.as_stored`). ``csrc/libdsr/read.c`` and the files beside it read this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.deploy import program as p
from dsr.deploy.integer_file import as_stored
from dsr.deploy.integer_model import IntegerModel
from dsr.files import atomic
from dsr.ops import Geometry, Values
from dsr.ops.arguments import shown

MAGIC = b"DSRMODEL"
VERSION = 2
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
    i.Input,
    i.Pool,  # that counts
    i.Neurons,
    i.ReadCurrent,
    i.ReadSpikes,
)
"""By their numbers in the file."""
_MOVING = {i.Upsample: p.Upsample, i.Concat: p.Concat, i.Flatten: p.Flatten, i.Gate: p.Gate}
"""Steps of integers that are the same with floats."""


def save_model(model: p.Program | IntegerModel, path: str | Path) -> int:
    """Write a network as a file that libdsr loads; its length in bytes.

    Parameters
    ----------
    model : Program or IntegerModel
        From `dsr.deploy.lowering.lower`, in float32; or from `dsr.quantize`, in integers.
    path : path
        An older file is replaced at the end, in one step.

    Raises
    ------
    TypeError, ValueError
        `model` is neither, or has a step that libdsr does not know (`dsr.ReLU`, neurons that emit graded spikes).
    OSError
        The file could not be written; an older one is as it was.
    """
    content = packed(model)
    atomic.write(path, content)
    return len(content)


def packed(model: p.Program | IntegerModel) -> bytes:
    """The content of the file."""
    if not isinstance(model, p.Program | IntegerModel):
        raise TypeError(f"save_model: argument 'model': expected a Program or an IntegerModel, got {shown(model)}")
    if len(model.steps) > MOST_STEPS:
        raise ValueError(f"save_model: expected at most {MOST_STEPS:,} steps, got {len(model.steps):,}")
    leak = 0.0
    if isinstance(model, p.Program):
        model.refuse_graded("save_model", "libdsr")
        leak = model.leak
        steps = [_step(step) for step in model.steps]
    else:
        steps = [_integer_step(*both) for both in zip(model.steps, i.data_steps(model.steps), strict=True)]
    parts = [_shape(model.features), _shape(model.output_features), _floats(leak), *(b"".join(step) for step in steps)]
    body = b"".join(parts)
    head = struct.pack("<IIIIQ", VERSION, len(model.steps), model.timesteps, crc32(body), len(body))
    return MAGIC + head + body


def _words(*numbers: int) -> bytes:
    return np.array(numbers, "<i8").astype("<u4").tobytes()  # modulo 2**32


def _floats(numbers: float | NDArray[np.floating[Any]]) -> bytes:
    return np.asarray(numbers, "<f4").tobytes()


def _shape(features: Iterable[int]) -> bytes:
    sizes = tuple(features)
    return _words(len(sizes), *sizes)


def _step(step: p.Step) -> list[bytes]:
    if type(step) not in _KINDS:
        raise ValueError(
            f"save_model: layer '{step.path}': expected layers of spiking networks, got {type(step).__name__}"
        )
    heights = np.zeros(0) if step.amplitude is None else np.atleast_1d(step.amplitude)
    head = _words(_KINDS.index(type(step)), len(step.inputs), *step.inputs, *step.shape, len(heights))
    return [head, _floats(heights), *_rest(step)]


def _rest(step: p.Step) -> list[bytes]:
    match step:
        case p.Convolution():
            windows = _words(*_geometry(step.geometry), step.bias is not None)
            return [windows, _floats(step.weight), *_bias(step.bias)]
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


def _geometry(g: Geometry) -> tuple[int, ...]:
    return (*g.kernel, *g.stride, *g.padding, *g.dilation, *g.spread, g.groups)


def _integer_step(step: i.Step, is_data: bool) -> list[bytes]:
    largest = isinstance(step, i.Pool) and step.largest
    kind = p.MaxPool if largest else _MOVING.get(type(step), type(step))
    spikes = int(not is_data and not isinstance(step, i.ReadCurrent | i.ReadSpikes))  # or counts, in units of one
    head = _words(_KINDS.index(kind), len(step.reads), *step.reads, *step.features, spikes)
    return [head, _floats(np.ones(spikes)), *_integer_rest(step)]


def _integer_rest(step: i.Step) -> list[bytes]:
    match step:
        case i.Input():
            return [_words(step.shift, step.most)]
        case i.Pool():
            return [_words(*step.kernel_size, *step.stride, *step.padding)]
        case i.Upsample():
            return [_words(*step.factor)]
        case i.Gate():
            return [_words(not step.negated)]
        case i.Neurons():
            return [*_current(step), _words(*step.reset), _words(*step.fire), _words(step.decay)]
        case i.ReadCurrent():
            return [*_current(step), _floats(step.unit)]
        case i.ReadSpikes():
            return [_words(step.decay), _floats(step.unit)]
    return []


def _current(step: i.Neurons | i.ReadCurrent) -> list[bytes]:
    return [_words(*step.bias), *map(_term, step.terms)]


def _term(term: i.Term) -> bytes:
    if isinstance(term, i.Added):
        return _words(1, *term.weight)
    stored = as_stored(term.weight)
    weight = stored.astype(np.int8).tobytes()
    head = _words(0, *_geometry(term.geometry), term.shift, stored.shape != term.weight.shape)
    return head + weight + bytes(-len(weight) % 4)
