"""Data sets: arrays ready for a network, with their names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from dsr.lanes import Values


@dataclass(frozen=True, eq=False)
class DataSet:
    """Samples and labels, split once and for all.

    Attributes
    ----------
    name : str
        Of the data set.
    classes : tuple of str
        Names of the classes.
    train_images, test_images : ndarray of float32, shape (N, C, H, W)
        Normalised.
    train_labels, test_labels : ndarray of int64, shape (N,)
        Classes.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Values
    train_labels: NDArray[Any]
    test_images: Values
    test_labels: NDArray[Any]

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of a sample, (C, H, W)."""
        return self.train_images.shape[1:]


def load(name: str) -> DataSet:
    """The data set `name`.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    from dsr.data.digits import load_digits

    loaders = {"digits": load_digits}
    if name not in loaders:
        raise ValueError(f"load: argument 'name': expected one of {', '.join(loaders)}, got {name!r}")
    return loaders[name]()
