"""The C of a network of integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from dsr.deploy import integer_steps as i
from dsr.deploy.c import windows
from dsr.deploy.c.int8_unflatten import unflatten_steps
from dsr.deploy.c.library import Library, Member, function, identifier, number_text
from dsr.deploy.c.storage import one_behind_the_other, shared, words
from dsr.deploy.integer_model import IntegerModel
from dsr.ops.integers import NO_DECAY


@dataclass(frozen=True)
class Layout:
    """Where things are; steps by their numbers.

    Attributes
    ----------
    is_spikes : tuple of bool
        Of each step whether it is stored as bits, otherwise as int16.
    steady : tuple of bool
        Of each step whether it is computed of a static frame once.
    place : dict of int to int
        Where the output of a step begins in the array of its kind.
    kept : dict of int to int
        The same for the parts of currents that a static frame determines.
    potentials : dict of int to int
        The same for potentials.
    words, values, kept_count, potential_count : int
        Lengths of the four arrays.
    """

    is_spikes: tuple[bool, ...]
    steady: tuple[bool, ...]
    place: dict[int, int]
    kept: dict[int, int]
    potentials: dict[int, int]
    words: int
    values: int
    kept_count: int
    potential_count: int


def layout(steps: Sequence[i.Step], static: bool) -> Layout:
    """Places for all that the steps write; `static`: a sample is one frame, which all time steps get."""
    spikes, steady = list[bool](), list[bool]()
    for step in steps:
        same = all(spikes[source] for source in step.reads)
        moved = isinstance(step, i.Flatten | i.Concat | i.Upsample) and same
        largest = isinstance(step, i.Pool) and step.largest
        spikes.append(moved or largest or isinstance(step, i.Gate | i.Neurons))
        every_step = isinstance(step, i.Neurons | i.ReadCurrent | i.ReadSpikes)
        steady.append(static and not every_step and all(steady[source] for source in step.reads))
    reads = {number: step.reads for number, step in enumerate(steps)}
    lengths = {
        number: prod(step.features[1:]) * (words(step.features[0]) if spikes[number] else step.features[0])
        for number, step in enumerate(steps[:-1])
    }
    once = [number for number in lengths if steady[number]]
    place, start = one_behind_the_other(once, lengths)
    each = [number for number in range(len(steps)) if not steady[number]]
    bits = [number for number in each if number in lengths and spikes[number]]
    numbers = [number for number in each if number in lengths and not spikes[number]]
    bit_place, word_count = shared(bits, each, reads, lengths, 0)
    value_place, value_count = shared(numbers, each, reads, lengths, start)
    sizes = {number: prod(step.features) for number, step in enumerate(steps)}
    keeping = [number for number in each if any(steady[term.source] for term in _terms(steps[number]))]
    neurons = [number for number, step in enumerate(steps) if isinstance(step, i.Neurons)]
    kept, kept_count = one_behind_the_other(keeping, sizes)
    potentials, potential_count = one_behind_the_other(neurons, sizes)
    return Layout(
        tuple(spikes),
        tuple(steady),
        place | bit_place | value_place,
        kept,
        potentials,
        word_count,
        value_count,
        kept_count,
        potential_count,
    )


def _terms(step: i.Step) -> tuple[i.Term, ...]:
    return step.terms if isinstance(step, i.Neurons | i.ReadCurrent) else ()


def int8_library(name: str, model: IntegerModel, static: bool) -> Library:
    """The library of an integer network; `static`: a sample is one frame, of which what it determines is kept."""
    steps = unflatten_steps(model.steps)
    places = layout(steps, static)
    library = Library(
        name,
        "int8",
        model.features,
        model.output_features,
        steps[-1].features,
        model.timesteps,
        [steps[number].path for number in places.potentials],
    )
    source = _Source(library, steps, places)
    last = steps[-1]
    assert isinstance(last, i.ReadCurrent | i.ReadSpikes)
    source.write_all()
    decay = last.decay if isinstance(last, i.ReadSpikes) else NO_DECAY
    library.each_step.append(f"state->weight[0] = dsr_next_sum(state->weight[0], {decay}, 1);")
    channels = last.features[0]
    unit = last.unit if (last.unit != last.unit[0]).any() else last.unit[:1]
    height = f"{library.array('unit', np.asarray(unit, np.float32))}[{'c' if len(unit) > 1 else 0}]"
    total = f"(double)state->sums[p * {channels} + c] * (double){height}"
    library.rate = f"state->weight[0] > 0 ? (float)({total} / (double)state->weight[0]) : 0"
    widest = max(step.features[0] for step in steps if isinstance(step, i.Neurons | i.ReadCurrent))
    shifts = any(isinstance(term, i.Taps) and term.shift for step in steps for term in _terms(step))
    library.members = [
        Member("int64", "sums", prod(last.features), "of the output over time, pixel by pixel"),
        Member("int64", "weight", 1, "of the time steps in the sums"),
        Member("uint32", "spikes", places.words, "of one time step"),
        Member("int32", "kept", places.kept_count, "parts of currents that a static frame determines"),
        Member("int32", "current", widest, "of a pixel"),
        Member("int32", "sum", widest if shifts else 0, "of a pixel and a convolution"),
        Member("int16", "potentials", places.potential_count, "of the neurons"),
        Member("int16", "values", places.values, "the frame, and counts of spikes"),
    ]
    return library


class _Source:
    """Writes steps."""

    def __init__(self, library: Library, steps: Sequence[i.Step], places: Layout) -> None:
        self.library, self.steps, self.places = library, steps, places

    def write_all(self) -> None:
        """Functions and calls of all steps."""
        places, library = self.places, self.library
        for number, step in enumerate(self.steps):
            call = f"{identifier(number, step.path)}(state);"
            if isinstance(step, i.Input):
                (library.once if places.steady[number] else library.each_step).append(self._quantise(step))
                continue
            if number in places.kept:
                library.once.append(f"keep_{call}")
                body = self._current(number, [t for t in _terms(step) if places.steady[t.source]], False)
                self._function(number, "keep_", [f"int32_t *current = state->kept + {self._kept(number)};"], body, ())
            (library.once if places.steady[number] else library.each_step).append(call)
            own, body, after = self._body(number)
            self._function(number, "", own, body, after)

    def _function(
        self, number: int, prefix: str, own: Sequence[str], body: Sequence[str], after: Iterable[str]
    ) -> None:
        step = self.steps[number]
        self.library.functions += function(number, step.path, step.features, own, body, list(after), prefix=prefix)

    def _quantise(self, step: i.Input) -> str:
        channels, *pixels = step.features
        scale = number_text(2.0**step.shift)
        return f"dsr_quantise(frame, {scale}, {step.most}, {prod(pixels)}, {channels}, {self._values(0, '0')});"

    def _body(self, number: int) -> tuple[list[str], list[str], list[str]]:
        """Declarations, statements of a pixel, and what comes after all pixels."""
        step, places = self.steps[number], self.places
        channels, height, width = step.features
        if isinstance(step, i.ReadSpikes):
            sums = f"state->sums + pixel * {channels}"
            return [], [f"dsr_read_spikes({self._words(step.source, 'pixel')}, {step.decay}, {sums}, {channels});"], []
        if isinstance(step, i.Neurons | i.ReadCurrent):
            terms = [t for t in step.terms if number not in places.kept or not places.steady[t.source]]
            body = self._current(number, terms, number in places.kept)
            own = ["int32_t *current = state->current;"]
            if isinstance(step, i.ReadCurrent):
                return own, [*body, f"dsr_read_current(current, state->sums + pixel * {channels}, {channels});"], []
            potentials = f"state->potentials + {places.potentials[number]} + pixel * {channels}"
            body.append(f"dsr_fire({self._neurons(number)}, current, {potentials}, {channels}, to);")
            layer = list(places.potentials).index(number)
            count = height * width * words(channels)
            own.append(f"uint32_t *to = {self._words(number, 'pixel')};")
            return own, body, [f"TRACE({layer}, {self._words(number, '0')}, {count});"]
        if places.is_spikes[number]:
            return [f"uint32_t *to = {self._words(number, 'pixel')};"], self._moved_spikes(number), []
        return [f"int16_t *to = {self._values(number, 'pixel')};"], self._moved_values(number), []

    # ---- where things are

    def _words(self, number: int, pixel: str) -> str:
        return _pixel(f"state->spikes + {self.places.place[number]}", words(self.steps[number].features[0]), pixel)

    def _values(self, number: int, pixel: str) -> str:
        return _pixel(f"state->values + {self.places.place[number]}", self.steps[number].features[0], pixel)

    def _kept(self, number: int) -> str:
        return f"{self.places.kept[number]} + pixel * {self.steps[number].features[0]}"

    # ---- currents

    def _current(self, number: int, terms: Sequence[i.Term], has_kept: bool) -> list[str]:
        """Statements that compute the current of a pixel, from what is kept of it or from its bias."""
        step = self.steps[number]
        assert isinstance(step, i.Neurons | i.ReadCurrent)
        channels = step.features[0]
        start = f"state->kept + {self._kept(number)}" if has_kept else self._array(f"bias_{number}", step.bias)
        lines = [f"dsr_clear(current, {channels});", f"dsr_add({start}, current, {channels});"]
        for term in terms:
            place = step.terms.index(term)
            lines += self._added(number, place, term) if isinstance(term, i.Added) else self._taps(number, place, term)
        return lines

    def _added(self, number: int, place: int, term: i.Added) -> list[str]:
        weight = self._array(f"weight_{number}_{place}", term.weight)
        kind = "spikes" if self.places.is_spikes[term.source] else "values"
        where = self._pixel_of(term.source, "pixel")
        return [f"dsr_add_{kind}({where}, {weight}, current, {len(term.weight)});"]

    def _taps(self, number: int, place: int, term: i.Taps) -> list[str]:
        geometry, source = term.geometry, self.steps[term.source].features
        outputs, inner, *taps = term.weight.shape
        groups = geometry.groups
        moved = term.weight.reshape(groups, outputs // groups, inner, prod(taps)).transpose(3, 0, 2, 1)
        weight = self.library.array(f"weight_{number}_{place}", np.ascontiguousarray(moved, np.int8))
        table = self.library.table(
            "convolution",
            f"convolution_{number}_{place}",
            f"{{{windows.text(source, geometry)}, {inner}, {outputs // groups}}}",
        )
        kind = "spikes" if self.places.is_spikes[term.source] else "values"
        target = "state->sum" if term.shift else "current"
        call = f"dsr_convolve_{kind}({table}, {weight}, {self._pixel_of(term.source, '0')}, y, x, {target});"
        if not term.shift:
            return [call]
        return [
            f"dsr_clear(state->sum, {outputs});",
            call,
            f"dsr_add_shifted(state->sum, {term.shift}, current, {outputs});",
        ]

    def _pixel_of(self, number: int, pixel: str) -> str:
        return self._words(number, pixel) if self.places.is_spikes[number] else self._values(number, pixel)

    def _array(self, name: str, values: i.Weights) -> str:
        return self.library.array(name, np.asarray(values, np.int32))

    def _neurons(self, number: int) -> str:
        step = self.steps[number]
        assert isinstance(step, i.Neurons)
        names = [
            self.library.array(f"{what}_{number}", np.asarray(values, np.int16))
            for what, values in (("reset", step.reset), ("fire", step.fire))
        ]
        return self.library.table("neurons", f"neurons_{number}", f"{{{step.decay}, {names[0]}, {names[1]}}}")

    # ---- what only moves

    def _moved_spikes(self, number: int) -> list[str]:
        step = self.steps[number]
        source = step.reads[0]
        channels, *pixels = self.steps[source].features
        lines = [f"dsr_silence(to, {step.features[0]});"]
        match step:
            case i.Pool():
                lines.append(f"dsr_or_pool({self._windows(number)}, {self._words(source, '0')}, y, x, to);")
            case i.Flatten():
                lines.append(f"dsr_flatten_spikes({self._words(source, '0')}, {prod(pixels)}, {channels}, to);")
            case i.Upsample():
                lines.append(f"dsr_put_spikes({self._words(source, self._repeated(step))}, {channels}, 0, to);")
            case i.Gate():
                gate, fires = self._words(step.sources[1], "pixel"), int(not step.negated)
                lines.append(f"dsr_gate_spikes({self._words(source, 'pixel')}, {gate}, {fires}, {channels}, to);")
            case i.Concat():
                first = 0
                for part in step.sources:
                    count = self.steps[part].features[0]
                    lines.append(f"dsr_put_spikes({self._words(part, 'pixel')}, {count}, {first}, to);")
                    first += count
        return lines

    def _moved_values(self, number: int) -> list[str]:
        step = self.steps[number]
        source = step.reads[0]
        channels, *pixels = self.steps[source].features
        match step:
            case i.Pool():
                return [f"dsr_count_pool({self._windows(number)}, {self._words(source, '0')}, y, x, to);"]
            case i.Flatten():
                return [f"dsr_flatten_values({self._values(source, '0')}, {prod(pixels)}, {channels}, to);"]
            case i.Upsample():
                return [f"dsr_put_values({self._values(source, self._repeated(step))}, {channels}, to);"]
        assert isinstance(step, i.Concat), type(step)
        lines, first = [], 0
        for part in step.sources:
            count, kind = self.steps[part].features[0], "bits" if self.places.is_spikes[part] else "values"
            lines.append(f"dsr_put_{kind}({self._pixel_of(part, 'pixel')}, {count}, to + {first});")
            first += count
        return lines

    def _windows(self, number: int) -> str:
        step = self.steps[number]
        assert isinstance(step, i.Pool)
        geometry = windows.of_pool(step.kernel_size, step.stride, step.padding)
        value = windows.text(self.steps[step.source].features, geometry)
        return self.library.table("windows", f"windows_{number}", value)

    def _repeated(self, step: i.Upsample) -> str:
        _, _, width = self.steps[step.source].features
        return f"(y / {step.factor[0]} * {width} + x / {step.factor[1]})"


def _pixel(start: str, step: int, pixel: str) -> str:
    return start if pixel == "0" else f"{start} + {pixel}" + (f" * {step}" if step > 1 else "")
