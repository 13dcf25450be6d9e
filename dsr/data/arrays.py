"""Your own arrays: a file of `numpy.savez` with ``x_train, y_train, x_test, y_test``, or ``x, y`` and a fixed split.

The targets y are class numbers or names, (N,); with ``task = "multilabel"`` truth values, (N, K); with
``task = "regression"`` numbers, (N,) or (N, K). ``classes`` may name them. Samples x are, after N:

| shape of x | axes | a network gets |
|---|---|---|
| (N, F) | F | vectors, (B, F) |
| (N, C, H, W) | CHW | images, (B, C, H, W); of uint8 they are divided by 255 |
| (N, T, C, H, W) | TCHW | frames, (T, B, C, H, W), T as in the recipe |
| (N, a, b), or images whose channels may be last | must be given: HW, HWC, CHW, TF | |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dsr.data.augment import flip, holed, random_crop
from dsr.data.preprocessing import Preprocessing
from dsr.data.samples import ArraySamples, DataSet, Draws, Preparation
from dsr.data.split import split
from dsr.data.targets import as_targets
from dsr.files.archive import Archive, read_npy
from dsr.files.errors import DataError
from dsr.ops import Values

_AXES = {1: "F", 3: "CHW", 4: "TCHW"}
_KNOWN = ("F", "TF", "HW", "CHW", "HWC", "THW", "TCHW", "THWC")
_SMALLEST = 1e-12


@dataclass(frozen=True)
class ArrayTransform:
    """Crops, flips and normalises batches of an array.

    Attributes
    ----------
    preprocessing : Preprocessing
        Axes and normalisation.
    preparation : Preparation
        Of which `crop_padding`, `crop_reflect`, `flip`, `cutout` and `random_erasing` apply to images, where there are
        draws.
    """

    preprocessing: Preprocessing
    preparation: Preparation

    def __call__(self, samples: NDArray[Any], draws: Draws | None) -> Values:
        """The batch in float32."""
        images, wanted = self.preprocessing.ordered(samples), self.preparation
        if draws is None or len(self.preprocessing.features) != 3 or self.preprocessing.has_time:
            return self.preprocessing.normalised(images)
        images = random_crop(images, wanted.crop_padding, draws, wanted.crop_reflect)
        if wanted.flip:
            images = flip(images, draws)
        normalised = self.preprocessing.normalised(images)
        return holed(normalised, wanted, draws)


def load_arrays(path: Path | None = None, preparation: Preparation | None = None) -> DataSet:
    """The samples of a ``.npz`` file, see `dsr.data.arrays`.

    Normalised by mean and standard deviation of each channel of the training samples, unless the preparation gives
    others. Python objects in the file are refused, not unpickled.

    Parameters
    ----------
    path : Path
        The file.
    preparation : Preparation
        `task`, `axes`, `normalisation`, `mean`, `deviation`, `test_share`, `split_seed` and `timesteps` apply; of
        images also `crop_padding`, `crop_reflect`, `flip`, `cutout` and `random_erasing`.

    Raises
    ------
    DataError
        The file is damaged, arrays are missing, or they do not fit each other or the task.
    OSError
        It cannot be read.
    """
    wanted = preparation or Preparation()
    if path is None:
        raise ValueError("load_arrays: argument 'path': expected a .npz file, got None")
    if path.is_dir():
        raise DataError(f"{path}: expected a .npz file of arrays, found a folder")
    found = _read(path)
    x, y = _of(path, found, "x"), _of(path, found, "y")
    names, named = _targets(path, found, y, wanted)
    try:
        targets = {
            name: as_targets("load_arrays", _name("y", name), array, len(x[name]), wanted.task, len(names))
            for name, array in named.items()
        }
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}{_hint(wanted, y)}") from None
    for name, array in x.items():
        _check(path, _name("x", name), array, next(iter(x.values())))
    if "all" in x:
        labels = targets["all"] if wanted.task == "classification" else None
        numbers = split(labels, len(x["all"]), wanted.test_share, wanted.split_seed, str(path))
        x, targets = (
            {name: part["all"][chosen] for name, chosen in zip(("train", "test"), numbers, strict=True)}
            for part in (x, targets)
        )
    preprocessing = _preprocessing(path, x["train"], _axes(path, x["train"], wanted), wanted)
    transform = ArrayTransform(preprocessing, wanted)
    train, test = (ArraySamples(x[name], targets[name], transform, wanted.task) for name in ("train", "test"))
    return DataSet(path.stem, names, preprocessing.features, train, test, preprocessing)


def _name(letter: str, split: str) -> str:
    return letter if split == "all" else f"{letter}_{split}"


def _check(path: Path, name: str, x: NDArray[Any], first: NDArray[Any]) -> None:
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: {name}: expected numbers, got dtype {x.dtype}")
    if x.shape[1:] != first.shape[1:]:
        raise DataError(f"{path}: {name} has samples of shape {x.shape[1:]}, x_train of {first.shape[1:]}")
    if not np.isfinite(x).all():
        raise DataError(f"{path}: {name}: expected finite numbers, got NaN or infinity")


def _read(path: Path) -> dict[str, NDArray[Any]]:
    archive = Archive(path.read_bytes(), str(path))
    arrays = {
        name.removesuffix(".npy"): read_npy(archive.read(name), f"{path}: {name}")
        for name in archive.files
        if name.endswith(".npy")
    }
    given = sorted(arrays.keys() - {"classes"})
    if given not in (["x", "y"], ["x_test", "x_train", "y_test", "y_train"]):
        raise DataError(
            f"{path}: expected the arrays x_train, y_train, x_test and y_test, or x and y, got "
            f"{', '.join(archive.files) or 'none'}"
        )
    return arrays


def _of(path: Path, found: dict[str, NDArray[Any]], letter: str) -> dict[str, NDArray[Any]]:
    """The arrays of x or y by split, or "all"."""
    parts = {"all": found[letter]} if letter in found else {n: found[f"{letter}_{n}"] for n in ("train", "test")}
    for name, array in parts.items():
        if array.ndim == 0 or len(array) == 0:
            raise DataError(f"{path}: {_name(letter, name)}: expected samples, got none")
    return parts


def _targets(
    path: Path, found: dict[str, NDArray[Any]], y: dict[str, NDArray[Any]], wanted: Preparation
) -> tuple[tuple[str, ...], dict[str, NDArray[Any]]]:
    """Names of the outputs, and the targets with names of classes as their numbers."""
    named = tuple(map(str, found["classes"].reshape(-1).tolist())) if "classes" in found else ()
    every = list(y.values())
    if wanted.task != "classification":
        count = every[0].shape[1] if every[0].ndim > 1 else 1
        return named or tuple(map(str, range(count))), y
    if every[0].dtype.kind in "US":
        texts = {name: array.astype(str) for name, array in y.items()}
        names = named or tuple(np.unique(np.concatenate([text.reshape(-1) for text in texts.values()])).tolist())
        if unknown := sorted({label for text in texts.values() for label in text.reshape(-1)} - set(names)):
            raise DataError(f"{path}: y has '{unknown[0]}', which is not among its classes")
        numbers = {name: number for number, name in enumerate(names)}
        return names, {
            name: np.array([numbers[label] for label in text.reshape(-1)]).reshape(text.shape)
            for name, text in texts.items()
        }
    most = max((int(array.max()) for array in every if array.dtype.kind in "iu"), default=0)
    return named or tuple(map(str, range(min(most, 1 << 20) + 1))), y


def _axes(path: Path, x: NDArray[Any], wanted: Preparation) -> str:
    """The letters of the axes of a sample, given or plain from the shape."""
    shape = x.shape[1:]
    axes = wanted.axes or _AXES.get(len(shape), "")
    last = not wanted.axes and len(shape) in (3, 4) and shape[-1] in (1, 3, 4) and shape[-3] not in (1, 3, 4)
    if axes not in _KNOWN or len(axes) != len(shape) or last:
        ways = " or ".join(known for known in _KNOWN if len(known) == len(shape)) or "F, CHW or TCHW"
        raise DataError(
            f"{path}: x has samples of shape {shape}, and axes = {wanted.axes!r}: expected the recipe to name their "
            f"axes, axes = {ways} (F features, C channels, H rows, W columns, T time steps)"
        )
    if "T" in axes and shape[axes.index("T")] != wanted.timesteps:
        raise DataError(
            f"{path}: x has {shape[axes.index('T')]} time steps, the recipe timesteps = {wanted.timesteps}: set "
            "it to as many"
        )
    return axes


def _preprocessing(path: Path, x: NDArray[Any], axes: str, wanted: Preparation) -> Preprocessing:
    kind: Literal["images", "values"] = (
        "images" if x.dtype == np.uint8 and "H" in axes and "T" not in axes else "values"
    )
    plain = Preprocessing(kind, (), axes=axes, timesteps=wanted.timesteps)
    ordered = plain.ordered(x[:1])
    plain = replace(plain, features=ordered.shape[1 + plain.has_time :])
    channels = plain.features[0]
    if wanted.mean:
        if len(wanted.mean) != channels:
            raise DataError(f"{path}: expected a mean and a deviation of {channels} channels, got {len(wanted.mean)}")
        return replace(plain, mean=wanted.mean, deviation=wanted.deviation)
    if wanted.normalisation == "none":
        ones = ((0.0,) * channels, (1.0,) * channels)
        return replace(plain, mean=ones[0], deviation=ones[1]) if kind == "images" else plain
    every = plain.ordered(x)
    axis = tuple(i for i in range(every.ndim) if i != 1 + plain.has_time)
    unit = 255 if kind == "images" else 1
    mean, deviation = every.mean(axis, np.float64) / unit, every.std(axis, np.float64) / unit
    # a channel that never changes is 0 for the network, whatever it is
    deviation = np.where(deviation > _SMALLEST * np.maximum(np.abs(mean), 1), deviation, 1)
    return replace(plain, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))


def _hint(wanted: Preparation, y: dict[str, NDArray[Any]]) -> str:
    """What a recipe may lack where the targets do not fit the task."""
    kind = next(iter(y.values())).dtype.kind
    if wanted.task == "classification" and kind == "f":
        return '; for real values set task = "regression" in the recipe'
    if wanted.task == "classification" and kind == "b":
        return '; for several labels set task = "multilabel" in the recipe'
    return ""
