"""`check_layer`: whether a layer keeps what the layers of this package keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr.nn.currents import Current, signal_values
from dsr.nn.gradients import Gradient, SignalGradient
from dsr.nn.layer import Layer, Parameter
from dsr.nn.run import Run
from dsr.nn.spikes import SpikeTrain, image_shape
from dsr.ops import Values
from dsr.ops.arguments import as_count
from dsr.ops.threads import get_num_threads, set_num_threads
from dsr.testing.differences import Differences
from dsr.testing.probe import Input, Probe, parameters, training

TOLERANCE = 5e-3
"""Largest difference of slopes, as a share: outputs are float32, and differences have curvature."""

STEPS = (2.0**-6, 2.0**-8, 2.0**-10, 2.0**-12)
"""Tried until one agrees: a large one rounds less, a small one meets fewer corners."""

DIRECTIONS = 3


@dataclass(frozen=True)
class LayerReport:
    """What `check_layer` found.

    Attributes
    ----------
    features : tuple of int
        Shape of a sample of the output.
    plan : tuple of (str, str)
        Path and choice: how the layer and those inside it were evaluated; in evaluation, and then in training, forward
        and backward. See `dsr.inspect.plan`.
    differences : dict of str to float
        For ``"input"`` and each parameter, by how much of it the gradient differed from finite differences at most.
    """

    features: tuple[int, ...]
    plan: tuple[tuple[str, str], ...]
    differences: dict[str, float]

    def __str__(self) -> str:
        lines = [f"output features: {self.features}"]
        lines += [f"{path or 'layer'}: {choice}" for path, choice in self.plan]
        for name, share in self.differences.items():
            lines.append(f"gradient of {name}: within {share:.1e} of finite differences")
        return "\n".join(lines)


def check_layer(layer: Layer, input: ArrayLike | SpikeTrain, *, timesteps: int = 4, seed: int = 0) -> LayerReport:
    """Check that a layer keeps what the layers of this package keep.

    - Evaluation gives a signal of finite values, in the shape that its `features` say. It gives the same bits again,
      and changes nothing in the layer.
    - Training writes no parameter. `backward` leaves a gradient in every parameter, and gives that of the input in the
      form that the input's `time_weights` ask for.
    - These gradients are those of finite differences of the layer, in which the mapping stands for neurons.
    - A pass for `backward` alone (``run.frozen``) gives the output of evaluation, and gradients that fit it.
    - All this has the same bits for 1, 2 and 3 threads, and whether currents are kept for the backward pass or not.

    Parameters
    ----------
    layer : Layer
        It is not changed: copies are, whose parameters are drawn anew, and moved so that none is 0 or 1.
    input : array_like or SpikeTrain
        Data as for `Network.forward`, or spikes: a small array of values of order 1 that differ from each other and
        from 0, so that a layer such as `ReLU` has no corner there.
    timesteps : int
        T, for data that is the same at every step.
    seed : int
        Of the parameters, and of the directions in which differences are taken.

    Returns
    -------
    LayerReport

    Raises
    ------
    AssertionError
        The layer does not keep one of these; the message says which.
    TypeError, ValueError
        An argument is not what it should be, or is refused by the layer.

    Notes
    -----
    Differences are taken along a few random directions, so a wrong gradient is found, but not where it is wrong.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer: argument 'layer': expected a layer, got {type(layer).__name__}")
    timesteps, seed = as_count("check_layer", "timesteps", timesteps), as_count("check_layer", "seed", seed, 0)
    probe = Probe(layer, Input.of(input, timesteps), seed)
    choices: list[tuple[str, str]] = []
    output = _check_evaluation(probe, choices)
    step = _check_training(probe, choices)
    frozen = _step(probe, training(frozen=True))
    _require_same(probe, output.values, frozen["output"], "a pass with run.frozen gave another output than evaluation")
    found = _check_gradients(probe, step, False, seed), _check_gradients(probe, frozen, True, seed)
    return LayerReport(output.features, tuple(choices), {name: max(f[name] for f in found) for name in found[0]})


@dataclass(frozen=True)
class _Output:
    features: tuple[int, ...]
    values: Values


def _check_evaluation(probe: Probe, choices: list[tuple[str, str]]) -> _Output:
    """Signal, bits, and a layer that is as before."""
    layer, before = probe.layer, _contents(probe.layer)
    first = _as_output(probe, layer(probe.input.signal(), Run(choices=choices)))
    after = _contents(layer)
    changed = [name for name in before | after if name not in before or not _equal(before[name], after.get(name))]
    if changed:
        raise probe.failure(f"evaluation changed {', '.join(changed)}; threads that share a network would meet there")
    for how in _numbers_of_threads():
        again = _as_output(probe, layer(probe.input.signal(), Run()))
        _require_same(probe, first.values, again.values, f"evaluation with {how} gave other bits")
    return first


def _check_training(probe: Probe, choices: list[tuple[str, str]]) -> dict[str, NDArray[Any]]:
    """Output and gradients, the same bits each time."""
    first = _step(probe, training(choices=choices))
    others = [("that keeps no current", _step(probe, training(keep=False)))]
    others += [(f"with {how}", _step(probe, training())) for how in _numbers_of_threads()]
    for how, other in others:
        for name, array in other.items():
            _require_same(probe, first[name], array, f"training {how} gave other bits of the {name}")
    return first


