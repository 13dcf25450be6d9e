"""Neurons: models as values, spikes of currents, and gradients through the mapping of representations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dsr import _core
from dsr.ops.arguments import LARGEST, SMALLEST, as_count, as_number, as_positive, as_positives, shown
from dsr.ops.exponential import exp
from dsr.ops.layout import (
    PerChannel,
    Sums,
    Values,
    Words,
    by_channel,
    merge_pixels,
    new_array,
    new_sum,
    require_array,
    word_count,
)

MOST_LEVELS = 255
"""Spikes of a step at most: eight binary digits."""


@dataclass(frozen=True)
class NeuronModel:
    """A neuron: what it does at each step, and the mapping of its representations.

    A step is ``u = decay v + gain I``, a spike where ``u >= fire``, then ``v = u - v_threshold`` (reset by subtraction)
    or ``v = u``. Graded spikes are up to `levels` at a step: k is the number of j in 1, ..., levels with
    ``u >= fire + (j - 1) v_threshold``, then ``v = u - k v_threshold``. The representation of the train approaches
    ``clip(z / divisor, 0, levels amplitude)``, where z is that of the current.

    Attributes
    ----------
    decay, gain, v_threshold, fire : float
        Numbers of the step. 1 and 1 for neurons without a leak, whose loop only adds; the bits are the same.
    amplitude : float
        What a spike is worth.
    divisor, top : float
        The mapping divides by `divisor` and saturates at ``z = top``.
    closed : bool
        Whether the gradient passes at the ends of the interval [0, top].
    levels : int
        Spikes of a step at most, 1 to `MOST_LEVELS`.

    Notes
    -----
    All numbers are exact in the dtype of the arrays, and are computed in it. Neurons of layers may have a threshold for
    each channel: then `v_threshold`, `fire`, `amplitude` and `top` are arrays of float32, (C,).
    """

    decay: float
    gain: float
    v_threshold: PerChannel
    fire: PerChannel
    amplitude: PerChannel
    divisor: float
    top: PerChannel
    closed: bool
    levels: int = 1

    @property
    def planes(self) -> int:
        """Binary digits of the number of spikes of a step."""
        return self.levels.bit_length()


def if_model(
    v_threshold: PerChannel,
    alpha: float = 0.5,
    *,
    levels: int = 1,
    dtype: DTypeLike = np.float32,
    function: str = "if_model",
    one: bool = False,
) -> NeuronModel:
    """Integrate-and-fire neurons, see `dsr.functional.if_forward`; errors are those of `function`.

    `v_threshold` is a number, or, unless it has to be `one`, an array (C,) with that of each channel.
    """
    threshold, fire = _threshold(function, v_threshold, alpha, dtype, one)
    most = as_levels(function, levels)
    top = _top(function, most, threshold, v_threshold, "v_threshold")
    threshold, fire, top = (_plain(number) for number in (threshold, fire, top))
    return NeuronModel(1.0, 1.0, threshold, fire, threshold, 1.0, top, closed=True, levels=most)


def lif_model(
    v_threshold: PerChannel,
    tau: float,
    delta_t: float,
    alpha: float = 0.3,
    *,
    levels: int = 1,
    dtype: DTypeLike = np.float32,
    function: str = "lif_model",
    one: bool = False,
) -> NeuronModel:
    """Leaky integrate-and-fire neurons, see `dsr.functional.lif_forward`; errors are those of `function`.

    `v_threshold` is a number, or, unless it has to be `one`, an array (C,) with that of each channel.
    """
    threshold, fire = _threshold(function, v_threshold, alpha, dtype, one)
    tau, delta_t = as_positive(function, "tau", tau), as_positive(function, "delta_t", delta_t)
    kind: Any = np.dtype(dtype).type
    decay = exp(-delta_t / tau)
    with np.errstate(over="ignore", under="ignore"):
        amplitude, top = threshold / kind(delta_t), kind(tau) * threshold / kind(delta_t)
    for name, value in (("v_threshold / delta_t", amplitude), ("tau v_threshold / delta_t", top)):
        bad = ~((value >= SMALLEST) & (value <= LARGEST))
        if np.any(bad):
            given = f"{np.ravel(threshold)[np.argmax(bad)]:.4g}, {tau:.4g} and {delta_t:.4g}"
            wanted = f"{name} in [2**-126, 2**126], got v_threshold, tau and delta_t of {given}"
            raise ValueError(f"{function}: argument 'delta_t': expected {wanted}")
    most = as_levels(function, levels)
    _top(function, most, amplitude, v_threshold, "v_threshold / delta_t")
    top = _top(function, most, top, v_threshold, "tau v_threshold / delta_t")
    threshold, fire, amplitude, top = (_plain(number) for number in (threshold, fire, amplitude, top))
    numbers = float(kind(decay)), float(kind(1 - decay)), threshold, fire, amplitude, float(kind(tau)), top
    return NeuronModel(*numbers, closed=False, levels=most)


def _threshold(function: str, v_threshold: Any, alpha: float, dtype: DTypeLike, one: bool) -> tuple[Any, Any]:
    """The threshold, and the potential at which a neuron fires: numbers of the dtype, or arrays of them."""
    kind: Any = np.dtype(dtype).type
    if not one and isinstance(v_threshold, np.ndarray) and v_threshold.ndim == 1:
        threshold = as_positives(function, "v_threshold", v_threshold).astype(kind)
    else:
        threshold = kind(as_positive(function, "v_threshold", v_threshold))
    fraction = as_number(function, "alpha", alpha, lambda a: 2.0**-20 <= a <= 1, "a number in [2**-20, 1]")
    return threshold, kind(fraction) * threshold


def as_levels(function: str, levels: Any) -> int:
    """`levels` as an integer in [1, MOST_LEVELS]."""
    most = as_count(function, "levels", levels)
    if most > MOST_LEVELS:
        raise ValueError(f"{function}: argument 'levels': expected an integer in [1, {MOST_LEVELS}], got {most}")
    return most


def _top(function: str, levels: int, height: Any, v_threshold: PerChannel, name: str) -> Any:
    """So many times a height, which is made of `v_threshold`."""
    with np.errstate(over="ignore"):
        top = height * height.dtype.type(levels)
    if not np.all(top <= LARGEST):
        wanted = f"levels * {name} up to 2**126, got {levels} levels and v_threshold {shown(v_threshold)}"
        raise ValueError(f"{function}: argument 'levels': expected {wanted}")
    return top


def _plain(number: Any) -> PerChannel:
    """A Python number, or the array."""
    return number if isinstance(number, np.ndarray) else float(number)


def planes_of(neuron: NeuronModel) -> int:
    """`NeuronModel.planes`; 1 of what the compiled part will refuse."""
    levels = getattr(neuron, "levels", 1)
    return levels.bit_length() if isinstance(levels, int) and 1 <= levels <= MOST_LEVELS else 1


def one_and_thresholds(neuron: NeuronModel) -> tuple[NeuronModel, Values | None]:
    """A neuron as the compiled part takes it: one, and the thresholds of the channels (3, C) if each has its own."""
    if not isinstance(getattr(neuron, "v_threshold", None), np.ndarray):
        return neuron, None
    rows = np.stack(np.broadcast_arrays(neuron.v_threshold, neuron.fire, neuron.top))
    return replace(neuron, v_threshold=1.0, fire=1.0, amplitude=1.0, top=1.0), rows


def neuron_spikes(
    current: Values,
    timesteps: int,
    neuron: NeuronModel,
    weights: Values | None = None,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values, Values | None]:
    """Spikes as words, the sum of the current over time (C, H, W, B), and the sum with `weights` (T,) or None. EXACT.

    A current of one step is held for all `timesteps`. `scale` and `shift` (C,) are applied first,
    ``scale * x + shift``; the sums are of x itself. Of graded spikes the words are those of each binary digit of their
    number, one plane behind the other, the lowest first: (planes ceil(C / 32), H, W, T, B).
    """
    require_array("neuron_spikes", 5, current=current)
    if weights is not None:
        require_array("neuron_spikes", 1, weights=weights)
    channels, height, width, _, batch = current.shape
    steps = as_count("neuron_spikes", "timesteps", timesteps)
    groups = planes_of(neuron) * word_count(channels)
    words = new_array("neuron_spikes", "timesteps", (groups, height, width, steps, batch), np.uint32)
    sums, weighted = new_sum(current), None if weights is None else new_sum(current)
    _core.neuron_spikes(
        merge_pixels(current, 2),
        scale,
        shift,
        weights,
        *one_and_thresholds(neuron),
        merge_pixels(words, 2),
        merge_pixels(sums, 1),
        None if weighted is None else merge_pixels(weighted, 1),
    )
    return words, sums, weighted


def neuron_spikes_backward(
    grad: Values,
    sums: Values,
    timesteps: int,
    neuron: NeuronModel,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, Sums]:
    """The gradient of every step's ``scale * x + shift``, and (C,), the sums of `grad` over saturated neurons. EXACT.

    `grad` (C, H, W, B) is the sum over time of the spikes' gradient, `sums` what `neuron_spikes` gave with the same
    `timesteps`, `scale` and `shift`; both with the weights of the representation, scaled to the sum T. Meng et al.
    2022: through the mapping of the representations, ``functional.if_rate_backward(grad, scale * sums / T + shift,
    v_threshold)`` and its like, the gradient of the mean current divided by T.
    """
    require_array("neuron_spikes_backward", 4, grad=grad, sums=sums)
    if grad.shape != sums.shape:
        wanted = f"expected shape {sums.shape} as 'sums', got {grad.shape}"
        raise ValueError(f"neuron_spikes_backward: argument 'grad': {wanted}")
    result, above = np.empty(sums.shape, np.float32), np.empty(len(sums))
    _core.neuron_spikes_backward(
        by_channel(grad),
        by_channel(sums),
        scale,
        shift,
        timesteps,
        *one_and_thresholds(neuron),
        by_channel(result),
        above,
    )
    return result, above
