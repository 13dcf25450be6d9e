"""The C of a network in float32."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, prod

import numpy as np

from dsr.deploy.c import windows
from dsr.deploy.c.float_order import amplitudes, compute, geometry, rows
from dsr.deploy.c.library import Library, Member, at, function, identifier, number_text
from dsr.deploy.c.storage import Storage, is_spikes, words
from dsr.deploy.program import (
    AveragePool,
    Concat,
    Convolution,
    Flatten,
    Gate,
    MaxPool,
    Neurons,
    Pool,
    Program,
    Step,
    Sum,
    Upsample,
)
from dsr.ops import Values


def float_library(name: str, program: Program, storage: Storage) -> Library:
    """The library of a program."""
    steps = program.steps
    library = Library(
        name,
        "float",
        program.features,
        program.output_features,
        steps[-1].shape,
        program.timesteps,
        [steps[i].path for i in storage.potentials],
    )
    source = _Source(library, program, storage)
    for number in (*storage.once, *storage.each_step):
        source.write(number)
    library.once, library.each_step = source.calls(storage.once), source.calls(storage.each_step)
    decay = f"{number_text(exp(-program.leak))} * " if program.leak else ""
    library.each_step.append(f"state->weight[0] = {decay}state->weight[0] + 1;")
    total = f"state->sums[p * {steps[-1].shape[0]} + c]"
    if is_spikes(steps[-1]):
        heights = amplitudes(steps[-1], None)
        total = f"{library.array('height', heights)}[{'c' if len(heights) > 1 else 0}] * {total}"
    library.rate = f"state->weight[0] > 0 ? {total} / state->weight[0] : 0"
    library.members = [
        Member("uint32", "spikes", storage.words, "of one time step"),
        Member("float32", "potentials", storage.potential_count, "of the neurons"),
        Member("float32", "values", storage.values, "of layers that are read at several pixels"),
        Member("float32", "current", storage.current, "of a pixel"),
        Member("float32", "sums", prod(steps[-1].shape), "of the output over time, pixel by pixel"),
        Member("float32", "weight", 1, "of the time steps in the sums"),
    ]
    return library


class _Source:
    """Writes steps, as `Kernels`."""

    def __init__(self, library: Library, program: Program, storage: Storage) -> None:
        self.library, self.program, self.storage = library, program, storage
        self._lines: list[str] = []

    def calls(self, numbers: Iterable[int]) -> list[str]:
        """Calls of the functions of steps."""
        steps = self.program.steps
        return [f"{identifier(i, steps[i].path)}(state{', frame' if self._reads_frame(i) else ''});" for i in numbers]

    def _reads_frame(self, number: int) -> bool:
        left = list(self.program.steps[number].inputs)
        while left:
            i = left.pop()
            if i == 0:
                return True
            if i not in self.storage.place:
                left.extend(self.program.steps[i].inputs)
        return False

    def write(self, number: int) -> None:
        """Add the function of a step."""
        step = self.program.steps[number]
        self._lines, self._number = [], number
        compute(self.program, self.storage, number, self)
        if number == len(self.program.steps) - 1:
            self._read_out(step)
        channels, height, width = step.shape
        own, after = [], []
        if is_spikes(step):
            own.append(f"uint32_t *to = {self._words(number, 'pixel')};")
        if not is_spikes(step) or isinstance(step, Neurons):
            target = "current"
            if number in self.storage.place and not is_spikes(step):
                target = f"values + {self.storage.place[number]} + pixel * {channels}"
            own.append(f"float *current = state->{target};")
        if isinstance(step, Neurons):
            layer = list(self.storage.potentials).index(number)
            after = [f"TRACE({layer}, {self._words(number, '0')}, {height * width * words(channels)});"]
        frame = self._reads_frame(number)
        self.library.functions += function(number, step.path, step.shape, own, self._lines, after, frame)

    def _read_out(self, step: Step) -> None:
        channels = step.shape[0]
        sums = f"state->sums + pixel * {channels}"
        if self.program.leak:
            self._call("dsr_scale_all", number_text(exp(-self.program.leak)), sums, channels)
        if is_spikes(step):
            self._call("dsr_count_spikes", self._words(self._number, "pixel"), sums, channels)
        else:
            self._call("dsr_add", "current", sums, channels)

    # ---- where things are

    def _words(self, number: int, pixel: str) -> str:
        count = words(self.program.steps[number].shape[0])
        start = f"state->spikes + {self.storage.place[number]}"
        return start if pixel == "0" else f"{start} + {pixel}" + (f" * {count}" if count > 1 else "")

    def _values(self, number: int) -> tuple[str, int, int]:
        """Beginning of stored values, and the steps from pixel to pixel and from channel to channel."""
        channels, *pixels = self.program.steps[number].shape
        if number == 0:
            return "frame", 1, prod(pixels)
        return f"state->values + {self.storage.place[number]}", channels, 1

    def _array(self, name: str, values: Values) -> str:
        return self.library.array(name, np.ascontiguousarray(values, np.float32))

    def _windows(self, number: int) -> str:
        step = self.program.steps[number]
        return windows.text(self.program.steps[step.inputs[0]].shape, geometry(step))

    # ---- kernels

    def _call(self, kernel: str, *arguments: object) -> None:
        self._lines.append(f"{kernel}({', '.join(map(str, arguments))});")

    def clear(self, channels: int) -> None:
        """See `Kernels`, as for the others."""
        self._call("dsr_clear", "current", channels)

    def convolve(self, number: int, first: int) -> None:
        """Of spikes or values."""
        step = self.program.steps[number]
        assert isinstance(step, Convolution)
        source = step.inputs[0]
        outer = len(step.weight) // step.geometry.groups
        groups = f"{step.weight.shape[1]}, {outer}"
        table = self.library.table("convolution", f"convolution_{number}", f"{{{self._windows(number)}, {groups}}}")
        weight = self._array(f"weight_{number}", rows(step, self.program.steps[source]))
        if is_spikes(self.program.steps[source]):
            self._call("dsr_convolve_spikes", table, weight, self._words(source, "0"), "y", "x", at("current", first))
        else:
            self._call("dsr_convolve_values", table, weight, *self._values(source), "y", "x", at("current", first))

    def bias(self, number: int, first: int) -> None:
        """As an array."""
        step = self.program.steps[number]
        assert isinstance(step, Convolution | Sum) and step.bias is not None
        self._call("dsr_add", self._array(f"bias_{number}", step.bias), at("current", first), step.shape[0])

    def pool(self, number: int, first: int) -> None:
        """Of spikes or values."""
        step = self.program.steps[number]
        assert isinstance(step, Pool)
        source = step.inputs[0]
        table = self.library.table("windows", f"windows_{number}", self._windows(number))
        where = "y", "x", at("current", first)
        if is_spikes(self.program.steps[source]):
            heights = amplitudes(self.program.steps[source], None)
            name = self._array(f"amplitude_{number}", heights)
            self._call("dsr_mean_spikes", table, name, int(len(heights) > 1), self._words(source, "0"), *where)
        else:
            kernel = "dsr_mean_values" if isinstance(step, AveragePool) else "dsr_largest_values"
            self._call(kernel, table, *self._values(source), *where)

    def repeat(self, number: int, first: int) -> None:
        """From the pixel that is repeated."""
        step = self.program.steps[number]
        source = step.inputs[0]
        base, pixel_step, channel_step = self._values(source)
        place = f"{base} + ({self._repeated(step)}) * {pixel_step}"
        self._call("dsr_add_values", place, channel_step, at("current", first), step.shape[0])

    def _repeated(self, step: Step) -> str:
        assert isinstance(step, Upsample)
        _, _, width = self.program.steps[step.inputs[0]].shape
        return f"y / {step.factor[0]} * {width} + x / {step.factor[1]}"

    def flatten(self, number: int, first: int) -> None:
        """All pixels."""
        source = self.program.steps[number].inputs[0]
        channels, *pixels = self.program.steps[source].shape
        self._call("dsr_flatten_values", *self._values(source), prod(pixels), channels, at("current", first))

    def add(self, number: int, factor: Values | None, first: int) -> None:
        """Spikes or values."""
        step = self.program.steps[number]
        channels, to = step.shape[0], at("current", first)
        if is_spikes(step):
            heights = amplitudes(step, factor)
            name = self._array(f"amplitude_{number}_in_{self._number}_{first}", heights)
            self._call("dsr_add_spikes", self._words(number, "pixel"), name, int(len(heights) > 1), to, channels)
            return
        base, pixel_step, channel_step = self._values(number)
        place = f"{base} + pixel * {pixel_step}"
        if factor is None:
            self._call("dsr_add_values", place, channel_step, to, channels)
        else:
            name = self._array(f"factor_{number}_in_{self._number}_{first}", factor)
            self._call("dsr_add_scaled", name, place, channel_step, to, channels)

    def scale(self, factor: Values, first: int) -> None:
        """By an array."""
        name = self._array(f"factor_in_{self._number}_{first}", factor)
        self._call("dsr_scale", name, at("current", first), len(factor))

    def fire(self, number: int) -> None:
        """From the current to bits."""
        step = self.program.steps[number]
        assert isinstance(step, Neurons)
        model, channels = step.model, step.shape[0]
        numbers = [np.atleast_1d(np.float32(value)) for value in (model.v_threshold, model.fire)]
        names = [
            self._array(f"{what}_{number}", array) for what, array in zip(("threshold", "fire"), numbers, strict=True)
        ]
        each = int(max(map(len, numbers)) > 1)
        table = self.library.table(
            "neurons",
            f"neurons_{number}",
            f"{{{number_text(model.decay)}, {number_text(model.gain)}, {names[0]}, {names[1]}, {each}}}",
        )
        potentials = f"state->potentials + {self.storage.potentials[number]} + pixel * {channels}"
        self._call("dsr_fire", table, "current", potentials, channels, "to")

    def move_spikes(self, number: int, part: int, first: int) -> None:
        """Bits of an input."""
        step = self.program.steps[number]
        source = step.inputs[part]
        channels, *pixels = self.program.steps[source].shape
        if part == 0:
            self._call("dsr_silence", "to", step.shape[0])
        match step:
            case MaxPool():
                table = self.library.table("windows", f"windows_{number}", self._windows(number))
                self._call("dsr_or_pool", table, self._words(source, "0"), "y", "x", "to")
            case Upsample():
                place = self._words(source, f"({self._repeated(step)})")
                self._call("dsr_put_spikes", place, channels, 0, "to")
            case Flatten():
                self._call("dsr_flatten_spikes", self._words(source, "0"), prod(pixels), channels, "to")
            case Gate():
                gate = self._words(step.inputs[1], "pixel")
                self._call("dsr_gate_spikes", self._words(source, "pixel"), gate, int(step.fires), channels, "to")
            case Concat():
                self._call("dsr_put_spikes", self._words(source, "pixel"), channels, first, "to")
