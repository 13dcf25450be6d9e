"""A plain interpreter of integer networks in NumPy: int64, one sample axis, a time step after the other."""

from __future__ import annotations

import numpy as np
from program_interpreter import windows

from dsr.deploy import integer_steps as i
from dsr.deploy.integer_model import IntegerModel


def run(model: IntegerModel, data: np.ndarray, timesteps: int | None = None) -> tuple[list, list]:
    """Rates after each step, (B, *output_features), and what each step wrote, lists of (B, C, H, W) by time step."""
    axes = len(model.features)
    has_time = data.ndim == axes + 2
    steps = len(data) if has_time else timesteps or model.timesteps
    potentials: dict[int, np.ndarray] = {}
    rates, written = [], []
    total = count = 0
    for t in range(steps):
        frame = np.asarray(data[t] if has_time else data, np.float32)
        now: list[np.ndarray] = []
        for number, step in enumerate(model.steps):
            if isinstance(step, i.Input):
                scaled = np.rint(frame.astype(np.float64) * 2.0**step.shift)
                now.append(np.clip(scaled, -step.most, step.most).astype(np.int64).reshape(-1, *step.features))
            elif isinstance(step, i.Neurons):
                x, v = _current(step, now), potentials.get(number, 0)
                u = np.clip((v * step.decay + 2**14 >> 15) + x, -32767, 32767)
                fires = u >= _column(step.fire)
                potentials[number] = u - fires * _column(step.reset)
                now.append(fires.astype(np.int64))
            elif isinstance(step, i.ReadCurrent):
                total, count = total + _current(step, now), count + 1
            elif isinstance(step, i.ReadSpikes):
                one = 1 if step.decay == 2**15 else 2**15
                total = (total * step.decay + 2**14 >> 15) + one * now[step.source]
                count = (count * step.decay + 2**14 >> 15) + one
            else:
                now.append(_moved(step, [now[k] for k in step.reads]))
            if number < len(model.steps) - 1:
                assert now[-1].shape[1:] == step.features, step.path
        unit = _column(model.steps[-1].unit).astype(np.float64)
        found = (total.astype(np.float64) * unit / float(count)).astype(np.float32)
        rates.append(found.reshape(len(found), *model.output_features))
        written.append(now)
    return rates, written


def _column(numbers):
    return np.asarray(numbers).reshape(-1, 1, 1).astype(np.int64 if numbers.dtype.kind == "i" else np.float64)


def _current(step, now):
    total = _column(step.bias)
    for term in step.terms:
        source = now[term.source]
        if isinstance(term, i.Added):
            total = total + _column(term.weight) * source
            continue
        sums = _convolve(source, term.weight.astype(np.int64), term.geometry)
        total = total + (sums << term.shift if term.shift >= 0 else sums + 2 ** (-term.shift - 1) >> -term.shift)
    assert np.abs(total).max() < 2**30
    return total


def _convolve(x, weight, geometry):
    """Place by place, as `dsr.ops.Geometry` says it."""
    (top, _, left, _), (down, across) = geometry.padding, geometry.spread
    rows, columns = geometry.output_size(*x.shape[2:])
    outputs, inner = weight.shape[:2]
    total = np.zeros((len(x), outputs, rows, columns), np.int64)
    for o in range(outputs):
        first = o // (outputs // geometry.groups) * inner
        for r, c, ky, kx in np.ndindex(rows, columns, *geometry.kernel):
            y = r * geometry.stride[0] + ky * geometry.dilation[0] - top
            z = c * geometry.stride[1] + kx * geometry.dilation[1] - left
            if y % down or z % across or not 0 <= y // down < x.shape[2] or not 0 <= z // across < x.shape[3]:
                continue
            total[:, o, r, c] += x[:, first : first + inner, y // down, z // across] @ weight[o, :, ky, kx]
    return total


def _moved(step, read):
    if isinstance(step, i.Pool):
        views = windows(read[0], step, 0)
        return views.max(axis=(4, 5)) if step.largest else views.sum(axis=(4, 5))
    if isinstance(step, i.Flatten):
        return read[0].reshape(len(read[0]), -1, 1, 1)
    if isinstance(step, i.Upsample):
        return read[0].repeat(step.factor[0], axis=2).repeat(step.factor[1], axis=3)
    if isinstance(step, i.Concat):
        return np.concatenate(read, axis=1)
    assert isinstance(step, i.Gate)
    return read[0] & (1 - read[1] if step.negated else read[1])
