"""Threshold and alpha of dsr as the two potentials of a NIR neuron, and back, in float32: numbers, or one a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Singles = NDArray[np.float32]


def potentials(v_threshold: ArrayLike, alpha: float) -> tuple[Singles, Singles]:
    """``v_threshold`` and ``v_reset`` of NIR.

    ``v > v_threshold`` is ``v >= alpha V`` for all float32 v, and ``v_threshold - v_reset`` is V; or the number next to
    it, where no difference of such numbers is V, and for ``alpha = 1``, where `v_reset` is 0.
    """
    height, fraction = np.asarray(v_threshold, np.float32), np.float32(alpha)
    threshold: Any = np.nextafter(fraction * height, np.float32(-np.inf))
    return threshold, np.zeros_like(height) if fraction == 1 else threshold - height


def threshold_and_alpha(threshold: ArrayLike, reset: ArrayLike) -> tuple[Any, float | None]:
    """V and alpha of dsr, which fires at ``u >= alpha V`` and subtracts V; None: there is no alpha for all channels.

    If there is an alpha whose (rounded) product with V is the number above `threshold`, the (rounded) quotient is one.
    """
    below, after = np.asarray(threshold, np.float32), np.asarray(reset, np.float32)
    fire = np.nextafter(below, np.float32(np.inf))
    height = np.where(after == 0, fire, below - after)
    quotients = np.unique(np.minimum(fire / height, np.float32(1)))
    fits = [alpha for alpha in quotients if (alpha * height == fire).all()]
    if height.ndim == 0:
        return float(height), float(quotients[0])
    return height, float(fits[0]) if fits else None
