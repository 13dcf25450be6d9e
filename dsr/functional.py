"""Spiking neurons, representations, DSR gradients and spike encoders on NumPy arrays.

Every function takes any array of real numbers (any strides, byte order, integer or float dtype) and never changes it.
Computation is in float32, or in float64 where an input needs it (float64 and integers of 32 bits and more). Time is
the first axis, ``(T, ...)`` with at least one step; all other axes are neurons. ``out=`` takes an array of the
result's shape and dtype. All functions are EXACT: the same bits on each instruction level and for any number of
threads. Spikes and gradients of values that are not finite (NaN, infinity) are a ValueError; means and mappings, whose
results show them, take them: `firing_rate`, `weighted_firing_rate`, `if_rate`, `lif_rate` and `encode_direct`.

Symbols are those of Meng et al., "Training High-Performance Low-Latency Spiking Neural Networks by Differentiation on
Spike Representation", CVPR 2022: `v_threshold` is the threshold and the height of a spike, `alpha` the fraction of it
at which a neuron fires, `tau` the membrane time constant and `delta_t` the length of a time step (in the same unit).
"""

from __future__ import annotations

from math import prod
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr import _core
from dsr.ops.arguments import Output, as_array, as_count, as_flag, as_positive, common_real, contiguous
from dsr.ops.exponential import exp
from dsr.ops.neurons import NeuronModel, if_model, lif_model

__all__ = [
    "encode_bernoulli",
    "encode_delta",
    "encode_direct",
    "encode_latency",
    "encode_phase",
    "firing_rate",
    "if_backward",
    "if_forward",
    "if_rate",
    "if_rate_backward",
    "lif_backward",
    "lif_forward",
    "lif_rate",
    "lif_rate_backward",
    "weighted_firing_rate",
]

ThresholdGradient = Literal["published", "exact"]
"""Which factor the gradient of a LIF threshold has, see `lif_backward`."""


