"""Integer networks in files: checkpoints of dsr with int8 weights, about a quarter of the size of float ones.

A kernel that is the sum of the four shifts of a smaller one is stored as that one, as for
`dsr.nn.fast_layers.PooledConv2d`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.deploy.integer_checks import require_sound
from dsr.files import checkpoint
from dsr.nn.rounding import LARGEST_SUM, largest_weight, shifts_sum, summand
from dsr.ops import Geometry

KIND = "integer"
KINDS: dict[str, type[i.Step]] = {
    kind.__name__: kind
    for kind in (
        i.Input,
        i.Pool,
        i.Flatten,
        i.Upsample,
        i.Concat,
        i.Gate,
        i.Neurons,
        i.ReadCurrent,
        i.ReadSpikes,
    )
}
STORED = {"bias": np.int32, "reset": np.int16, "fire": np.int16, "unit": np.float32}
"""Arrays of steps, and how files have them."""


def save_steps(path: str | Path, steps: Sequence[i.Step], about: Mapping[str, Any]) -> None:
    """Write steps and metadata; OSError if the file could not be written, an older one is then as it was."""
    arrays: dict[str, NDArray[Any]] = {}
    described = []
    for number, step in enumerate(steps):
        plain: dict[str, Any] = {"kind": type(step).__name__}
        for f in fields(step):
            value = getattr(step, f.name)
            if f.name in STORED:
                arrays[f"steps.{number}.{f.name}"] = value.astype(STORED[f.name])
            elif f.name == "terms":
                plain["terms"] = [_describe(term) for term in value]
                for k, term in enumerate(value):
                    arrays[f"steps.{number}.terms.{k}.weight"] = as_stored(term.weight)
            else:
                plain[f.name] = value
        described.append(plain)
    checkpoint.save(path, arrays, {"kind": KIND, "integer_version": i.VERSION, "steps": described, **about})


def as_stored(weight: NDArray[np.signedinteger[Any]]) -> NDArray[np.signedinteger[Any]]:
    """The weights (O, C / groups, K, K) as files have them: those of K - 1 rows and columns whose sum they are, if any.

    They have 8 bits as well. Other weights are returned as they are.
    """
    small = summand(weight) if weight.ndim == 4 else None
    # -128 is no sum that files have, as `quantize` makes none
    fits = small is not None and np.abs(small).max() <= largest_weight(8) and weight.min() >= -LARGEST_SUM
    return small.astype(np.int8) if small is not None and fits else weight


def _describe(term: i.Term) -> dict[str, Any]:
    if isinstance(term, i.Added):
        return {"source": term.source}
    return {"source": term.source, "shift": term.shift, "geometry": asdict(term.geometry)}


def load_steps(path: str | Path) -> tuple[tuple[i.Step, ...], dict[str, Any]]:
    """Steps and metadata.

    Raises
    ------
    CheckpointError
        The file is damaged, has no integer network or one of a version that this dsr does not know, or its network is
        not sound.
    OSError
        The file cannot be read.
    """
    arrays, metadata = checkpoint.load(path)
    if metadata.get("kind") != KIND:
        raise checkpoint.CheckpointError(f"{path}: has no integer network; dsr.quantize makes one")
    version = metadata.get("integer_version")
    if version != i.VERSION:
        raise checkpoint.CheckpointError(
            f"{path}: an integer network of version {version!s:.20}, this dsr reads version {i.VERSION}"
        )
    try:
        steps = tuple(_step(n, plain, arrays) for n, plain in enumerate(metadata["steps"]))
        require_sound(steps, str(path))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error).removeprefix(f"{path}: ")
        raise checkpoint.CheckpointError(f"{path}: {what}") from None
    return steps, metadata


def _step(number: int, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> i.Step:
    kind = KINDS[plain["kind"]]
    values: dict[str, Any] = {}
    for f in fields(kind):
        name = f"steps.{number}.{f.name}"
        if f.name in STORED:
            if arrays[name].dtype != STORED[f.name]:
                raise ValueError(f"{name}: expected {np.dtype(STORED[f.name])}, got {arrays[name].dtype}")
            values[f.name] = arrays[name].astype(np.float32 if f.name == "unit" else np.int32)
        elif f.name == "terms":
            terms = (_term(number, k, term, arrays) for k, term in enumerate(plain["terms"]))
            values["terms"] = tuple(terms)
        else:
            values[f.name] = _of_json(plain[f.name], f.name)
    return kind(**values)


def _term(number: int, k: int, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> i.Term:
    weight, source = arrays[f"steps.{number}.terms.{k}.weight"], _of_json(plain["source"], "source")
    if "geometry" not in plain:
        return i.Added(source, weight)
    geometry = Geometry(**{name: _of_json(value, name) for name, value in plain["geometry"].items()})
    if weight.dtype == np.int8 and weight.ndim == 4 and weight.shape[2:] == tuple(k - 1 for k in geometry.kernel):
        sums = shifts_sum(weight.astype(np.int32))
        if np.abs(sums).max(initial=0) > LARGEST_SUM:
            raise ValueError(f"steps.{number}.terms.{k}.weight: expected sums of shifts of 8 bits")
        weight = sums.astype(np.int8)
    return i.Taps(source, weight, geometry, _of_json(plain["shift"], "shift"))


_KIND_OF = {"path": str, "largest": bool, "negated": bool}
_LISTS = {"features", "sources", "factor", "kernel_size", "kernel", "stride", "padding", "dilation", "spread"}


def _of_json(value: Any, name: str) -> Any:
    """A value as a step has it: lists are tuples of integers, and other numbers integers."""
    wanted, several = _KIND_OF.get(name, int), name in _LISTS
    parts = value if isinstance(value, list) else [value]
    if isinstance(value, list) != several or not all(type(part) is wanted for part in parts):
        expected = f"a list of {wanted.__name__}" if several else wanted.__name__
        raise TypeError(f"'{name}': expected {expected}, got {value!r:.40}")
    return tuple(value) if several else value
