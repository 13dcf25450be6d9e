"""A program with rounded weights: how the integers of `dsr.deploy.integer_steps` are chosen.

A channel of neurons counts in units of ``V / N``, V its threshold and N an integer, so that its threshold is exact.
The weights of a convolution are in units of ``(V / N) 2**shift``; the shift leaves the potentials finer than the
weights, N being some 1,000 to 2,000 in the channel in the middle. So biases, thresholds and what leaks away are rounded
by about a thousandth of a threshold, whatever the bits of the weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log2

import numpy as np

from dsr import ops
from dsr.deploy import integer_steps as i
from dsr.deploy import program as p
from dsr.deploy.currents import Doubles, FloatCurrent, FloatTaps, IntegerSignals
from dsr.deploy.integer_binder import signal_of
from dsr.deploy.integer_checks import LARGEST_RESET, SHIFTS, require_sound
from dsr.deploy.integer_engine import Engine
from dsr.deploy.integer_signals import Planes, Signal, as_data
from dsr.nn.rounding import CLIPS, DATA_BITS, integers_of, largest_weight, weight_scales
from dsr.ops import Integers, Values
from dsr.ops.integers import LIMIT, NO_DECAY

USUAL_RESET = 2047


def quantize_program(
    program: p.Program, data: Values, bits: int, trained: bool = False, largest: float = 0.0
) -> tuple[i.Step, ...]:
    """The steps of the integer network.

    Parameters
    ----------
    program : Program
        Folded.
    data : ndarray of float32, shape ``(B, *features)`` or ``(T, B, *features)``
        Samples by which the input is scaled, and biases are corrected: what rounding adds to a current on average is
        taken from its bias.
    bits : int
        Of the weights, 2 to 8.
    trained : bool
        The network was trained with rounded weights: biases are left as they are.
    largest : float
        The largest absolute value that data may have, where it is known; else that of the samples. What is larger is
        cut off.

    Raises
    ------
    ValueError
        The program does something that integers cannot, or a current could leave 31 bits; the message names the layer.
    """
    program.refuse_graded("quantize", "an integer network")
    follow = IntegerSignals(program)
    calibration = _Calibration(program, data, trained)
    for number, step in enumerate(program.steps):
        if isinstance(step, p.Input):
            most = largest_value(program)
            source = i.Input(path=step.path, features=step.shape, shift=input_shift(data, most, largest), most=most)
            follow.write(number, source, np.full(step.shape[0], 2.0**-source.shift), most, is_data=True)
            calibration.begin(data, source)
        elif isinstance(step, p.Neurons):
            current = follow.current(step.inputs[0])
            calibration.go_on(follow.steps)
            neurons = _neurons(step, current, bits, calibration)
            unit = np.broadcast_to(np.asarray(step.amplitude, np.float64), step.shape[:1])
            follow.write(number, neurons, unit, 1)
        else:
            follow.move(number)
        calibration.go_on(follow.steps)
    last = program.steps[-1]
    signal = follow.signals.get(len(program.steps) - 1)
    if signal is not None and signal.is_spikes:
        decay = _decay(np.exp(-program.leak)) if program.leak else NO_DECAY
        heights = signal.unit.astype(np.float32)
        follow.steps.append(
            i.ReadSpikes(path=last.path, features=last.shape, source=signal.number, unit=heights, decay=decay)
        )
    else:
        current = follow.current(len(program.steps) - 1)
        calibration.go_on(follow.steps)
        follow.steps.append(_read_out(last, current, bits, calibration))
    require_sound(follow.steps, "quantize")
    return tuple(follow.steps)


def largest_value(program: p.Program) -> int:
    """The largest value of the data, 2**k - 1 of at most 15 bits.

    With it convolutions of the data stay below 2**30, and where it has more than 10 bits below 2**24, so that one
    product of float matrices does them exactly.
    """
    rows = [
        np.abs(step.weight.reshape(len(step.weight), -1).astype(np.float64))
        for step, steady in zip(program.steps, program.steady(), strict=True)
        if steady and isinstance(step, p.Convolution)
    ]
    widest = max((float((row.sum(axis=1) / np.maximum(row.max(axis=1), 1e-30)).max()) for row in rows), default=1.0)
    sums = widest / CLIPS.min() * largest_weight(DATA_BITS)  # at most, wherever weights are cut off
    exact, possible = floor(log2(2**24 / sums)), floor(log2(i.LARGEST_CURRENT / sums))
    return int(2 ** min(15, max(10, exact), possible) - 1)


def input_shift(data: Values, most: int, largest: float = 0.0) -> int:
    """The s with which ``x 2**s`` is at most `most`; 0 where the data are integers that are."""
    largest = max(largest, float(np.abs(data).max(initial=0)))
    if largest <= most and (data == np.rint(data)).all():
        return 0
    return floor(log2(most / largest))


class _Calibration:
    """The signals of the steps so far on some samples."""

    def __init__(self, program: p.Program, data: Values, trained: bool) -> None:
        self.program, self.engine, self.signals = program, Engine(()), list[Signal]()
        self.trained = trained
        self.has_time = data.ndim == len(program.features) + 2
        self.timesteps = len(data) if self.has_time else program.timesteps

    def begin(self, data: Values, source: i.Input) -> None:
        """The data themselves."""
        self.signals.append(as_data(data, source, self.has_time))

    def go_on(self, steps: Sequence[i.Step]) -> None:
        """Run the steps that are new."""
        for step in steps[len(self.engine.steps) :]:
            self.engine.append(step)
        for number in range(len(self.signals), len(steps)):
            self.signals.append(signal_of(self.engine, number, self.signals, self.timesteps, {}))

    def error(self, taps: FloatTaps, rounded: Doubles) -> Doubles:
        """What the rounded weights give too much, (O,), on average over pixels, steps and samples."""
        if self.trained and np.allclose(rounded, taps.weight, rtol=1e-6, atol=0):
            return np.zeros(len(rounded))  # it was rounded in training already
        signal = self.signals[taps.signal.number]
        if isinstance(signal, Planes):
            places = [words.size // len(words) for words in signal.planes]
            counts = [ops.count_words(words, signal.channels) * 2**k for k, words in enumerate(signal.planes)]
            mean = np.sum(counts, axis=0) / max(places[0], 1)
        else:
            mean = signal.array.mean(axis=(1, 2, 3, 4))
        groups, inner = taps.geometry.groups, rounded.shape[1]
        error = (rounded - taps.weight).sum(axis=(2, 3)).reshape(groups, -1, inner)
        return np.asarray((error * mean.reshape(groups, 1, inner)).sum(axis=2).reshape(-1))


def _decay(decay: float) -> int:
    return min(round(decay * NO_DECAY), LIMIT)


def _neurons(step: p.Neurons, current: FloatCurrent, bits: int, calibration: _Calibration) -> i.Neurons:
    model, channels = step.model, step.shape[0]
    threshold, fire = (np.broadcast_to(np.asarray(n, np.float64), channels) for n in (model.v_threshold, model.fire))
    leaks = model.decay != 1 or model.gain != 1
    current = current.scaled(np.full(channels, model.gain))
    scales = [weight_scales(taps.weight, _weight_bits(taps, bits)) for taps in current.taps]
    shifts = [_shift(taps, threshold, scale) for taps, scale in zip(current.taps, scales, strict=True)]
    unit = threshold / LARGEST_RESET
    for scale, shift in zip(scales, shifts, strict=True):
        unit = np.maximum(unit, scale * 2.0**-shift)
    if not scales:
        unit = threshold / USUAL_RESET
    reset = np.maximum(np.floor(threshold / unit + 1e-9), 1)
    terms, bias = _rounded(step, current, threshold / reset, shifts, bits, calibration)
    return i.Neurons(
        path=step.path,
        features=step.shape,
        terms=terms,
        bias=bias,
        reset=reset.astype(np.int32),
        # float32 rounds alpha V, which must not raise the level by a whole unit
        fire=np.clip(np.ceil(fire / threshold * reset - 1e-3), 1, reset).astype(np.int32),
        decay=_decay(model.decay) if leaks else NO_DECAY,
    )


def _read_out(step: p.Step, current: FloatCurrent, bits: int, calibration: _Calibration) -> i.ReadCurrent:
    """Without a threshold the unit of a channel is 2**-4 of that of its weights, or a part of what is added."""
    scales = [weight_scales(taps.weight, _weight_bits(taps, bits)) for taps in current.taps]
    largest = np.maximum(np.abs(current.bias), max((np.abs(a.weight).max() for a in current.added), default=0.0))
    unit = np.where(largest > 0, largest, 1.0) / 2**12
    if scales:
        unit = np.max(scales, axis=0) / 16
        unit = np.where(unit > 0, unit, np.where(largest > 0, largest, 1.0) / 2**12)
    shifts = [4] * len(scales)
    unit = unit.astype(np.float32).astype(np.float64)
    terms, bias = _rounded(step, current, unit, shifts, bits, calibration)
    return i.ReadCurrent(path=step.path, features=step.shape, terms=terms, bias=bias, unit=unit.astype(np.float32))


def _weight_bits(taps: FloatTaps, bits: int) -> int:
    return DATA_BITS if taps.signal.is_data else bits


def _shift(taps: FloatTaps, threshold: Doubles, scale: Doubles) -> int:
    """The shift with which N is usual in the channel in the middle; sums over spikes have none to the right."""
    ratio = threshold[scale > 0] / scale[scale > 0]
    if not len(ratio):
        return 0
    shift = floor(log2(USUAL_RESET / float(np.median(ratio))))
    return int(np.clip(shift, SHIFTS.start if taps.signal.is_data else 0, SHIFTS.stop - 1))


def _rounded(
    step: p.Step, current: FloatCurrent, unit: Doubles, shifts: Sequence[int], bits: int, calibration: _Calibration
) -> tuple[tuple[i.Term, ...], Integers]:
    """The terms in units of the channels, and the bias."""
    bias, terms = current.bias.copy(), list[i.Term]()
    for taps, shift in zip(current.taps, shifts, strict=True):
        if not taps.signal.is_data and taps.geometry.taps > ops.MOST_TAPS:
            raise ValueError(
                f"quantize: layer '{step.path}': a kernel of {taps.geometry.taps} taps over spikes, of which an "
                f"integer network has at most {ops.MOST_TAPS}"
            )
        of_one = unit * 2.0**shift
        weight = integers_of(taps.weight, of_one, _weight_bits(taps, bits))
        bias -= calibration.error(taps, weight * of_one.reshape(-1, 1, 1, 1))
        terms.append(i.Taps(taps.signal.number, weight.astype(np.int8), taps.geometry, shift))
    for added in current.added:
        weight = np.clip(np.rint(added.weight / unit), -LIMIT, LIMIT)
        terms.append(i.Added(added.signal.number, weight.astype(np.int32)))
    # what is beyond 31 bits is refused, by name, when all steps are there
    return tuple(terms), np.clip(np.rint(bias / unit), -i.LARGEST_CURRENT, i.LARGEST_CURRENT).astype(np.int32)
