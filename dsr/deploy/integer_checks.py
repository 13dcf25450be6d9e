"""Whether steps make an integer network: what each reads is there and fits, and no sum can leave its range."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsr.deploy import integer_steps as i
from dsr.ops import MOST_TAPS, output_size
from dsr.ops.integers import LIMIT, NO_DECAY

LARGEST_COUNT = 2**12
LARGEST_RESET = 4095
"""So that potentials reach 8 thresholds from 0 before they are cut off."""
SHIFTS = range(-30, 13)


def require_sound(steps: Sequence[i.Step], function: str) -> None:
    """Raise ValueError, with the layer's name, unless the steps can be run as `dsr.deploy.integer_steps` says."""
    try:
        _require(steps)
    except ValueError as error:
        raise ValueError(f"{function}: {error}") from None


class _Signal(NamedTuple):
    """What a step writes."""

    features: i.Shape
    most: int  # its largest absolute value
    is_data: bool

    @property
    def is_spikes(self) -> bool:
        """0 or 1."""
        return self.most == 1 and not self.is_data


def _require(steps: Sequence[i.Step]) -> None:
    if len(steps) < 2 or not isinstance(steps[0], i.Input):
        raise ValueError("expected an input and an output")
    signals: list[_Signal] = []
    for number, step in enumerate(steps):
        for source in step.reads:
            _demand(step, 0 <= source < number, f"reads step {source}, which is not one before it")
        _demand(step, len(step.features) == 3 and min(step.features) > 0, f"writes {step.features}")
        is_last = isinstance(step, i.ReadCurrent | i.ReadSpikes)
        _demand(step, is_last == (number == len(steps) - 1), "is not where it belongs: outputs are last, and one")
        _demand(step, isinstance(step, i.Input) == (number == 0), "is a second input")
        if isinstance(step, i.Input):
            _demand(step, 1 <= step.most <= LIMIT and -126 <= step.shift <= 126, "has a scale out of range")
            signals.append(_Signal(step.features, step.most, True))
        elif isinstance(step, i.Neurons | i.ReadCurrent):
            _require_current(step, signals)
            signals.append(_Signal(step.features, 1, False))
        else:
            signals.append(_moved(step, [signals[source] for source in step.reads]))


def _demand(step: i.Step, good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"layer '{step.path}' ({type(step).__name__}) {what}")


def _moved(step: i.Step, read: Sequence[_Signal]) -> _Signal:
    """What a step without a current writes, once it is found to be sound."""
    channels, *pixels = step.features
    _demand(step, len(read) > 0, "reads nothing")
    first, most = read[0].features, max(signal.most for signal in read)
    spikes = all(signal.is_spikes for signal in read)
    if isinstance(step, i.ReadSpikes):
        _demand(step, spikes and first == step.features, "reads what is not spikes of its shape")
        _numbers(step, "unit", step.unit, np.float32)
        _demand(step, 0 <= step.decay <= NO_DECAY, f"has a decay of {step.decay}")
    elif isinstance(step, i.Pool):
        sound = min(*step.kernel_size, *step.stride) > 0 and min(step.padding) >= 0
        sound = sound and all(2 * p <= k for k, p in zip(step.kernel_size, step.padding, strict=True))
        _demand(step, sound and prod(step.kernel_size) <= LARGEST_COUNT, f"has windows of {step.kernel_size}")
        windows = zip(first[1:], step.kernel_size, step.stride, step.padding, strict=True)
        fits = spikes and first[0] == channels and [output_size(*axis) for axis in windows] == pixels
        _demand(step, fits, "pools what is not spikes of a shape that fits")
        most = 1 if step.largest else prod(step.kernel_size)
    elif isinstance(step, i.Flatten):
        _demand(step, step.features == (prod(first), 1, 1), f"makes {step.features} of {first}")
    elif isinstance(step, i.Upsample):
        (down, across), (_, height, width) = step.factor, first
        fits = min(step.factor) > 0 and step.features == (first[0], height * down, width * across)
        _demand(step, fits, f"makes {step.features} of {first}")
    elif isinstance(step, i.Gate):
        _demand(step, spikes and len(read) == 2, "connects what is not two trains of spikes")
        _demand(step, all(other.features == step.features for other in read), "connects spikes of other shapes")
    else:
        _demand(step, isinstance(step, i.Concat), "is of no kind that is known")
        same = all([*other.features[1:]] == pixels for other in read)
        _demand(step, same and sum(other.features[0] for other in read) == channels, "joins shapes that do not fit")
        _demand(step, len({other.is_data for other in read}) == 1, "joins the data and spikes")
    return _Signal(step.features, most, read[0].is_data)


