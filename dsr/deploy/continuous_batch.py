"""Continuous batches: the next sample begins in the slot of one that has left, so that each slot has its own time."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dsr.deploy.integer_model import IntegerModel, IntegerStream
from dsr.deploy.session import Session, Stream
from dsr.deploy.slots import Array, Head, Numbers, Slots, static_slots
from dsr.ops import Values

Runner = Session | IntegerModel


class ContinuousBatch(Protocol):
    """Slots, each empty or with a sample. The rates of an empty slot have no meaning."""

    def receive(self, samples: Array) -> None:
        """Take samples (B, *features), or frames of them (T, B, *features), from which `fill` then chooses."""

    def fill(self, slots: Numbers, samples: Numbers) -> None:
        """Begin with these samples of the last `receive`, one in each of the slots."""

    def empty(self, slots: Numbers) -> None:
        """Forget the samples of these slots."""

    def step(self) -> Values:
        """Do the next time step of all slots; return the rates so far, (slots, *output_features)."""

    def keep(self, slots: Numbers) -> None:
        """Go on with these slots only; they are numbered anew, in this order."""

    def close(self) -> None:
        """Give the memory back to the session."""


class StaticBatch:
    """Static samples in a `Session`: their first neurons are computed once, for all steps.

    Its methods are described in `ContinuousBatch`.
    """

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._head: Head | None = None
        self._slots = session.take_slots(size)

    def receive(self, samples: Array) -> None:
        """Compute the head of the program."""
        self._give_back_head()
        self._head = self._session.take_head(len(samples))
        self._head(samples)

    def fill(self, slots: Numbers, samples: Numbers) -> None:
        """Copy what the head has computed."""
        assert self._head is not None
        self._slots.fill(slots, self._head, samples)

    def empty(self, slots: Numbers) -> None:
        """Forget the samples of these slots."""
        self._slots.empty(slots)

    def step(self) -> Values:
        """Do the next time step of all slots."""
        return self._slots.step()

    def keep(self, slots: Numbers) -> None:
        """Copy these slots to fewer ones."""
        fewer: Slots = self._session.take_slots(len(slots))
        fewer.go_on_from(self._slots, slots)
        self._session.give_back_slots(self._slots)
        self._slots = fewer

    def close(self) -> None:
        """Give the memory back to the session."""
        self._session.give_back_slots(self._slots)
        self._give_back_head()

    def _give_back_head(self) -> None:
        if self._head is not None:
            self._session.give_back_head(self._head)
        self._head = None


class StreamBatch:
    """Frames, or samples of an integer network: a stream that is given a frame for each slot.

    Its methods are described in `ContinuousBatch`.
    """

    def __init__(self, session: Runner, size: int, with_time: bool) -> None:
        self._with_time = with_time
        self._stream: Stream | IntegerStream = session.take(size)
        self._times, self._changed = np.zeros(size, np.int64), True
        self._received: Array | None = None
        self._here: Array | None = None  # (T, slots, *features), or (slots, *features)

    def receive(self, samples: Array) -> None:
        """Keep the samples until the next ones are received."""
        self._received = samples
        if self._here is None:
            steps = samples.shape[:1] if self._with_time else ()
            features = samples.shape[len(steps) + 1 :]
            self._here = np.zeros((*steps, len(self._times), *features), samples.dtype)

    def fill(self, slots: Numbers, samples: Numbers) -> None:
        """Copy the samples, and begin anew with their slots."""
        assert self._received is not None and self._here is not None
        self.empty(slots)
        if self._with_time:
            self._here[:, slots] = self._received[:, samples]
        else:
            self._here[slots] = self._received[samples]
        self._changed = True

    def empty(self, slots: Numbers) -> None:
        """Forget the samples of these slots."""
        self._stream.reset(slots)
        self._times[slots] = 0

    def step(self) -> Values:
        """Do the next time step of all slots."""
        assert self._here is not None
        frame, changed = self._here, self._with_time or self._changed
        if self._with_time:
            frame = frame[self._times % len(frame), np.arange(len(self._times))]
        self._stream.advance(frame, 1, held=True, changed=changed)
        self._times += 1
        self._changed = False
        return self._stream.rates()

    def keep(self, slots: Numbers) -> None:
        """Copy these slots to a stream of fewer samples."""
        assert self._here is not None
        fewer = self._stream.selected(slots)
        self._stream.give_back()
        self._stream, self._times, self._changed = fewer, self._times[slots], True
        self._here = self._here.take(slots, 1 if self._with_time else 0)

    def close(self) -> None:
        """Give the memory back to the session."""
        self._stream.give_back()


def continuous_batch(session: Runner, size: int, with_time: bool) -> ContinuousBatch:
    """So many empty slots, of static samples or, `with_time`, of frames."""
    if isinstance(session, Session) and not with_time:
        return StaticBatch(session, size)
    return StreamBatch(session, size, with_time)


def most_slots(session: Runner, with_time: bool) -> int:
    """How many slots are worth having, if there are samples enough."""
    if isinstance(session, Session) and not with_time:
        return static_slots(session.program, session.batch)
    return session.batch