@overload
def if_forward(
    current: ArrayLike,
    v_threshold: float,
    alpha: float = 0.5,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: Literal[False] = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def if_forward(
    current: ArrayLike,
    v_threshold: float,
    alpha: float = 0.5,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: Literal[True],
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def if_forward(
    current: ArrayLike,
    v_threshold: float,
    alpha: float = 0.5,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Output train of integrate-and-fire neurons.

    ``u[t] = v[t-1] + I[t]``; a spike where ``u[t] >= alpha * v_threshold``; then ``v[t] = u[t] - v_threshold * s[t]``
    (reset by subtraction, ``v[-1] = v_init``).

    Graded spikes, with `levels` > 1: a step gives ``s[t] = k`` spikes, the number of j in 1, ..., levels with
    ``u[t] >= (alpha + j - 1) v_threshold``, which is ``clip(floor(u[t] / v_threshold + 1 - alpha), 0, levels)``.

    Parameters
    ----------
    current : array_like, shape (T, ...)
        Input current of each neuron and time step.
    v_threshold : float
        Threshold, > 0.
    alpha : float
        Firing threshold as a fraction of `v_threshold`, in [2**-20, 1]. 0.5 makes the rounding of the rate unbiased.
    levels : int
        Spikes of a step at most, 1 to 255.
    v_init : array_like, shape (...) or (), optional
        Potentials before the first step, ``v[-1]``; a number is that of every neuron. 0 by default.
    return_v : bool
        Whether the potentials after the last step are returned, too.
    out : ndarray, optional
        Where the train goes.

    Returns
    -------
    train : ndarray, shape (T, ...)
        ``v_threshold * s[t]``, so 0 or `v_threshold`, or with more levels a multiple of it.
    v : ndarray, shape (...)
        With `return_v`: ``v[T - 1]``, after its reset. As `v_init` of the steps that follow it gives two runs the
        bits of one run over all steps.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: the discrete IF model, firing at `alpha` times the threshold. In the dtype of the arrays spike j
    of a step has the threshold ``fire + (j - 1) v_threshold`` with ``fire = alpha v_threshold``, rounded after each
    operation, and the reset is ``u - k v_threshold``, rounded likewise. Graded spikes are what the payloads of Loihi 2
    and SpiNNaker 2 carry.

    Examples
    --------
    >>> dsr.functional.if_forward([0.5, 0.5, 0.5, 0.5], v_threshold=1.0)
    array([1., 0., 1., 0.])

    The same steps in two runs, the second of which starts where the first one ended:

    >>> train, v = dsr.functional.if_forward([0.5], v_threshold=1.0, return_v=True)
    >>> dsr.functional.if_forward([0.5, 0.5, 0.5], v_threshold=1.0, v_init=v)
    array([0., 1., 0.])
    """
    x, v, dtype = _with_potentials("if_forward", current, v_init)
    neuron = if_model(v_threshold, alpha, levels=levels, dtype=dtype, function="if_forward", one=True)
    return _forward("if_forward", x, v, neuron, dtype, return_v, out)


@overload
def lif_forward(
    current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float = 0.3,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: Literal[False] = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def lif_forward(
    current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float = 0.3,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: Literal[True],
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def lif_forward(
    current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    alpha: float = 0.3,
    *,
    levels: int = 1,
    v_init: ArrayLike | None = None,
    return_v: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Output train of leaky integrate-and-fire neurons.

    ``u[t] = b v[t-1] + (1 - b) I[t]`` with ``b = exp(-delta_t / tau)``; spike and reset as in `if_forward`.

    Parameters
    ----------
    current : array_like, shape (T, ...)
        Input current of each neuron and time step.
    v_threshold : float
        Threshold, > 0.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    alpha : float
        Firing threshold as a fraction of `v_threshold`, in [2**-20, 1].
    levels : int
        Spikes of a step at most, 1 to 255, as in `if_forward`.
    v_init : array_like, shape (...) or (), optional
        Potentials before the first step, ``v[-1]``; a number is that of every neuron. 0 by default.
    return_v : bool
        Whether the potentials after the last step are returned, too.
    out : ndarray, optional
        Where the train goes.

    Returns
    -------
    train : ndarray, shape (T, ...)
        ``v_threshold / delta_t * s[t]``.
    v : ndarray, shape (...)
        With `return_v`: ``v[T - 1]``, after its reset. As `v_init` of the steps that follow it gives two runs the
        bits of one run over all steps.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: the discrete LIF model, firing at `alpha` times the threshold.
    """
    x, v, dtype = _with_potentials("lif_forward", current, v_init)
    neuron = lif_model(v_threshold, tau, delta_t, alpha, levels=levels, dtype=dtype, function="lif_forward", one=True)
    return _forward("lif_forward", x, v, neuron, dtype, return_v, out)


def firing_rate(train: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Mean over time, the representation of an IF train.

    Parameters
    ----------
    train : array_like, shape (T, ...)
        Spikes or currents.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (...)
        ``sum_t train[t] / T``; NaN and infinity show in it.

    Raises
    ------
    TypeError, ValueError
        `train` is not an array of real numbers with a time axis, or `out` does not fit.

    Notes
    -----
    Meng et al. 2022: the spike representation.
    """
    x = as_array("firing_rate", "train", train, least_axes=1)
    dtype = common_real("firing_rate", train=x)
    flat = _time_first("firing_rate", "train", x)
    result = Output("firing_rate", out, x.shape[1:], dtype, flat[1:], (x,))
    _core.firing_rate(contiguous(x, dtype, flat), None, result.buffer)
    return result.finish()


def weighted_firing_rate(
    train: ArrayLike, tau: float, delta_t: float, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Weighted mean over time, the representation of a LIF train: later steps count more.

    Parameters
    ----------
    train : array_like, shape (T, ...)
        Spikes or currents.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (...)
        ``sum_t w[t] train[t] / sum_t w[t]`` with ``w[t] = exp(-(delta_t / tau) (T - 1 - t))``; NaN and infinity show in
        it.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: the spike representation.
    """
    x = as_array("weighted_firing_rate", "train", train, least_axes=1)
    dtype = common_real("weighted_firing_rate", train=x)
    weights = _weights("weighted_firing_rate", x, tau, delta_t)
    flat = _time_first("weighted_firing_rate", "train", x)
    result = Output("weighted_firing_rate", out, x.shape[1:], dtype, flat[1:], (x,))
    _core.firing_rate(contiguous(x, dtype, flat), weights, result.buffer)
    return result.finish()


def if_rate(
    mean_current: ArrayLike, v_threshold: float, *, levels: int = 1, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """The mapping that the rate of an IF train approaches as T grows: ``clip(mean_current, 0, levels v_threshold)``.

    Parameters
    ----------
    mean_current : array_like
        `firing_rate` of the input current.
    v_threshold : float
        Threshold, > 0.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray
        As `mean_current`; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: the sub-differentiable mapping of IF neurons.
    """
    x = as_array("if_rate", "mean_current", mean_current)
    dtype = common_real("if_rate", mean_current=x)
    neuron = if_model(v_threshold, levels=levels, dtype=dtype, function="if_rate", one=True)
    flat = (x.size,)
    result = Output("if_rate", out, x.shape, dtype, flat, (x,))
    _core.rate(contiguous(x, dtype, flat), neuron, result.buffer)
    return result.finish()


def lif_rate(
    mean_current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    *,
    levels: int = 1,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The mapping that the weighted rate of a LIF train approaches.

    ``clip(mean_current / tau, 0, levels v_threshold / delta_t)``.

    Parameters
    ----------
    mean_current : array_like
        `weighted_firing_rate` of the input current.
    v_threshold : float
        Threshold, > 0.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray
        As `mean_current`; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: the sub-differentiable mapping of LIF neurons. The slope of a real train is
    ``(1 - exp(-delta_t / tau)) / delta_t``, which ``1 / tau`` approximates for small steps.
    """
    x = as_array("lif_rate", "mean_current", mean_current)
    dtype = common_real("lif_rate", mean_current=x)
    neuron = lif_model(v_threshold, tau, delta_t, levels=levels, dtype=dtype, function="lif_rate", one=True)
    flat = (x.size,)
    result = Output("lif_rate", out, x.shape, dtype, flat, (x,))
    _core.rate(contiguous(x, dtype, flat), neuron, result.buffer)
    return result.finish()


def if_backward(
    grad_output: ArrayLike,
    current: ArrayLike,
    v_threshold: float,
    *,
    levels: int = 1,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """DSR gradient of `if_forward`.

    With ``g = sum_t grad_output[t]`` and ``z = firing_rate(current)``: every step receives ``g / T`` where
    ``0 <= z <= top`` and 0 elsewhere, with ``top = levels v_threshold``; the threshold receives `levels` times the sum
    of g where ``z > top``.

    Parameters
    ----------
    grad_output : array_like, shape (T, ...)
        Gradient of the loss with respect to the output train.
    current : array_like, shape (T, ...)
        What the forward pass was given.
    v_threshold : float
        Threshold, > 0.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the gradient of the current goes.

    Returns
    -------
    grad_current : ndarray, shape (T, ...)
        The same at every step.
    grad_threshold : float
        Gradient of the threshold.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, shape or range; the message names it.

    Notes
    -----
    Meng et al. 2022: differentiation on spike representation; interval ends as in the authors' code.
    """
    g, x, dtype = _pair("if_backward", "grad_output", grad_output, "current", current, least_axes=1)
    neuron = if_model(v_threshold, levels=levels, dtype=dtype, function="if_backward", one=True)
    flat = _time_first("if_backward", "current", x)
    result = Output("if_backward", out, x.shape, dtype, flat, (g, x))
    above = _core.backward(contiguous(g, dtype, flat), contiguous(x, dtype, flat), None, neuron, result.buffer)
    return result.finish(), above * neuron.levels


def lif_backward(
    grad_output: ArrayLike,
    current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    *,
    gradient: ThresholdGradient = "published",
    levels: int = 1,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """DSR gradient of `lif_forward`.

    With ``g = T weighted_firing_rate(grad_output)`` and ``z = weighted_firing_rate(current)``: every step receives
    ``g / (tau T)`` where ``0 < z < levels tau v_threshold / delta_t`` and 0 elsewhere; the threshold receives
    ``levels delta_t`` times the sum of g where z is above that interval.

    Parameters
    ----------
    grad_output : array_like, shape (T, ...)
        Gradient of the loss with respect to the output train.
    current : array_like, shape (T, ...)
        What the forward pass was given.
    v_threshold : float
        Threshold, > 0.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    gradient : {"published", "exact"}
        A spike is worth ``v_threshold / delta_t``, whose derivative is ``1 / delta_t`` ("exact"); the authors multiply
        by `delta_t` instead ("published"), a smaller step of the threshold.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the gradient of the current goes.

    Returns
    -------
    grad_current : ndarray, shape (T, ...)
        The same at every step.
    grad_threshold : float
        Gradient of the threshold.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, shape or range; the message names it.

    Notes
    -----
    Meng et al. 2022: differentiation on spike representation; interval ends as in the authors' code.
    """
    g, x, dtype = _pair("lif_backward", "grad_output", grad_output, "current", current, least_axes=1)
    neuron = lif_model(v_threshold, tau, delta_t, levels=levels, dtype=dtype, function="lif_backward", one=True)
    factor, weights = threshold_factor("lif_backward", delta_t, gradient), _weights("lif_backward", x, tau, delta_t)
    flat = _time_first("lif_backward", "current", x)
    result = Output("lif_backward", out, x.shape, dtype, flat, (g, x))
    above = _core.backward(contiguous(g, dtype, flat), contiguous(x, dtype, flat), weights, neuron, result.buffer)
    return result.finish(), above * (neuron.levels * factor)


def if_rate_backward(
    grad_rate: ArrayLike,
    mean_current: ArrayLike,
    v_threshold: float,
    *,
    levels: int = 1,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """Gradient of `if_rate`, no time axis anywhere.

    Parameters
    ----------
    grad_rate : array_like
        Gradient of the loss with respect to the firing rate.
    mean_current : array_like
        `firing_rate` of the input current, shaped as `grad_rate`.
    v_threshold : float
        Threshold, > 0.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the gradient of the mean current goes.

    Returns
    -------
    grad_mean_current : ndarray
        `grad_rate` where ``0 <= mean_current <= levels v_threshold``, 0 elsewhere.
    grad_threshold : float
        `levels` times the sum of `grad_rate` where the mean current is above that interval.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, shape or range; the message names it.

    Notes
    -----
    Meng et al. 2022: differentiation on spike representation.
    """
    g, x, dtype = _pair("if_rate_backward", "grad_rate", grad_rate, "mean_current", mean_current)
    neuron = if_model(v_threshold, levels=levels, dtype=dtype, function="if_rate_backward", one=True)
    flat = (x.size,)
    result = Output("if_rate_backward", out, x.shape, dtype, flat, (g, x))
    above = _core.rate_backward(contiguous(g, dtype, flat), contiguous(x, dtype, flat), neuron, result.buffer)
    return result.finish(), above * neuron.levels


def lif_rate_backward(
    grad_rate: ArrayLike,
    mean_current: ArrayLike,
    v_threshold: float,
    tau: float,
    delta_t: float,
    *,
    gradient: ThresholdGradient = "published",
    levels: int = 1,
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], float]:
    """Gradient of `lif_rate`, no time axis anywhere.

    Parameters
    ----------
    grad_rate : array_like
        Gradient of the loss with respect to the weighted firing rate.
    mean_current : array_like
        `weighted_firing_rate` of the input current, shaped as `grad_rate`.
    v_threshold : float
        Threshold, > 0.
    tau, delta_t : float
        Membrane time constant and time step, > 0, in the same unit.
    gradient : {"published", "exact"}
        Factor of the threshold's gradient, as in `lif_backward`.
    levels : int
        Spikes of a step at most, 1 to 255.
    out : ndarray, optional
        Where the gradient of the mean current goes.

    Returns
    -------
    grad_mean_current : ndarray
        ``grad_rate / tau`` where ``0 < mean_current < levels tau v_threshold / delta_t``, 0 elsewhere.
    grad_threshold : float
        ``levels delta_t`` times the sum of `grad_rate` where the mean current is above that interval.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type, shape or range; the message names it.

    Notes
    -----
    Meng et al. 2022: differentiation on spike representation.
    """
    g, x, dtype = _pair("lif_rate_backward", "grad_rate", grad_rate, "mean_current", mean_current)
    neuron = lif_model(v_threshold, tau, delta_t, levels=levels, dtype=dtype, function="lif_rate_backward", one=True)
    factor = threshold_factor("lif_rate_backward", delta_t, gradient)
    flat = (x.size,)
    result = Output("lif_rate_backward", out, x.shape, dtype, flat, (g, x))
    above = _core.rate_backward(contiguous(g, dtype, flat), contiguous(x, dtype, flat), neuron, result.buffer)
    return result.finish(), above * (neuron.levels * factor)


def encode_direct(value: ArrayLike, timesteps: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Direct coding: the same current at every step. Decoder: `firing_rate`, exact up to rounding.

    Parameters
    ----------
    value : array_like
        Any real numbers.
    timesteps : int
        T, at least 1.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (T, ...)
        T copies of `value`.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Meng et al. 2022: images enter the first convolution in this way. Layers of `dsr` do not need the
    copies: they compute on the image once.
    """
    x = as_array("encode_direct", "value", value)
    dtype = common_real("encode_direct", value=x)
    steps = as_count("encode_direct", "timesteps", timesteps)
    result = Output("encode_direct", out, (steps, *x.shape), dtype, (steps, *x.shape), (x,))
    result.buffer[...] = x
    return result.finish()


def encode_bernoulli(
    rate: ArrayLike, timesteps: int, seed: int = 0, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Rate coding: independent spikes with the probability `rate` at each step. Decoder: `firing_rate`.

    The decoded rate is unbiased with variance ``rate (1 - rate) / T``. (With a rate of ``lambda delta_t`` this is
    the usual discrete form of a Poisson train.)

    Parameters
    ----------
    rate : array_like
        Probabilities in [0, 1].
    timesteps : int
        T, at least 1.
    seed : int
        In [0, 2**64). The same seed gives the same train on every machine and for any number of threads.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (T, ...)
        0 and 1.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Numbers are drawn by Philox4x32-10 (Salmon et al., SC 2011), counted by position: element n of step t compares
    word ``t * ceil4(N) + n`` of the stream with the rate.
    """
    x = _unit("encode_bernoulli", "rate", rate)
    dtype = common_real("encode_bernoulli", rate=x)
    steps = as_count("encode_bernoulli", "timesteps", timesteps)
    result = Output("encode_bernoulli", out, (steps, *x.shape), dtype, (steps, x.size), (x,))
    _core.encode_bernoulli(contiguous(x, dtype, (x.size,)), seed, result.buffer)
    return result.finish()


def encode_latency(value: ArrayLike, timesteps: int, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Time-to-first-spike coding: one spike at step ``T - 1 - round(value (T - 1))``, early for large values.

    Decoder: ``1 - t / (T - 1)`` for the spike's step t, within ``1 / (2 (T - 1))`` of the value.

    Parameters
    ----------
    value : array_like
        Values in [0, 1].
    timesteps : int
        T, at least 1 (with T = 1 every neuron spikes at once).
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (T, ...)
        0 and 1, one spike a neuron.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Thorpe, Delorme, Van Rullen, "Spike-based strategies for rapid processing", Neural Networks 2001.
    """
    x = _unit("encode_latency", "value", value)
    dtype = common_real("encode_latency", value=x)
    steps = as_count("encode_latency", "timesteps", timesteps)
    result = Output("encode_latency", out, (steps, *x.shape), dtype, (steps, x.size), (x,))
    _core.encode_latency(contiguous(x, dtype, (x.size,)), result.buffer)
    return result.finish()


def encode_phase(value: ArrayLike, timesteps: int, bits: int = 8, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Phase coding: the binary digits of the value, most significant first, one a step, repeated.

    Decoder: over any whole period of `bits` steps, ``sum_t 2**-(1 + t % bits) train[t]``, at most ``2**-bits`` below
    the value.

    Parameters
    ----------
    value : array_like
        Values in [0, 1]; 1 is sent as the largest number that `bits` digits hold.
    timesteps : int
        T, at least 1; a multiple of `bits` sends whole periods.
    bits : int
        Digits of a period, 1 to 24.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (T, ...)
        0 and 1.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Kim, Kim, Huh, Lee, Choi, "Deep neural networks with weighted spikes", Neurocomputing 2018.
    """
    x = _unit("encode_phase", "value", value)
    dtype = common_real("encode_phase", value=x)
    steps = as_count("encode_phase", "timesteps", timesteps)
    result = Output("encode_phase", out, (steps, *x.shape), dtype, (steps, x.size), (x,))
    digits = as_count("encode_phase", "bits", bits)
    if digits > 24:
        raise ValueError(f"encode_phase: argument 'bits': expected an integer in [1, 24], got {digits}")
    _core.encode_phase(contiguous(x, dtype, (x.size,)), digits, result.buffer)
    return result.finish()


def encode_delta(signal: ArrayLike, threshold: float, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Send on delta: a spike of +1 or -1 when the signal has moved by `threshold` since the last level sent.

    Decoder: ``signal[0] + threshold * cumsum(train)``, within `threshold` of the signal as long as this changes by no
    more than `threshold` a step.

    Parameters
    ----------
    signal : array_like, shape (T, ...)
        A signal over time.
    threshold : float
        Change that is worth a spike, > 0.
    out : ndarray, optional
        Where the result goes.

    Returns
    -------
    ndarray, shape (T, ...)
        -1, 0 and 1; the first step is 0.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong type or out of its range; the message names it.

    Notes
    -----
    Miskowicz, "Send-on-delta concept", Sensors 2006; the rule of event cameras.
    """
    x = _finite("encode_delta", "signal", signal, least_axes=1)
    dtype = common_real("encode_delta", signal=x)
    flat = _time_first("encode_delta", "signal", x)
    result = Output("encode_delta", out, x.shape, dtype, flat, (x,))
    _core.encode_delta(contiguous(x, dtype, flat), threshold, result.buffer)
    return result.finish()


def threshold_factor(function: str, delta_t: float, gradient: ThresholdGradient) -> float:
    """Factor of a LIF threshold's gradient: `delta_t` as published, ``1 / delta_t`` as the mapping has it."""
    if not isinstance(gradient, str) or gradient not in ("published", "exact"):
        given = repr(gradient) if isinstance(gradient, str) else type(gradient).__name__
        raise ValueError(f"{function}: argument 'gradient': expected 'published' or 'exact', got {given}")
    return float(delta_t) if gradient == "published" else 1.0 / float(delta_t)


def _with_potentials(
    function: str, current: ArrayLike, v_init: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[Any] | None, np.dtype[Any]]:
    """Current, initial potentials of the same neurons or None, and the float dtype of both; a number has none."""
    x = _finite(function, "current", current, least_axes=1)
    if v_init is None:
        return x, None, common_real(function, current=x)
    v = _finite(function, "v_init", v_init)
    if v.shape not in (x.shape[1:], ()):
        wanted = f"expected shape {x.shape[1:]}, one per neuron of 'current', or a number"
        raise ValueError(f"{function}: argument 'v_init': {wanted}, got shape {v.shape}")
    dtype = common_real(function, current=x) if v.ndim == 0 else common_real(function, current=x, v_init=v)
    if v.ndim == 0 and not abs(v) <= np.finfo(dtype).max:
        raise ValueError(f"{function}: argument 'v_init': expected a potential that fits {dtype}, got {v}")
    return x, np.broadcast_to(v, x.shape[1:]), dtype


def _forward(
    function: str,
    x: NDArray[Any],
    v: NDArray[Any] | None,
    neuron: NeuronModel,
    dtype: np.dtype[Any],
    return_v: bool,
    out: NDArray[Any] | None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    return_v = as_flag(function, "return_v", return_v)
    flat = _time_first(function, "current", x)
    result = Output(function, out, x.shape, dtype, flat, (x,) if v is None else (x, v))
    v_init = None if v is None else contiguous(v, dtype, flat[1:])
    v_final = np.empty(flat[1:], dtype) if return_v else None
    _core.neuron_forward(contiguous(x, dtype, flat), v_init, neuron, result.buffer, v_final)
    return result.finish() if v_final is None else (result.finish(), v_final.reshape(x.shape[1:]))


def _time_first(function: str, name: str, train: NDArray[Any]) -> tuple[int, int]:
    """Steps and neurons of a train, or an error where there are no steps."""
    if len(train) == 0:
        wanted = f"expected at least one time step on the first axis, got shape {train.shape}"
        raise ValueError(f"{function}: argument '{name}': {wanted}")
    return len(train), prod(train.shape[1:])


def _weights(function: str, train: NDArray[Any], tau: float, delta_t: float) -> NDArray[np.float64] | None:
    """The weights of the representation of LIF trains; None where there is nothing to weigh."""
    step, last = as_positive(function, "delta_t", delta_t) / as_positive(function, "tau", tau), len(train) - 1
    return np.array([exp(-step * (last - t)) for t in range(len(train))]) if train.size else None


def _finite(function: str, name: str, value: ArrayLike, *, least_axes: int = 0) -> NDArray[Any]:
    """As `as_array`; a value that is NaN or infinite is a ValueError, since it would look like a silent neuron."""
    array = as_array(function, name, value, least_axes=least_axes)
    if array.dtype.kind == "f" and not (good := np.isfinite(array)).all():
        first = tuple(int(i) for i in np.unravel_index(np.argmin(good), array.shape))
        wrong = array.size - np.count_nonzero(good)
        given = f"{wrong} of {array.size} that are not, the first at index {first}: {array[first]}"
        raise ValueError(f"{function}: argument '{name}': expected finite values, got {given}")
    return array


def _pair(
    function: str, first: str, a: ArrayLike, second: str, b: ArrayLike, *, least_axes: int = 0
) -> tuple[NDArray[Any], NDArray[Any], np.dtype[Any]]:
    x, y = _finite(function, first, a, least_axes=least_axes), _finite(function, second, b, least_axes=least_axes)
    if x.shape != y.shape:
        raise ValueError(f"{function}: argument '{first}': expected shape {y.shape} as '{second}', got {x.shape}")
    return x, y, common_real(function, **{first: x, second: y})


def _unit(function: str, name: str, value: ArrayLike) -> NDArray[Any]:
    array = _finite(function, name, value)
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"{function}: argument '{name}': expected values in [0, 1], got [{array.min()}, {array.max()}]"
        )
    return array
