"""Data sets by name, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from dsr.data.options import options as options_of
from dsr.data.preprocessing import Preprocessing
from dsr.data.samples import ArraySamples, DataSet, Preparation, Samples, Subset
from dsr.files import reference

__all__ = [
    "ArraySamples",
    "DataSet",
    "Preparation",
    "Preprocessing",
    "Samples",
    "Subset",
    "load",
    "names",
    "needs_path",
    "reads",
]

_CROPS = ("crop_padding", "crop_reflect", "flip", "cutout", "random_erasing")
_DECODED = ("image_size", "same_size", "jpeg_draft", "cache", "on_error")
_COLOURS = ("colour_jitter", "hue_jitter", "trivial_augment", "rand_augment", "rand_magnitude")
_FRAMES = ("crop_padding", "flip", "cutout", "image_size", "frames_by", "roll")
_NORMALISED = ("normalisation", "mean", "deviation")
_SPLIT = ("test_share", "split_seed")
_LOADERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "digits": ("digits", "load_digits", ()),
    "cifar10": ("cifar", "load_cifar10", _CROPS),
    "cifar100": ("cifar", "load_cifar100", _CROPS),
    "arrays": ("arrays", "load_arrays", ("task", "axes", *_NORMALISED, *_SPLIT, *_CROPS)),
    "folder": (
        "folder",
        "load_folder",
        (*_NORMALISED, *_SPLIT, *_CROPS, *_COLOURS, *_DECODED, "random_resized_crop", "crop_area", "workers"),
    ),
    "dvs-cifar10": ("events.recordings", "load_dvs_cifar10", _FRAMES),
    "events": ("events.recordings", "load_events", _FRAMES),
}
"""Name: module in this package and its function ``(path, preparation) -> DataSet``, imported when asked for; and which
fields of `Preparation` it reads."""


def names() -> list[str]:
    """Data sets that `load` knows."""
    return list(_LOADERS)


def needs_path(name: str) -> bool:
    """Whether the files of a data set have to be found at a path; else they come with dsr, or your code has them."""
    return name in _LOADERS and name != "digits"


def reads(name: str) -> frozenset[str]:
    """The fields of `Preparation` (but for ``timesteps``) that have an effect on a data set; all, if it is unknown."""
    return frozenset(_LOADERS[name][2] if name in _LOADERS else options_of(Preparation))


def load(
    name: str,
    path: str | Path | None = None,
    preparation: Preparation | None = None,
    options: Mapping[str, Any] | None = None,
) -> DataSet:
    """A data set.

    Parameters
    ----------
    name : str
        One of `names()`; or a reference to a function of your own, ``"mydata.py:load"``, which is run as
        ``load(path, preparation, **options)`` and gives a `DataSet`.
    path : path, optional
        Where its files are; None for those that come with dsr.
    preparation : Preparation, optional
        How samples are made ready.
    options : mapping, optional
        Options of a function of your own.

    Raises
    ------
    TypeError, ValueError
        There is none of this name; or it needs a path and got none, or the other way round; or what your function gives
        is no DataSet.
    DataError
        A file is damaged or not what it should be; the message names it.
    OSError
        A file cannot be read.
    """
    where = None if path is None else Path(path)
    if reference.is_reference(name):
        own = reference.resolve(name, "data")
        made = reference.call(own, f"load: {name}", (where, preparation or Preparation()), options or {})
        if not isinstance(made, DataSet):
            raise TypeError(f"load: {name}: expected it to give a dsr.data.DataSet, got {type(made).__name__}")
        return made
    if options:
        raise ValueError(f"load: argument 'options': expected none with {name}, got {', '.join(options)}")
    if name not in _LOADERS:
        raise ValueError(f"load: argument 'name': expected one of {', '.join(_LOADERS)} or FILE.py:NAME, got {name!r}")
    if path is not None and not needs_path(name):
        raise ValueError(f"load: argument 'path': expected none with {name}, which comes with dsr, got {str(path)!r}")
    module, function, _ = _LOADERS[name]
    loader: Callable[[Path | None, Preparation], DataSet] = getattr(import_module(f"dsr.data.{module}"), function)
    return loader(where, preparation or Preparation())
