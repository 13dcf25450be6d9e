"""Options: fields of a dataclass whose type, range, default and documentation stand in one line.

    width: Annotated[int, COUNT, "Channels of the first convolution."] = 64

Everything else about an option follows from its line: the check of a value, the table in the docstring of the class,
and what ``dsr recipe`` prints.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from inspect import cleandoc
from math import isfinite
from numbers import Real
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from dsr.ops.arguments import LARGEST, SMALLEST, shown

Owner = TypeVar("Owner", bound=type)

_INTEGERS_BY_NUMBER: Any = dict[int, int]
_KINDS: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    tuple: "a list of finite numbers",
    dict: "a table of values by name",
    _INTEGERS_BY_NUMBER: "a table of integers by number",
}


@dataclass(frozen=True)
class Range:
    """Which values of its type an option takes; `words` follow "expected" in messages."""

    words: str
    holds: Callable[[Any], bool]


COUNT = Range("an integer in [1, 2**31)", lambda value: 1 <= value < 2**31)
NATURAL = Range("an integer in [0, 2**31)", lambda value: 0 <= value < 2**31)
SEED = Range("an integer >= 0", lambda value: value >= 0)
NOT_NEGATIVE = Range("a number in [0, 2**126]", lambda value: 0 <= value <= LARGEST)
POSITIVE = Range("a number in [2**-126, 2**126]", lambda value: SMALLEST <= value <= LARGEST)
SHARE = Range("a number in [0, 1)", lambda value: 0 <= value < 1)
PROBABILITY = Range("a number in [0, 1]", lambda value: 0 <= value <= 1)
PORTION = Range("a number in (0, 1]", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class Choices:
    """The values of an option that has few, where a registry knows them rather than a Literal type."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class With:
    """An option that is read only where another one has one of these values; none given: where it is not 0 or false."""

    name: str
    values: tuple[Any, ...] = ()

    def holds(self, owner: object) -> bool:
        """Whether it is read in `owner`."""
        value = getattr(owner, self.name)
        return value in self.values if self.values else bool(value)

    def __str__(self) -> str:
        return f"with {self.name}" + (f" = {' or '.join(map(str, self.values))}" if self.values else "")


@dataclass(frozen=True)
class Option:
    """What the line of a field says.

    Attributes
    ----------
    name : str
        Of the field.
    kind : type
        int, float, bool or str, tuple (of float), dict or ``dict[int, int]``.
    choices : tuple of str
        All values, where they are few; else empty.
    range : Range or None
        Which values of this type are taken; None: all.
    needs : With or None
        When the option is read; None: always.
    text : str
        Its documentation.
    default : object
        `dataclasses.MISSING` where there is none.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    range: Range | None
    needs: With | None
    text: str
    default: Any

    @property
    def expected(self) -> str:
        """The values that are taken, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        return self.range.words if self.range else _KINDS[self.kind]

    @property
    def documentation(self) -> str:
        """Text, values and conditions, in a line."""
        values = [f"{self.expected[0].upper()}{self.expected[1:]}."] if self.choices or self.range else []
        return " ".join([self.text, *values, *([f"Only {self.needs}."] if self.needs else [])])

    def checked(self, value: Any) -> Any:
        """The value as the option's own type; ValueError with "expected ..., got ..." where it is none of them."""
        try:
            found = _CONVERSIONS[self.kind](value)
            good = found in self.choices if self.choices else self.range is None or self.range.holds(found)
        except Exception:  # an object of the user's may raise anything
            good = False
        if not good:
            raise ValueError(f"expected {self.expected}, got {_shown(value)}")
        return found


def _shown(value: Any) -> str:
    """`shown`, and the entries of short tables in TOML's braces."""
    if not isinstance(value, dict) or len(value) > 8:
        return shown(value)
    return f"{{{', '.join(f'{key} = {shown(entry)}' for key, entry in value.items())}}}"


def _number(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError
    return operator.index(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(map(isfinite, value)):
        raise TypeError
    return tuple(map(_number, value))


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value) or None in value.values():
        raise TypeError
    return dict(json.loads(json.dumps(dict(value))))  # what a run folder can keep, and nobody else can change


def _integers_by_number(value: Any) -> dict[int, int]:
    """From a table whose keys are numbers, or text of digits, as TOML and JSON have them; by rising numbers."""
    if not isinstance(value, Mapping):
        raise TypeError
    found = {int(key) if isinstance(key, str) else _integer(key): _integer(entry) for key, entry in value.items()}
    if len(found) < len(value):
        raise ValueError
    return dict(sorted(found.items()))


_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    bool: _flag,
    str: _text,
    tuple: _numbers,
    dict: _table,
    _INTEGERS_BY_NUMBER: _integers_by_number,
}


@cache
def options(owner: type) -> Mapping[str, Option]:
    """The options of a dataclass by name: its own ones, then those of its bases."""
    hints = get_type_hints(owner, include_extras=True)
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(owner)
    }
    found: dict[str, Option] = {}
    for base in owner.__mro__:
        for name in vars(base).get("__annotations__", {}):
            if name not in found:
                found[name] = _option(name, hints[name], defaults[name])
    return found


def _option(name: str, hint: Any, default: Any) -> Option:
    kind, *about = get_args(hint)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    choices = next((item.values for item in about if isinstance(item, Choices)), choices)
    text = next(item for item in about if isinstance(item, str))
    ranges = [item for item in about if isinstance(item, Range)]
    needs = [item for item in about if isinstance(item, With)]
    return Option(
        name,
        str if choices else kind if kind == _INTEGERS_BY_NUMBER else get_origin(kind) or kind,
        choices,
        ranges[0] if ranges else None,
        needs[0] if needs else None,
        text,
        default,
    )


def check(owner: Any, where: str) -> None:
    """Make the values of all options of a frozen dataclass those of their types; for its ``__post_init__``.

    Raises
    ------
    ValueError
        ``{where} 'NAME': expected ..., got ...``
    """
    kind: Any = type(owner)
    for name, option in options(kind).items():
        try:
            value = option.checked(getattr(owner, name))
        except ValueError as error:
            raise ValueError(f"{where} '{name}': {error}") from None
        object.__setattr__(owner, name, value)


def documented(owner: Owner) -> Owner:
    """Add the table of options to the docstring of a dataclass."""
    lines = ["", "", "Attributes", "----------"]
    for option in options(owner).values():
        lines += [f"{option.name} : {option.kind.__name__}", f"    {option.documentation}"]
    owner.__doc__ = cleandoc(owner.__doc__ or "") + "\n".join(lines) + "\n"
    return owner
