"""Data sets by name, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from dsr.data.samples import ArraySamples, DataSet, Preparation, Samples, Subset

__all__ = ["ArraySamples", "DataSet", "Preparation", "Samples", "Subset", "load", "names"]

_LOADERS = {
    "digits": ("digits", "load_digits"),
    "cifar10": ("cifar", "load_cifar10"),
    "cifar100": ("cifar", "load_cifar100"),
    "folder": ("folder", "load_folder"),
    "dvs-cifar10": ("events.recordings", "load_dvs_cifar10"),
    "events": ("events.recordings", "load_events"),
}
"""Name: module in this package, and its function ``(path, preparation) -> DataSet``; imported when asked for."""


def names() -> list[str]:
    """Data sets that `load` knows."""
    return list(_LOADERS)


def load(name: str, path: str | Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """A data set.

    Parameters
    ----------
    name : str
        One of `names()`.
    path : path, optional
        Where its files are; needed by all but those that come with dsr.
    preparation : Preparation, optional
        How samples are made ready.

    Raises
    ------
    ValueError
        There is none of this name, or it needs a path.
    DataError
        A file is damaged or not what it should be; the message names it.
    OSError
        A file cannot be read.
    """
    if name not in _LOADERS:
        raise ValueError(f"load: argument 'name': expected one of {', '.join(_LOADERS)}, got {name!r}")
    module, function = _LOADERS[name]
    loader: Callable[[Path | None, Preparation], DataSet] = getattr(import_module(f"dsr.data.{module}"), function)
    return loader(None if path is None else Path(path), preparation or Preparation())