def _step(probe: Probe, run: Run) -> dict[str, NDArray[Any]]:
    """Output and gradients of a copy of the layer, by name."""
    layer = probe.copy()
    before = {name: parameter.value.copy() for name, parameter in parameters(layer)}
    buffers = {name: array.copy() for name, array in _buffers(layer)}
    output = layer(probe.input.signal(), run)
    found: dict[str, NDArray[Any]] = {"output": _as_output(probe, output).values}
    for name, parameter in parameters(layer):
        _require_same(probe, before[name], parameter.value, f"the forward pass wrote parameter '{name}'")
    if run.frozen:
        for name, array in _buffers(layer):
            _require_same(probe, buffers[name], array, f"a pass with run.frozen wrote buffer '{name}'")
    found["gradient of input"] = _as_input_gradient(probe, layer.backward(probe.gradient(output)))
    for name, parameter in parameters(layer):
        _require_same(probe, before[name], parameter.value, f"the backward pass wrote parameter '{name}'")
        grad, shape = parameter.grad, parameter.value.shape
        if not isinstance(grad, np.ndarray) or grad.shape != shape or grad.dtype != np.float32:
            wanted = f"expected a float32 gradient of shape {shape} in parameter '{name}' after the backward pass"
            raise probe.failure(f"{wanted}, got {_described(grad)}")
        found[f"gradient of {name}"] = grad
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise probe.failure(f"expected finite numbers, got others in the {name}")
    return found


def _as_output(probe: Probe, output: Any) -> _Output:
    """Features and values of a signal that is one."""
    if not isinstance(output, SpikeTrain | Current):
        raise probe.failure(f"expected a SpikeTrain or a Current from forward, got {type(output).__name__}")
    values, timesteps, batch = signal_values(output), probe.input.timesteps, probe.input.values.shape[4]
    if output.timesteps != timesteps:
        raise probe.failure(f"expected an output of {timesteps} steps, got {output.timesteps}")
    shapes = [(*image_shape(output.features), steps, batch) for steps in (timesteps, 1)]
    if values.shape not in shapes[: 2 if isinstance(output, Current) else 1] or values.dtype != np.float32:
        wanted = f"expected float32 values of shape {shapes[0]} for the features {output.features}"
        raise probe.failure(f"{wanted}, got {_described(values)}")
    return _Output(output.features, values)


def _as_input_gradient(probe: Probe, below: SignalGradient | None) -> Values:
    """The input's gradient as an array, if it has the form that the input asks for."""
    values, weights = probe.input.values, probe.input.time_weights
    wanted: tuple[int, ...] = (*values.shape[:3], values.shape[4])
    if weights is None:
        if not isinstance(below, Gradient):
            raise probe.failure(f"expected a Gradient of every step from backward, got {_described(below)}")
        is_static = values.shape[3] == 1
        below, wanted = (below.total(), wanted) if is_static else (below.dense(), values.shape)
    if not isinstance(below, np.ndarray) or below.shape != wanted:
        form = "" if weights is None else ", the sum with the input's time_weights (dsr.nn.gradients.as_wanted)"
        raise probe.failure(f"expected a gradient of shape {wanted} from backward{form}, got {_described(below)}")
    return below


def _check_gradients(probe: Probe, step: dict[str, NDArray[Any]], frozen: bool, seed: int) -> dict[str, float]:
    """Largest difference from finite differences, as a share, for the input and each parameter."""
    differences, rng = Differences(probe, frozen), np.random.default_rng(seed)
    found = {}
    for name in ("input", *(name for name, _ in parameters(probe.layer))):
        factor = differences.threshold_factor(name)
        if factor == 0:
            continue  # a threshold whose gradient is switched off
        gradient = step[f"gradient of {name}"].astype(np.float64) / factor
        directions = [rng.normal(size=gradient.shape).astype(np.float32) for _ in range(DIRECTIONS)]
        found[name] = max(_difference(probe, differences, name, gradient, direction) for direction in directions)
    return found


def _difference(
    probe: Probe, differences: Differences, name: str, gradient: NDArray[np.float64], direction: Values
) -> float:
    expected, share = float((gradient * direction).sum()), np.inf
    # a random slope is about as large as the gradient; much smaller ones are lost in the rounding of the outputs
    typical = float(np.sqrt((gradient**2).sum()))
    for step in STEPS:
        slope = differences.slope(name, direction, step)
        share = abs(slope - expected) / max(abs(slope), abs(expected), typical, 1e-2)
        if share <= TOLERANCE:
            return share
    what = "the input" if name == "input" else f"parameter '{name}'"
    pass_name = "with run.frozen" if differences.frozen else "in training"
    raise probe.failure(
        f"the gradient of {what} {pass_name} gives a slope of {expected:.5g} along a direction along which finite "
        f"differences give {slope:.5g}",
    )


def _numbers_of_threads() -> Iterator[str]:
    """Sets them one after the other, in words."""
    before = get_num_threads()
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            yield f"{threads} thread{'s' * (threads > 1)}"
    finally:
        set_num_threads(before)


def _contents(layer: Layer) -> dict[str, Any]:
    """Every attribute of the layer and of the layers inside it, as it is now."""
    found = {}
    for path, inner in layer.walk():
        for name, value in vars(inner).items():
            found[f"{path}.{name}" if path else name] = _frozen(value)
    return found


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Parameter):
        return value.value.copy(), value.grad
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return {key: _frozen(part) for key, part in value.items()} if isinstance(value, dict) else value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return a is b or (isinstance(a, int | float | str) and type(a) is type(b) and a == b)


def _buffers(layer: Layer) -> Iterator[tuple[str, NDArray[Any]]]:
    for path, inner in layer.walk():
        for name, buffer in inner.buffers().items():
            yield f"{path}.{name}" if path else name, buffer


def _require_same(probe: Probe, first: NDArray[Any], second: NDArray[Any], what: str) -> None:
    if not _equal(first, second):
        raise probe.failure(what)


def _described(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
