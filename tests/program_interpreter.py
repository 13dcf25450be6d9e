"""A plain interpreter of programs in NumPy, which tests of back ends compare with: what a step means, in a line or so.

Values are double, (B, C, H, W) at a time step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsr.deploy import program as p
from dsr.deploy.program import Program


@dataclass
class Result:
    """What a program gives.

    Attributes
    ----------
    rates : ndarray, shape (B, *features)
        Its output.
    so_far : list of ndarray
        What it would have given after each step.
    values : list of ndarray, shape (T, B, C, H, W)
        The output of each step of the program.
    """

    rates: np.ndarray
    so_far: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)


def run(program: Program, data: np.ndarray, timesteps: int | None = None) -> Result:
    """Run it on static samples, (B, *features), or on frames of every step, (T, B, *features)."""
    steps = timesteps or program.timesteps
    has_time = data.ndim == len(program.features) + 2
    potentials: dict[int, np.ndarray] = {}
    values: list[list[np.ndarray]] = [[] for _ in program.steps]
    so_far = []
    for t in range(steps):
        frame = data[t] if has_time else data
        now: list[np.ndarray] = []
        for number, step in enumerate(program.steps):
            given = [now[i] for i in step.inputs]
            if isinstance(step, p.Input):
                value = frame.astype(np.float64).reshape(len(frame), *step.shape)
            elif isinstance(step, p.Neurons):
                value, potentials[number] = _neurons(step, given[0], potentials.get(number))
            else:
                value = _value(step, given)
            assert value.shape[1:] == step.shape, (step.path, value.shape, step.shape)
            if step.amplitude is not None:
                assert np.isin(value / _channels(step.amplitude), range(step.levels + 1)).all(), step.path
            now.append(value)
            values[number].append(value)
        outputs = np.stack(values[-1])
        mean = np.tensordot(program.time_weights(t + 1).astype(np.float64) / (t + 1), outputs, 1)
        so_far.append(mean.reshape(len(mean), *program.output_features))
    return Result(so_far[-1], so_far, [np.stack(v) for v in values])


def _channels(numbers):
    return np.asarray(numbers, np.float64).reshape(-1, 1, 1)


def _neurons(step, current, before):
    model = step.model
    potential = model.decay * (0 if before is None else before) + model.gain * current
    thresholds = [_channels(model.fire) + j * _channels(model.v_threshold) for j in range(model.levels)]
    fires = sum(potential >= threshold for threshold in thresholds)
    return fires * _channels(model.amplitude), potential - fires * _channels(model.v_threshold)


def _value(step, given):
    if isinstance(step, p.Convolution):
        value = convolve(given[0], step.weight.astype(np.float64), step.geometry)
        return value if step.bias is None else value + _channels(step.bias)
    if isinstance(step, p.Sum):
        value = sum(_channels(factor) * x for factor, x in zip(step.factors, given, strict=True))
        return value if step.bias is None else value + _channels(step.bias)
    if isinstance(step, p.AveragePool):
        return windows(given[0], step, 0).mean(axis=(4, 5))
    if isinstance(step, p.MaxPool):
        return windows(given[0], step, -np.inf).max(axis=(4, 5))
    if isinstance(step, p.Upsample):
        return given[0].repeat(step.factor[0], axis=2).repeat(step.factor[1], axis=3)
    if isinstance(step, p.Concat):
        return np.concatenate(given, axis=1)
    if isinstance(step, p.Flatten):
        return given[0].reshape(len(given[0]), -1, 1, 1)
    if isinstance(step, p.Gate):
        return given[0] * ((given[1] > 0) == step.fires)
    assert isinstance(step, p.Rectify), type(step)
    return np.maximum(given[0], 0)


def windows(x, pool, outside):
    """(B, C, H', W', KH, KW)."""
    padded = np.pad(x, ((0, 0), (0, 0), *((size, size) for size in pool.padding)), constant_values=outside)
    views = np.lib.stride_tricks.sliding_window_view(padded, pool.kernel_size, axis=(2, 3))
    return views[:, :, :: pool.stride[0], :: pool.stride[1]]


def convolve(x, weight, geometry):
    """As `dsr.ops.Geometry` says it: pixels on a line of zeros, and taps that read places of it."""
    batch, channels, height, width = x.shape
    (top, bottom, left, right), (down, across) = geometry.padding, geometry.spread
    image = np.zeros((batch, channels, top + (height - 1) * down + 1 + bottom, left + (width - 1) * across + 1 + right))
    rows, columns = slice(top, image.shape[2] - bottom, down), slice(left, image.shape[3] - right, across)
    image[:, :, rows, columns] = x
    rows, columns = geometry.output_size(height, width)
    outputs, inner = weight.shape[:2]
    total = np.zeros((batch, geometry.groups, outputs // geometry.groups, rows, columns))
    by_group = weight.reshape(geometry.groups, outputs // geometry.groups, inner, *weight.shape[2:])
    for ky in range(geometry.kernel[0]):
        for kx in range(geometry.kernel[1]):
            y, x0 = ky * geometry.dilation[0], kx * geometry.dilation[1]
            taken = image[:, :, y:, x0:][:, :, : (rows - 1) * geometry.stride[0] + 1 : geometry.stride[0]]
            taken = taken[:, :, :, : (columns - 1) * geometry.stride[1] + 1 : geometry.stride[1]]
            parts = taken.reshape(batch, geometry.groups, inner, rows, columns)
            total += np.einsum("bgchw,goc->bgohw", parts, by_group[:, :, :, ky, kx])
    return total.reshape(batch, outputs, rows, columns)
