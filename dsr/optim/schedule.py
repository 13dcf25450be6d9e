"""Learning-rate schedules: plain functions of the position in epochs, so that a resumed run needs no state.

A position in epochs means the same after a resume with more ranks or more data, when an epoch has another number of
steps. Exact positions are fractions, ``epoch + Fraction(batch, batches)``.
"""

from __future__ import annotations

from fractions import Fraction
from math import cos, floor, inf, pi

from dsr.ops.arguments import as_count, as_number

Epochs = Fraction | float
"""A position or a length in epochs."""


def cosine(epoch: Epochs, *, base: float, epochs: int, step: int = 0, warmup_steps: int = 0) -> float:
    """Half a cosine over the epochs, the same for all steps of an epoch, with linear warm-up over the first steps.

    ``base * (1 + cos(pi floor(epoch) / epochs)) / 2``, times ``(step + 1) / warmup_steps`` while this is below 1.

    Parameters
    ----------
    epoch : Fraction or float
        Position: epochs done before this step, with the part of the one that is under way.
    base : float
        Largest learning rate.
    epochs : int
        Length of the run.
    step, warmup_steps : int
        Steps done before, over all epochs, and those of the warm-up.

    Raises
    ------
    TypeError, ValueError
        A length is not an integer >= 0, or `epoch` or `base` is not a number >= 0.
    """
    position, base, epochs, step, warmup_steps = _checked("cosine", epoch, base, epochs, step, warmup_steps)
    rate = base * (1 + cos(pi * floor(position) / max(epochs, 1))) / 2
    return rate * min(1.0, (step + 1) / warmup_steps) if warmup_steps else rate


def triangular(
    epoch: Epochs, *, base: float, epochs: int, step: int = 0, warmup_steps: int = 0, warmup_epochs: Epochs = 0
) -> float:
    """Linear from zero to `base` over the warm-up, then linear to zero at the end of the last epoch.

    Parameters
    ----------
    epoch, base, epochs, step, warmup_steps
        As of `cosine`.
    warmup_epochs : Fraction or float
        The length of the warm-up in epochs, where the descent begins.

    Raises
    ------
    TypeError, ValueError
        A length is not an integer >= 0, or `epoch`, `warmup_epochs` or `base` is not a number >= 0.
    """
    position, base, epochs, step, warmup_steps = _checked("triangular", epoch, base, epochs, step, warmup_steps)
    descent = epochs - _exact("triangular", "warmup_epochs", warmup_epochs)
    left = max(epochs - position, Fraction(0))
    # float() of a fraction is rounded once: the same bits for every way to the position
    down = float(left / descent) if descent > 0 else float(left > 0)
    return base * min(1.0, down, (step + 1) / warmup_steps if warmup_steps else 1.0)


def _checked(function: str, epoch: Epochs, base: float, *lengths: int) -> tuple[Fraction, float, int, int, int]:
    names = "epochs", "step", "warmup_steps"
    epochs, step, warmup_steps = (as_count(function, name, n, 0) for name, n in zip(names, lengths, strict=True))
    position = _exact(function, "epoch", epoch)
    return position, _not_negative(function, "base", base), epochs, step, warmup_steps


def _exact(function: str, name: str, value: Epochs) -> Fraction:
    if isinstance(value, Fraction) and value >= 0:
        return value
    return Fraction(_not_negative(function, name, value))


def _not_negative(function: str, name: str, value: Epochs) -> float:
    return as_number(function, name, value, lambda number: 0 <= number < inf, "a number >= 0")
