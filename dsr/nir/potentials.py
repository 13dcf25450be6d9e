"""Threshold and alpha of dsr as the two potentials of a NIR neuron, and back, in float32."""

from __future__ import annotations

import numpy as np


def potentials(v_threshold: float, alpha: float) -> tuple[np.float32, np.float32]:
    """``v_threshold`` and ``v_reset`` of NIR.

    ``v > v_threshold`` is ``v >= alpha V`` for all float32 v, and ``v_threshold - v_reset`` is V; or the number next to
    it, where no difference of such numbers is V, and for ``alpha = 1``, where `v_reset` is 0.
    """
    height, fraction = np.float32(v_threshold), np.float32(alpha)
    threshold = np.nextafter(fraction * height, np.float32(-np.inf))
    return threshold, np.float32(0) if fraction == 1 else threshold - height


def threshold_and_alpha(threshold: np.float32, reset: np.float32) -> tuple[float, float]:
    """V and alpha of dsr, which fires at ``u >= alpha V`` and subtracts V.

    If there is an alpha whose (rounded) product with V is the number above `threshold`, the (rounded) quotient is one.
    """
    fire = np.nextafter(threshold, np.float32(np.inf))
    height = fire if reset == 0 else threshold - reset
    return float(height), min(float(fire / height), 1.0)
