"""A library of plain C while it is put together, and its files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TYPES = {
    "float32": ("float", 4),
    "int64": ("int64_t", 8),
    "int32": ("int32_t", 4),
    "uint32": ("uint32_t", 4),
    "int16": ("int16_t", 2),
    "int8": ("int8_t", 1),
}
"""C's names of the types of arrays, and their bytes."""


@dataclass(frozen=True)
class Member:
    """An array of the state: the name of its dtype, its own name, its length, and what it is."""

    dtype: str
    name: str
    count: int
    about: str


@dataclass
class Library:
    """What the files are made of.

    Attributes
    ----------
    name : str
        Prefix of all names.
    numbers : {"float", "int8"}
        Which kernels it calls.
    features, output_features : tuple of int
        Shapes of a frame and of the rates.
    output : (int, int, int)
        The latter as an image.
    timesteps : int
        T.
    layers : sequence of str
        Paths of the layers of neurons, in the order of the code.
    once, each_step : list of str
        Statements: of a static frame, and of each time step.
    rate : str
        An expression: the rate of channel c of pixel p, as a float.
    members : list of Member
        The state.
    arrays : dict of str to ndarray
        Constants, in the order of their use.
    tables, functions : list of str
        Lines that describe windows, convolutions and neurons, and those of the steps.
    """

    name: str
    numbers: Literal["float", "int8"]
    features: tuple[int, ...]
    output_features: tuple[int, ...]
    output: tuple[int, int, int]
    timesteps: int
    layers: Sequence[str]
    once: list[str] = field(default_factory=list)
    each_step: list[str] = field(default_factory=list)
    rate: str = "0"
    members: list[Member] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)

    def array(self, name: str, values: Array) -> str:
        """Add a constant; what it is called."""
        self.arrays[name] = np.ascontiguousarray(values)
        return f"@name@_{name}"

    def table(self, kind: str, name: str, value: str) -> str:
        """Add a description; a pointer to it."""
        line = f"static const dsr_{kind} {name} = {value};"
        if line not in self.tables:
            self.tables.append(line)
        return f"&{name}"

    @property
    def flash(self) -> int:
        """Bytes of constants."""
        return sum(array.nbytes for array in self.arrays.values())

    def state(self) -> list[Member]:
        """The members with something in them, the largest numbers first, and a size that 8 divides.

        So a state has the same size where the largest numbers begin at multiples of 8 and where they do not.
        """
        found = sorted((m for m in self.members if m.count), key=lambda m: -TYPES[m.dtype][1])
        rest = -sum(m.count * TYPES[m.dtype][1] for m in found) % 8
        return [*found, Member("int16", "unused", rest // 2, "")] if rest else found

    @property
    def ram(self) -> int:
        """Bytes of a state."""
        return sum(m.count * TYPES[m.dtype][1] for m in self.state())

    def texts(self, vector: str, about: Mapping[str, str]) -> dict[str, str]:
        """The files by name: with this text in that of the test's sample, and these facts of the README."""
        name, kernels = self.name, ("spikes.h", "spikes.c", f"{self.numbers}.h", f"{self.numbers}.c")
        texts = {
            f"{name}.h": read("model.h.in"),
            f"{name}.c": read("model.c.in"),
            f"{name}_weights.h": self._weights_header(),
            f"{name}_weights.c": self._weights(),
            **{f"{name}_{part}": read(f"dsr_{part}") for part in kernels},
            f"{name}_vector.h": vector,
            f"{name}_test.c": read("model_test.c.in"),
            "Makefile": read("Makefile.in"),
            "README.md": read("README.md.in"),
        }
        facts = self._facts() | {**about, "exactness": read(f"exactness_{self.numbers}.md").rstrip()}
        return {file: _filled(text, facts) for file, text in texts.items()}

    def _facts(self) -> dict[str, object]:
        channels, *pixels = self.output
        weights = sum(array.size for name, array in self.arrays.items() if name.startswith("weight_"))
        kind = {"float": "float32", "int8": "int8"}[self.numbers]
        members = [f"    {TYPES[m.dtype][0]} {m.name}[{m.count}];{_comment(m.about)}\n" for m in self.state()]
        return {
            "name": self.name,
            "NAME": self.name.upper(),
            "numbers": self.numbers,
            "about": f"A spiking network of {len(self.layers)} layers of neurons and {weights:,} weights in {kind}.",
            "inputs": prod(self.features),
            "input_shape": by(self.features),
            "outputs": prod(self.output_features),
            "output_shape": by(self.output_features),
            "output_channels": channels,
            "output_pixels": prod(pixels),
            "timesteps": self.timesteps,
            "layers": len(self.layers),
            "flash": self.flash,
            "ram": self.ram,
            "members": "".join(members),
            "tables": "\n".join(self.tables),
            "functions": "\n".join(self.functions),
            "see": "".join(f"    {line}\n" for line in self.once),
            "advance": "".join(f"    {line}\n" for line in self.each_step),
            "rate": self.rate,
        }

    def _weights_header(self) -> str:
        lines = [
            f"extern const {TYPES[array.dtype.name][0]} @name@_{name}[{array.size}];\n"
            for name, array in self.arrays.items()
        ]
        guard = "@NAME@_WEIGHTS_H"
        head = f"/* Constants of @name@. */\n#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n"
        return f"{head}{''.join(lines)}\n#endif\n"

    def _weights(self) -> str:
        parts = ['/* Constants of @name@. */\n#include "@name@_weights.h"\n']
        parts += [
            f"const {TYPES[array.dtype.name][0]} @name@_{name}[{array.size}] = {{\n{listed(array)}}};\n"
            for name, array in self.arrays.items()
        ]
        return "\n".join(parts)


def read(name: str) -> str:
    """A file of the room `sources`."""
    return (files("dsr.deploy.c") / "sources" / name).read_text(encoding="utf-8")


def _filled(text: str, facts: Mapping[str, object]) -> str:
    """A template, @fact@ by @fact@; facts may have facts in them, and the kernels get the model's name."""
    pattern = re.compile(r"@(" + "|".join(facts) + r")@|\bdsr_(?=\w)")

    def replaced(match: re.Match[str]) -> str:
        value = "@name@_" if match[1] is None else str(facts[match[1]])
        return value if match[1] in _LAST else pattern.sub(replaced, value)

    return pattern.sub(replaced, text)


_LAST = ("name", "NAME")
"""Facts in which nothing is replaced: a name may itself look like that of a kernel."""


def _comment(about: str) -> str:
    return f" /* {about} */" if about else ""


def at(name: str, first: int) -> str:
    """A pointer to an element."""
    return f"{name} + {first}" if first else name


def by(sizes: Sequence[int]) -> str:
    """Sizes of axes."""
    return " x ".join(map(str, sizes))


def number_text(value: float) -> str:
    """A float32 as a literal of C that is read back as the same number."""
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def listed(array: Array) -> str:
    """Numbers, some in a line."""
    values = array.ravel().tolist()
    if array.dtype == np.float32:
        numbers = [number_text(x) for x in values]
    else:
        numbers = [f"{x}u" if array.dtype.kind == "u" else str(x) for x in values]
    width = 20 if array.dtype.itemsize == 1 else 8
    return "".join(f"    {', '.join(numbers[i : i + width])},\n" for i in range(0, len(numbers), width))


def plain(path: str) -> str:
    """A path that may stand in comments and strings of C."""
    return re.sub(r"[^\w.\- ]", "_", path, flags=re.ASCII)


def identifier(number: int, path: str) -> str:
    """The function of a step."""
    slug = re.sub(r"\W+", "_", path, flags=re.ASCII).strip("_")
    return f"step_{number}_{slug}" if slug else f"step_{number}"


def function(
    number: int,
    path: str,
    shape: tuple[int, int, int],
    own: Sequence[str],
    body: Sequence[str],
    after: Sequence[str] = (),
    frame: bool = False,
    prefix: str = "",
) -> list[str]:
    """A function that goes over all pixels of a step; `own` are declarations, `after` comes after the pixels."""
    channels, height, width = shape
    lines = [*own, *body]
    if "pixel" in "\n".join(lines):
        lines.insert(0, f"const int32_t pixel = y * {width} + x;")
    return [
        f"/* {plain(path) or 'the network'}: {channels} x {height} x {width} */",
        f"static void {prefix}{identifier(number, path)}(@name@_state *state{', const float *frame' * frame}) {{",
        f"    for (int32_t y = 0; y < {height}; y++)",
        f"        for (int32_t x = 0; x < {width}; x++) {{",
        *(f"            {line}" for line in lines),
        "        }",
        *(f"    {line}" for line in after),
        "}",
        "",
    ]
