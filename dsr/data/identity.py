"""Whether data are those of a run: names of classes, and what tells samples apart from others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from dsr.data.samples import DataSet, Draws, Numbers, Samples
from dsr.ops import Values


class Relabelled(Samples):
    """Samples whose class k is class ``numbers[k]``."""

    def __init__(self, samples: Samples, numbers: Numbers) -> None:
        self.samples, self.labels, self.task = samples, numbers[samples.labels], samples.task

    def batch(self, numbers: Numbers, draws: Draws | None = None) -> Values:
        """The samples of the set below."""
        return self.samples.batch(numbers, draws)

    def batches(self, plan: Iterable[tuple[Numbers, Draws | None]]) -> Iterator[Values]:
        """The batches of the set below."""
        return self.samples.batches(plan)


def with_classes(data: DataSet, classes: Sequence[str]) -> DataSet:
    """A data set with the class numbers of another one, of which it may have some classes only.

    Raises
    ------
    ValueError
        A class of `data` is not among `classes`, or names occur twice; the message says which names differ.
    """
    if list(data.classes) == list(classes):
        return data
    numbers = {name: number for number, name in enumerate(classes)}
    twice = len(set(data.classes)) < len(data.classes) or len(numbers) < len(classes)
    if data.task != "classification" or twice or set(data.classes) - set(classes):  # columns of targets have an order
        raise ValueError(different_classes(data.classes, classes))
    mapped = np.array([numbers[name] for name in data.classes], np.int64)
    return replace(
        data, classes=tuple(classes), train=Relabelled(data.train, mapped), test=Relabelled(data.test, mapped)
    )


def different_classes(found: Sequence[str], expected: Sequence[str]) -> str:
    """Words that say how class names of a data set differ from those of a run."""
    more, less = [[name for name in a if name not in b] for a, b in ((found, expected), (expected, found))]
    parts = [
        f"only {owner} {_some(names)}" for owner, names in (("the data have", more), ("the run has", less)) if names
    ]
    return f"the classes of the data are not those of the run: {'; '.join(parts) or 'their order or number differs'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def fingerprint(samples: Samples) -> dict[str, Any]:
    """What tells samples apart from others: their number, and SHA-256 of all labels and of the content of a few.

    The content is compared in the form that a network gets; other versions of the libraries that decode images may
    change it in its last bits.
    """
    few = np.unique(np.linspace(0, len(samples) - 1, 8).astype(np.int64)) if len(samples) else np.arange(0)
    parts = {"labels": samples.labels, "content": samples.batch(few) if len(few) else few}
    digests = {name: sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in parts.items()}
    return {"count": len(samples), **digests}
