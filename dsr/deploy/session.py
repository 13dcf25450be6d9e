"""Session: a network compiled for inference, of whole batches and of streams of frames.

>>> session = dsr.compile(dsr.load("runs/digits"))
>>> session(images).argmax(axis=1)
>>> stream = session.start(batch=1)
>>> for frame in frames:
...     rates = stream.step(frame)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dsr import ops
from dsr.deploy.idle import PLANS_KEPT, Idle
from dsr.deploy.lowering import lower
from dsr.deploy.plan import Compiled, Plan, Potentials
from dsr.deploy.program import Program
from dsr.deploy.slots import Head, Slots
from dsr.deploy.so_far import OutputSoFar
from dsr.deploy.stream_calls import OneThread, frames_of, numbers_of
from dsr.deploy.whole_run import WholeRun
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.arguments import as_array, as_count, require_finite
from dsr.ops.batches import batches_of

BATCH = 32
"""Samples at a time: more are not faster, and the arrays of fewer stay in the caches."""


class HasNetwork(Protocol):
    """A `dsr.Model`: a network and where it is from."""

    network: Network
    about: dict[str, Any]


def compile(
    model: Network | HasNetwork,
    timesteps: int | None = None,
    batch: int = BATCH,
    *,
    features: Sequence[int] | None = None,
    samples: ArrayLike | None = None,
) -> Session:
    """A network compiled for inference.

    Parameters
    ----------
    model : Network or Model
        Trained.
    timesteps : int, optional
        T; by default that of the network.
    batch : int
        Samples that are computed together, at most; larger batches are done in parts.
    features : sequence of int, optional
        Shape of a sample, ``(N,)``, ``(C, L)`` or ``(C, H, W)``; by default that of the run which the model is from.
    samples : array_like, optional
        Some samples as `Network.forward` takes them. Where neurons fire at more than about 12 % of the steps, sums of
        4 weights are looked up instead of added, which is faster from there on; without samples, for rates that are not
        known, they are added.

    Returns
    -------
    Session
        It has a copy of all weights: training goes on without changing it.

    Raises
    ------
    TypeError, ValueError
        There is no such network, its samples are not of this shape, or a layer does not say what it does.
    """
    network = getattr(model, "network", model)
    if not isinstance(network, Network):
        raise TypeError(f"compile: argument 'model': expected a Network or a Model, got {type(model).__name__}")
    if features is None:
        features = getattr(model, "about", {}).get("features")
    if features is None:
        raise ValueError(
            "compile: argument 'features': expected the shape of a sample, (N,), (C, L) or (C, H, W), which a network "
            "does not know"
        )
    steps = network.timesteps if timesteps is None else as_count("compile", "timesteps", timesteps)
    session = Session(lower(network, tuple(features), folded=False), steps, as_count("compile", "batch", batch))
    if samples is not None:
        session.measure(samples)
    return session


class Session:
    """A program compiled for this machine: weights are packed once, and arrays are made once for each size of a batch.

    Parameters
    ----------
    program : Program
        What `dsr.deploy.lowering.lower` gives. Unfolded, so that every bit is that of the network.
    timesteps : int
        T.
    batch : int
        Samples that are computed together, at most.

    Notes
    -----
    Results have the bits of `Network.forward` wherever these are EXACT. Two things are ROUNDED there: a convolution of
    values that are no spikes (of a static image the bits are the same all the same, as the call is), and over spikes
    the choice between added and looked-up weights, which the network makes for each batch and the session once, see
    `compile`. Of a session, the result for a sample depends neither on how its steps are cut into pieces, nor on the
    number of threads. A network whose output has no neurons before it adds up the same numbers in time, and may differ
    from the network's in rounding.

    Several threads may use a session at once; each call takes memory of its own. A stream is for one thread at a time,
    and refuses a second one.
    """

    def __init__(self, program: Program, timesteps: int, batch: int = BATCH) -> None:
        self.program, self.timesteps, self.batch = program, timesteps, batch
        self.compiled = Compiled(program)
        self._forget_memory()
        self._started: Stream | None = None

    @property
    def output_features(self) -> tuple[int, ...]:
        """Shape of the output of a sample."""
        return self.program.output_features

    def run(self, data: ArrayLike) -> Values:
        """Output rates of samples, as `Network.forward` gives them.

        Parameters
        ----------
        data : array_like, shape ``(B, *features)`` or ``(T, B, *features)``
            Static samples, given to every step, or one frame a step.

        Returns
        -------
        ndarray of float32, shape ``(B, *output_features)``

        Raises
        ------
        TypeError, ValueError
            `data` is not of one of these shapes, or has a value that is not finite.
        """
        array, axis = self.checked("Session.run", "data", data)
        count = array.shape[axis]
        if count <= self.batch:
            return self._run(array, axis)
        return np.concatenate([self._run(part, axis) for part in batches_of(array, axis, self.batch)])

    __call__ = run

    def checked(self, function: str, name: str, data: ArrayLike) -> tuple[NDArray[Any], int]:
        """Static samples or frames of all steps, and the axis of the samples; or an error that names the argument."""
        array = as_array(function, name, data)
        features = self.program.features
        axis = array.ndim - len(features) - 1
        if axis not in (0, 1) or array.shape[axis + 1 :] != features or (axis == 1 and len(array) != self.timesteps):
            inner = ", ".join(map(str, features))
            raise ValueError(
                f"{function}: argument '{name}': expected shape (B, {inner}), or with time (T, B, {inner}) with "
                f"T = {self.timesteps}, got {array.shape}"
            )
        return _finite(function, name, array), axis

    def _run(self, array: NDArray[Any], axis: int) -> Values:
        count = array.shape[axis]
        if count == 0:
            return np.empty((0, *self.program.output_features), np.float32)
        kind, runs = (count, axis), self._runs
        run = runs.take(kind) or WholeRun(self.compiled, self.timesteps, count, held=axis == 0)
        try:
            return run(array)
        finally:
            runs.give_back(kind, run)

    def take(self, batch: int) -> Stream:
        """A stream of so many samples, at its start, for calls inside of dsr; its `give_back` keeps the memory."""
        stream = self._streams.take(batch)
        if stream is None:
            return Stream(self, batch)
        stream.restart()
        return stream

    def take_head(self, batch: int) -> Head:
        """The head of the program for so many static samples, for `give_back_head`."""
        return self._heads.take(batch) or Head(self.compiled, self.timesteps, batch)

    def give_back_head(self, head: Head) -> None:
        """Keep it for the next call."""
        self._heads.give_back(head.batch, head)

    def take_slots(self, size: int) -> Slots:
        """So many slots, for `give_back_slots`. They hold earlier samples until they are filled."""
        slots = self._slots.take(size)
        if slots is None:
            head = self.take_head(min(size, self.batch))
            slots = Slots(self.compiled, self.timesteps, size, head)
            self.give_back_head(head)
        return slots

    def give_back_slots(self, slots: Slots) -> None:
        """Keep them for the next call."""
        self._slots.give_back(slots.size, slots)

    def _forget_memory(self) -> None:
        self._runs, self._streams = Idle[WholeRun](), Idle[Stream]()
        self._heads, self._slots = Idle[Head](), Idle[Slots]()

    def start(self, batch: int = 1) -> Stream:
        """A stream: the samples of a batch step by step, beginning at the first.

        The session's own `step` and `reset` go to the stream that was started last.
        """
        stream = Stream(self, as_count("Session.start", "batch", batch))
        self._started = stream
        return stream

    def step(self, frame: ArrayLike) -> Values:
        """``Stream.step`` of the stream that was started last."""
        return self._stream("step").step(frame)

    def reset(self, samples: Any = None) -> None:
        """``Stream.reset`` of the stream that was started last."""
        self._stream("reset").reset(samples)

    def _stream(self, method: str) -> Stream:
        if self._started is None:
            raise RuntimeError(f"Session.{method}: expected a stream that was started with Session.start")
        return self._started

    def measure(self, samples: ArrayLike) -> None:
        """Choose for each convolution whether weights of its spikes are added or looked up, by the rates on samples.

        To be called before the session is used: what runs at this moment goes on as before.
        """
        array, axis = self.checked("Session.measure", "samples", samples)
        if array.shape[axis] == 0:
            raise ValueError("Session.measure: argument 'samples': expected at least one sample, got none")
        run = WholeRun(self.compiled, self.timesteps, array.shape[axis], held=axis == 0)
        run(array)
        table_bits: dict[int, int] = {}
        for number, train in run.plan.convolved:
            rate = ops.count_bits(train.words) / (train.planes * train.channels * prod(train.words.shape[1:]))
            taps: int = self.program.steps[number].geometry.taps  # type: ignore[attr-defined]  # of a convolution
            table_bits[number] = max(table_bits.get(number, 1), ops.best_table_bits(rate, taps))
        self.compiled.table_bits = table_bits
        self._forget_memory()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, and copied, it is the program; streams stay behind."""
        return _again, (self.program, self.timesteps, self.batch, self.compiled.table_bits)

    def __repr__(self) -> str:
        """What it is of, and the program."""
        return f"Session, T = {self.timesteps}, at most {self.batch} samples together\n{self.program}"


