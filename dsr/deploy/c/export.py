"""Writes a program as a folder of plain C."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from dsr.data.preprocessing import Preprocessing
from dsr.deploy import integer_steps
from dsr.deploy.c.float_order import refuse
from dsr.deploy.c.float_source import float_library
from dsr.deploy.c.float_twin import FloatTwin
from dsr.deploy.c.int8_source import int8_library
from dsr.deploy.c.int8_twin import Int8Twin
from dsr.deploy.c.library import Library, plain
from dsr.deploy.c.storage import plan
from dsr.deploy.c.unflatten import unflatten
from dsr.deploy.c.vector import Twin, vector
from dsr.deploy.integer_model import IntegerModel
from dsr.deploy.program import Convolution, Neurons, Program, Rectify
from dsr.files import atomic
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_flag, require_finite, shown

LARGEST_ARRAY = 2**31 - 1
"""Elements that the C code, whose numbers have 32 bits, can index."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    folder : Path
        Where.
    name : str
        Prefix of its names.
    flash : int
        Bytes of its constants.
    ram : int
        Bytes of a state.
    rates : ndarray of float32, shape (T, outputs)
        Rates of the test's sample after each time step.
    """

    folder: Path
    name: str
    flash: int
    ram: int
    rates: Values

    def __str__(self) -> str:
        """Folder and sizes, in a line."""
        sizes = f"{self.flash:,} bytes of constants (flash), {self.ram:,} bytes of state (RAM)"
        return f"{self.folder}: lib{self.name}, {sizes}"


def export_c(
    model: Program | IntegerModel,
    folder: str | Path,
    *,
    name: str = "network",
    frames: bool = False,
    sample: ArrayLike | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] = (),
) -> Exported:
    """Write a network as a C99 library that needs nothing: no Python, no memory allocation, no threads.

    Parameters
    ----------
    model : Program or IntegerModel
        From `dsr.deploy.lowering.lower`, in float32; or from `dsr.quantize`, in integers.
    folder : path
        Made where it does not exist; files of the same names are replaced, others stay.
    name : str
        What files and functions begin with, an identifier of C.
    frames : bool
        Whether a sample consists of frames, one for each time step. Otherwise it is one frame, of which all that the
        first neurons get is computed once and kept, which takes RAM.
    sample : array_like, shape of a sample, or (T, ...) with `frames`
        For the test that is written too; by default drawn from the normal distribution.
    preprocessing : Preprocessing, optional
        How raw samples become frames, for the README; by default that of an `IntegerModel`.
    classes : sequence of str
        Names of the outputs, for the README; by default those of an `IntegerModel`.

    Returns
    -------
    Exported
        Sizes of what was written.

    Raises
    ------
    TypeError, ValueError
        An argument is none of these, or the network has ordinary activations (`dsr.ReLU`), or an array that 32 bits
        cannot index.
    OSError
        A file could not be written.

    Notes
    -----
    Of an `IntegerModel`, the library has its spikes and rates, bit for bit.

    Of a program, the arithmetic is float32 in an order that the code fixes, so every C compiler gives the same bits,
    which the test compares. They are not those of `Network.forward`, which takes sums in another order: each input
    current of a neuron is within ``2 (K + 4) eps M`` of the network's, as long as the spikes that it is computed from
    are the same; K is the number of its weights, M the sum of ``|weight x|`` with the bias, and eps = 2**-24. So a
    spike may differ where a potential comes that close to its threshold.
    """
    if not isinstance(model, Program | IntegerModel):
        expected = "expected a Program or an IntegerModel"
        raise TypeError(f"export_c: argument 'model': {expected}, got {shown(model)}")
    frames, name = as_flag("export_c", "frames", frames), _name(name)
    if (numbers := model.timesteps * prod(model.features)) > LARGEST_ARRAY:
        raise ValueError(f"export_c: argument 'model': expected samples that 32 bits index, got {numbers:,} numbers")
    given = _sample(model, frames, sample)
    library: Library
    twin: Twin
    if isinstance(model, IntegerModel):
        preprocessing, classes = preprocessing or model.preprocessing, classes or model.classes
        _require_neurons(any(isinstance(step, integer_steps.Neurons) for step in model.steps))
        library = int8_library(name, model, not frames)
        twin = Int8Twin(model.steps)
    else:
        _check(model)
        model.refuse_graded("export_c", "the C library")
        program = unflatten(model)
        storage = plan(program, not frames)
        library, twin = float_library(name, program, storage), FloatTwin(program, storage)
    text, rates = vector(library, twin, given)
    about = {"preparation": _preparation(preprocessing), "classes": _listed_classes(classes)}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for file, content in library.texts(text, about).items():
        atomic.write(target / file, content.encode())
    return Exported(target, name, library.flash, library.ram, rates)


def _check(program: Program) -> None:
    _require_neurons(any(isinstance(step, Neurons) for step in program.steps))
    for step in program.steps:
        if isinstance(step, Rectify):
            raise refuse(step)
        largest = max(prod(step.shape), step.weight.size if isinstance(step, Convolution) else 0)
        if largest > LARGEST_ARRAY:
            wanted = f"expected arrays that 32 bits index, got one of {largest:,}"
            raise ValueError(f"export_c: layer '{step.path}': {wanted}")


def _require_neurons(found: bool) -> None:
    if not found:
        raise ValueError("export_c: argument 'model': expected a network with spiking neurons, got one without")


def _name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name):
        expected = "an identifier of C of at most 41 characters that begins with a letter"
        raise ValueError(f"export_c: argument 'name': expected {expected}, got {shown(name)}")
    return name


def _sample(model: Program | IntegerModel, frames: bool, sample: ArrayLike | None) -> Values:
    """The test's sample, (1 or T, *features)."""
    shape = (model.timesteps, *model.features) if frames else model.features
    if sample is None:
        drawn = np.random.default_rng(0).normal(size=shape)
        return drawn.astype(np.float32).reshape(-1, *model.features)
    array = as_array("export_c", "sample", sample)
    if array.shape != shape:
        raise ValueError(f"export_c: argument 'sample': expected shape {shape}, got {array.shape}")
    require_finite("export_c", "sample", array)
    return array.astype(np.float32).reshape(-1, *model.features)


def _preparation(preprocessing: Preprocessing | None) -> str:
    """What happens to a raw sample first, as the end of a sentence."""
    if preprocessing is None:
        return ", prepared as in training"
    if preprocessing.kind == "recordings":
        return f": {preprocessing.timesteps} frames of events, cut by {preprocessing.frames_by}"
    if not preprocessing.mean:
        return ", as they are"
    bytes_first = "bytes divided by 255, then " if preprocessing.kind == "images" else ""
    mean, deviation = (
        ", ".join(f"{x:.7g}" for x in values) for values in (preprocessing.mean, preprocessing.deviation)
    )
    return f": {bytes_first}minus the mean and divided by the deviation of its channel, ({mean}) and ({deviation})"


def _listed_classes(classes: Sequence[str]) -> str:
    return f"- The rates are those of, in this order: {', '.join(map(plain, classes))}.\n" if classes else ""
