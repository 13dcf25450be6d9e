"""Learning-rate schedules: plain functions of the step, so that a resumed run needs no state."""

from __future__ import annotations

from math import cos, inf, pi

from dsr._arrays import as_count, as_number


def cosine(step: int, *, base: float, epochs: int, steps_per_epoch: int, warmup_steps: int = 0) -> float:
    """Cosine over epochs with linear warm-up over the first steps.

    ``base * (1 + cos(pi epoch / epochs)) / 2``, times ``(step + 1) / warmup_steps`` while this is below 1.

    Parameters
    ----------
    step : int
        Steps done before, over all epochs.
    base : float
        Largest learning rate.
    epochs, steps_per_epoch, warmup_steps : int
        Lengths.

    Raises
    ------
    TypeError, ValueError
        A length is no integer >= 0, or `base` no number >= 0.
    """
    _require("cosine", step, base, epochs, steps_per_epoch, warmup_steps)
    epoch = step // max(steps_per_epoch, 1)
    rate = base * (1 + cos(pi * epoch / max(epochs, 1))) / 2
    return rate * min(1.0, (step + 1) / warmup_steps) if warmup_steps else rate


def triangular(step: int, *, base: float, epochs: int, steps_per_epoch: int, warmup_steps: int = 0) -> float:
    """Linear from zero to `base` over the warm-up, then linear to zero at the last step.

    Parameters
    ----------
    step : int
        Steps done before, over all epochs.
    base : float
        Largest learning rate.
    epochs, steps_per_epoch, warmup_steps : int
        Lengths.

    Raises
    ------
    TypeError, ValueError
        A length is no integer >= 0, or `base` no number >= 0.
    """
    _require("triangular", step, base, epochs, steps_per_epoch, warmup_steps)
    down = (epochs * steps_per_epoch - step) / max(epochs * steps_per_epoch - warmup_steps, 1)
    return base * min((step + 1) / warmup_steps, down) if step < warmup_steps else base * max(down, 0.0)


def _require(function: str, step: int, base: float, epochs: int, steps_per_epoch: int, warmup_steps: int) -> None:
    lengths = {"step": step, "epochs": epochs, "steps_per_epoch": steps_per_epoch, "warmup_steps": warmup_steps}
    for name, value in lengths.items():
        as_count(function, name, value, 0)
    as_number(function, "base", base, lambda value: 0 <= value < inf, "a number >= 0")