def _again(program: Program, timesteps: int, batch: int, table_bits: dict[int, int]) -> Session:
    session = Session(program, timesteps, batch)
    session.compiled.table_bits = table_bits
    return session


class Stream:
    """Samples of a batch step by step: potentials of neurons, and what the output has been so far.

    Made by `Session.start`. Every sample has a time of its own, which `reset` sets to 0.
    """

    def __init__(self, session: Session, batch: int) -> None:
        self.session, self.batch = session, batch
        self._potentials: Potentials = {}
        self._plans: dict[tuple[int, bool], Plan] = {}
        self._held_by: Plan | None = None
        self._owner = OneThread("Session.start")
        self._so_far = OutputSoFar(session.program, session.timesteps, self._plan(1, held=True).output)

    @property
    def times(self) -> NDArray[np.int64]:
        """Steps that each sample has seen since it began, (B,)."""
        return self._so_far.times.copy()

    def step(self, frame: ArrayLike) -> Values:
        """The next time step of every sample.

        Parameters
        ----------
        frame : array_like, shape ``(B, *features)``
            What the network gets at this step; of a single sample also ``(*features)``.

        Returns
        -------
        ndarray of float32, shape ``(B, *output_features)``
            Output rates so far: after t steps, those of a run of t steps.

        Raises
        ------
        TypeError, ValueError
            `frame` is not of this shape, or has a value that is not finite.
        RuntimeError
            A sample has seen all T steps, or another thread uses the stream.
        """
        return self._step("Stream.step", frame, several=False)

    def steps(self, frames: ArrayLike) -> Values:
        """Several steps at once, ``(S, B, *features)``, with the same bits as one by one; the rates behind the last.

        Errors are those of `step`.
        """
        return self._step("Stream.steps", frames, several=True)

    def _step(self, function: str, frames: ArrayLike, several: bool) -> Values:
        given = frames_of(function, frames, self.batch, self.session.program.features, several)
        array, steps = _finite(function, "frames" if several else "frame", given), len(given) if several else 1
        with self._owner.call(function):
            times = self._so_far.times
            latest = int(times.max())
            if latest + steps > self.session.timesteps:
                raise RuntimeError(
                    f"{function}: expected at most T = {self.session.timesteps} steps, and sample "
                    f"{int(times.argmax())} has seen {latest} of them; reset it, or compile with more timesteps"
                )
            self.advance(array, steps, held=not several)
            return self.rates()

    def reset(self, samples: Any = None) -> None:
        """Begin anew with these samples, by their numbers in the batch; by default with all.

        Raises
        ------
        TypeError, ValueError
            These are no numbers of samples.
        RuntimeError
            Another thread uses the stream.
        """
        numbers = numbers_of("Stream.reset", samples, self.batch)
        with self._owner.call("Stream.reset"):
            self._forget(numbers)

    def restart(self) -> None:
        """Begin anew with all samples."""
        self._so_far.restart()
        for potentials in self._potentials.values():
            potentials[...] = 0

    def _forget(self, numbers: NDArray[np.int64]) -> None:
        self._so_far.forget(numbers)
        for potentials in self._potentials.values():
            potentials[:, :, :, numbers] = 0

    def selected(self, numbers: NDArray[np.int64]) -> Stream:
        """A stream of some of the samples, which goes on from here; `give_back` keeps its memory."""
        other = self.session.take(len(numbers))
        other._so_far.go_on_from(self._so_far, numbers)
        for number, potentials in self._potentials.items():
            other._potentials[number][...] = potentials[:, :, :, numbers]
        return other

    def advance(self, array: NDArray[Any], steps: int, held: bool, changed: bool = True) -> Plan:
        """Do steps, of frames ``(S, B, *features)``, or of one, ``(B, *features)``, that is `held` in all.

        Not `changed`: what was held in the last call still is, and `array` is not read.
        """
        plan = self._plan(steps, held)
        changed = changed or plan is not self._held_by
        if changed:
            shape = self.session.program.steps[0].shape
            frames = array.reshape(1 if held else steps, self.batch, *shape)
            np.copyto(plan.input, frames.transpose(2, 3, 4, 0, 1))
        plan.run(changed)
        self._held_by = plan if held else None
        self._so_far.note(plan)
        return plan

    def _plan(self, steps: int, held: bool) -> Plan:
        key = steps, held or steps == 1
        if key not in self._plans:
            if len(self._plans) >= PLANS_KEPT:
                self._plans = {}
            self._plans[key] = Plan(self.session.compiled, key[0], self.batch, key[1], self._potentials)
        return self._plans[key]

    def rates(self) -> Values:
        """Output rates so far, ``(B, *output_features)``; 0 of samples that have seen no step."""
        return self._so_far.rates()

    def give_back(self) -> None:
        """Keep the memory of this stream for the next `Session.take`; it is not to be used any more."""
        self.session._streams.give_back(self.batch, self)


def _finite(function: str, name: str, array: NDArray[Any]) -> Values:
    """As float32, or an error that tells the first place where a number is not finite, or is beyond float32."""
    values = array
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            values = array.astype(np.float32)
    require_finite(function, name, values)
    return values