def _require_current(step: i.Neurons | i.ReadCurrent, signals: Sequence[_Signal]) -> None:
    _numbers(step, "bias", step.bias, np.int32)
    _demand(step, len(step.terms) > 0, "has a current of nothing")
    reach = np.abs(step.bias.astype(np.int64))
    for term in step.terms:
        reach = reach + _reach(step, term, signals[term.source])
    if reach.max(initial=0) >= i.LARGEST_CURRENT:
        channel = int(reach.argmax())
        raise ValueError(
            f"layer '{step.path}': the current of channel {channel} may reach {int(reach[channel]):,} units, beyond "
            "the 2**30 that 32-bit integers leave room for: its bias or weights are too large for its threshold"
        )
    if isinstance(step, i.ReadCurrent):
        _numbers(step, "unit", step.unit, np.float32)
        return
    for name, array in (("reset", step.reset), ("fire", step.fire)):
        _numbers(step, name, array, np.int32)
        _demand(step, array.min() >= 1 and array.max() <= LARGEST_RESET, f"has a '{name}' beyond 1 to {LARGEST_RESET}")
    _demand(step, bool((step.fire <= step.reset).all()), "fires above its threshold")
    _demand(step, 0 <= step.decay <= NO_DECAY, f"has a decay of {step.decay}")


def _reach(step: i.Step, term: i.Term, source: _Signal) -> NDArray[np.int64]:
    """The largest absolute value of a term in each channel, once it is found to be sound."""
    channels, *pixels = step.features
    if isinstance(term, i.Added):
        _numbers(step, "weight", term.weight, np.int32)
        _demand(step, source.features == step.features, f"adds {source.features} to {step.features}")
        reach = np.abs(term.weight.astype(np.int64))
        _demand(step, reach.max(initial=0) <= LIMIT, f"has weights beyond {LIMIT}")
        return reach * source.most
    weight, geometry = term.weight, term.geometry
    inner = source.features[0] // geometry.groups
    fits = weight.shape == (channels, inner, *geometry.kernel) and inner * geometry.groups == source.features[0]
    fits = fits and channels % geometry.groups == 0 and weight.dtype == np.int8
    _demand(step, fits, f"has weights {weight.shape} of {weight.dtype} over {source.features}")
    _demand(step, [*geometry.output_size(*source.features[1:])] == pixels, f"convolves {source.features} otherwise")
    lowest = SHIFTS.start if source.is_data else 0
    _demand(step, lowest <= term.shift < SHIFTS.stop, f"has a shift of {term.shift}")
    few = source.is_data or geometry.taps <= MOST_TAPS
    _demand(step, few, f"has a kernel of {geometry.taps} taps, more than {MOST_TAPS}")
    sums = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3))
    _demand(step, not source.is_data or sums.max(initial=0) < 2**23, "has more weights over the data than can be added")
    # as large before it is shifted to the right
    reach = sums * source.most
    return reach << term.shift if term.shift >= 0 else np.maximum(reach, (reach >> -term.shift) + 1)


def _numbers(step: i.Step, name: str, array: NDArray[Any], dtype: type[np.generic]) -> None:
    good = array.dtype == dtype and array.shape == step.features[:1]
    _demand(step, good, f"has a '{name}' of {array.dtype} {array.shape}")
    _demand(step, bool(np.isfinite(array).all()), f"has a '{name}' that is not finite")
