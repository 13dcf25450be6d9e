"""The exponential function, with the same bits on every platform."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

# 60 digits are 199 bits. No float64 has an exponential so close to the middle between two others that 120 bits do not
# tell on which side it is (Lefèvre and Muller, "Worst cases for correct rounding of the elementary functions in double
# precision", 2001), so the float64 nearest to 60 right digits is the one nearest to the exponential.
_DIGITS = Context(prec=60, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999, clamp=0, flags=[], traps=[])


@lru_cache(maxsize=4096)
def exp(x: float) -> float:
    """``e**x``: the float64 nearest to it, half a unit in the last place away at most.

    The C libraries' own, behind `math.exp`, are the nearest or the one beside it, each in other cases, and `numpy.exp`
    differs from processor to processor: the bits of neurons' leaks would depend on where they are computed.
    """
    return float(Decimal(x).exp(_DIGITS))
