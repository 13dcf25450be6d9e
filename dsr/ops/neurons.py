"""Neurons: spikes of currents, and gradients through the mapping of representations."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

import numpy as np

from dsr import _core
from dsr.ops.arguments import as_count
from dsr.ops.layout import (
    Values,
    Words,
    by_channel,
    merge_pixels,
    new_array,
    new_sum,
    require_array,
    word_count,
)


def _spike_words(function: str, current: Values, timesteps: int) -> Words:
    """Room for the spikes of neurons with this current."""
    channels, height, width, _, batch = current.shape
    return new_array(function, "timesteps", (word_count(channels), height, width, timesteps, batch), np.uint32)


def if_spikes(
    current: Values,
    timesteps: int,
    v_threshold: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values]:
    """IF neurons: spikes as words, and the sum of the current over time (C, H, W, B). EXACT.

    A current of one step is held for all `timesteps`. `scale` and `shift` (C,) are applied first,
    ``scale * x + shift``; the sum is of x itself.
    """
    require_array("if_spikes", 5, current=current)
    words = _spike_words("if_spikes", current, as_count("if_spikes", "timesteps", timesteps))
    sums = new_sum(current)
    _core.if_spikes(
        merge_pixels(current, 2), scale, shift, v_threshold, alpha, merge_pixels(words, 2), merge_pixels(sums, 1)
    )
    return words, sums


def lif_spikes(
    current: Values,
    weights: Values,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values, Values]:
    """LIF neurons: as `if_spikes`, and the sum over time with the weights (T,) of the representation. EXACT."""
    require_array("lif_spikes", 5, current=current)
    require_array("lif_spikes", 1, weights=weights)
    words = _spike_words("lif_spikes", current, len(weights))
    sums, weighted = new_sum(current), new_sum(current)
    _core.lif_spikes(
        merge_pixels(current, 2),
        scale,
        shift,
        weights,
        v_threshold,
        tau,
        delta_t,
        alpha,
        merge_pixels(words, 2),
        merge_pixels(sums, 1),
        merge_pixels(weighted, 1),
    )
    return words, sums, weighted


def if_spikes_backward(
    grad: Values,
    sums: Values,
    timesteps: int,
    v_threshold: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, float]:
    """The gradient of every step's ``scale * x + shift``, and the threshold's. EXACT.

    `grad` (C, H, W, B) is the sum over time of the spikes' gradient, `sums` what `if_spikes` gave with the same
    `timesteps`, `scale` and `shift`. Meng et al. 2022: through the mapping of the representations,
    ``functional.if_rate_backward(grad, scale * sums / T + shift, v_threshold)``, the gradient of the mean current
    divided by T.
    """
    room = _require_sums("if_spikes_backward", "sums", grad, sums)
    above = _core.if_spikes_backward(
        by_channel(grad),
        by_channel(sums),
        scale,
        shift,
        timesteps,
        v_threshold,
        by_channel(room),
    )
    return room, above


def lif_spikes_backward(
    grad: Values,
    weighted: Values,
    timesteps: int,
    v_threshold: float,
    tau: float,
    delta_t: float,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, float]:
    """As `if_spikes_backward`, with the weighted sums of `lif_spikes` and of the gradient. EXACT.

    The threshold's gradient is the plain sum over saturated neurons, without the factor of
    `functional.lif_rate_backward`.
    """
    room = _require_sums("lif_spikes_backward", "weighted", grad, weighted)
    above = _core.lif_spikes_backward(
        by_channel(grad),
        by_channel(weighted),
        scale,
        shift,
        timesteps,
        v_threshold,
        tau,
        delta_t,
        by_channel(room),
    )
    return room, above


def _require_sums(function: str, name: str, grad: Values, sums: Values) -> Values:
    """Refuse a gradient and sums that do not belong together; room for the result."""
    require_array(function, 4, grad=grad, **{name: sums})
    if grad.shape != sums.shape:
        raise ValueError(f"{function}: argument 'grad': expected shape {sums.shape} as '{name}', got {grad.shape}")
    return np.empty(sums.shape, np.float32)


@dataclass(frozen=True)
class NeuronModel:
    """A neuron."""

    decay: float
    gain: float
    v_threshold: float
    fire: float
    amplitude: float
    divisor: float
    top: float
    closed: bool
    args: tuple[float, ...] = ()


def if_model(v_threshold: float, alpha: float) -> NeuronModel:
    """IF."""
    v = np.float32(v_threshold)
    return NeuronModel(
        1.0, 1.0, float(v), float(np.float32(alpha) * v), float(v), 1.0, float(v), True, (v_threshold, alpha)
    )


def lif_model(v_threshold: float, tau: float, delta_t: float, alpha: float) -> NeuronModel:
    """LIF."""
    v, d, t = np.float32(v_threshold), np.float32(delta_t), np.float32(tau)
    decay = exp(-delta_t / tau)
    with np.errstate(over="ignore"):
        return NeuronModel(
            float(np.float32(decay)),
            float(np.float32(1 - decay)),
            float(v),
            float(np.float32(alpha) * v),
            float(v / d),
            float(t),
            float(t * v / d),
            False,
            (v_threshold, tau, delta_t, alpha),
        )


def neuron_spikes(
    current: Values,
    timesteps: int,
    neuron: NeuronModel,
    weights: Values | None = None,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Words, Values, Values | None]:
    """Spikes."""
    if neuron.closed:
        return *if_spikes(current, timesteps, *neuron.args, scale, shift), None
    assert weights is not None
    return lif_spikes(current, weights, *neuron.args, scale, shift)


def neuron_spikes_backward(
    grad: Values,
    sums: Values,
    timesteps: int,
    neuron: NeuronModel,
    scale: Values | None = None,
    shift: Values | None = None,
) -> tuple[Values, float]:
    """Backward."""
    if neuron.closed:
        return if_spikes_backward(grad, sums, timesteps, neuron.args[0], scale, shift)
    return lif_spikes_backward(grad, sums, timesteps, *neuron.args[:3], scale, shift)
