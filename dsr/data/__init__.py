"""Data sets by name, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from dsr.data.options import options
from dsr.data.samples import ArraySamples, DataSet, Preparation, Samples, Subset

__all__ = ["ArraySamples", "DataSet", "Preparation", "Samples", "Subset", "load", "names", "needs_path", "reads"]

_CROPS = ("crop_padding", "crop_reflect", "flip", "cutout")
_FRAMES = ("crop_padding", "flip", "cutout", "image_size", "frames_by", "roll")
_LOADERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "digits": ("digits", "load_digits", ()),
    "cifar10": ("cifar", "load_cifar10", _CROPS),
    "cifar100": ("cifar", "load_cifar100", _CROPS),
    "folder": ("folder", "load_folder", (*_CROPS, "image_size", "random_resized_crop", "workers")),
    "dvs-cifar10": ("events.recordings", "load_dvs_cifar10", _FRAMES),
    "events": ("events.recordings", "load_events", _FRAMES),
}
"""Name: module in this package and its function ``(path, preparation) -> DataSet``, imported when asked for; and which
fields of `Preparation` it reads."""


def names() -> list[str]:
    """Data sets that `load` knows."""
    return list(_LOADERS)


def needs_path(name: str) -> bool:
    """Whether the files of a data set have to be found at a path; else they come with dsr."""
    return name != "digits"


def reads(name: str) -> frozenset[str]:
    """The fields of `Preparation` (but for ``timesteps``) that have an effect on a data set; all, if it is unknown."""
    return frozenset(_LOADERS[name][2] if name in _LOADERS else options(Preparation))


def load(name: str, path: str | Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """A data set.

    Parameters
    ----------
    name : str
        One of `names()`.
    path : path, optional
        Where its files are; None for those that come with dsr.
    preparation : Preparation, optional
        How samples are made ready.

    Raises
    ------
    ValueError
        There is none of this name; or it needs a path and got none, or the other way round.
    DataError
        A file is damaged or not what it should be; the message names it.
    OSError
        A file cannot be read.
    """
    if name not in _LOADERS:
        raise ValueError(f"load: argument 'name': expected one of {', '.join(_LOADERS)}, got {name!r}")
    if path is not None and not needs_path(name):
        raise ValueError(f"load: argument 'path': expected none with {name}, which comes with dsr, got {str(path)!r}")
    module, function, _ = _LOADERS[name]
    loader: Callable[[Path | None, Preparation], DataSet] = getattr(import_module(f"dsr.data.{module}"), function)
    return loader(None if path is None else Path(path), preparation or Preparation())
