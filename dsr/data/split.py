"""A fixed split of samples into training and test, for data that have none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def split(
    labels: NDArray[np.integer] | None, count: int, share: float, seed: int, where: str
) -> tuple[Numbers, Numbers]:
    """Numbers of the samples to train on and to test with, in ascending order.

    Parameters
    ----------
    labels : ndarray of int or None
        Classes of the samples: of each, the share (rounded up) is drawn; None: of all samples together.
    count : int
        Number of samples.
    share : float
        That tests, in [0, 1).
    seed : int
        Decides which; the same seed gives the same split on every machine.
    where : str
        For errors.

    Raises
    ------
    ValueError
        The share is 0, or a class has too few samples to give some to both.
    """
    if not share:
        raise ValueError(f"{where}: test_share is 0, and the data have no test samples of their own")
    chance = np.random.default_rng([seed, 5]).random(count)
    test = np.zeros(count, bool)
    groups = [np.arange(count)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for group in groups:
        number = int(np.ceil(share * len(group)))
        if number >= len(group):
            one = "all samples" if labels is None else f"class {labels[group[0]]}"
            raise ValueError(f"{where}: {one}: {len(group)} are too few to hold out {100 * share:g} % for the test")
        test[group[np.argsort(chance[group], kind="stable")[:number]]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
