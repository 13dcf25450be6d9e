"""Learning-rate schedules: plain functions of the step, so that a resumed run needs no state."""

from __future__ import annotations

from math import cos, inf, pi

from dsr.ops.arguments import as_count, as_number


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
    step, epochs, steps_per_epoch, warmup_steps = _lengths("cosine", step, epochs, steps_per_epoch, warmup_steps)
    base = _base("cosine", base)
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
    step, epochs, steps_per_epoch, warmup_steps = _lengths("triangular", step, epochs, steps_per_epoch, warmup_steps)
    base = _base("triangular", base)
    down = max(epochs * steps_per_epoch - step, 0) / max(epochs * steps_per_epoch - warmup_steps, 1)
    return base * min((step + 1) / warmup_steps, down) if step < warmup_steps else base * down


def _lengths(function: str, *lengths: int) -> list[int]:
    names = "step", "epochs", "steps_per_epoch", "warmup_steps"
    return [as_count(function, name, value, 0) for name, value in zip(names, lengths, strict=True)]


def _base(function: str, base: float) -> float:
    return as_number(function, "base", base, lambda value: 0 <= value < inf, "a number >= 0")
