"""Rooms: where samples are until they leave, each at a time step of its own."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dsr.deploy.integer_model import IntegerModel
from dsr.deploy.places import Array, Head, Numbers, Places, most_places
from dsr.deploy.session import Session
from dsr.ops import Values

Runner = Session | IntegerModel


class Room(Protocol):
    """Places, each vacant or with a sample; what a vacant one gives means nothing."""

    def receive(self, samples: Array) -> None:
        """Samples that will come in, or frames of them; until the next are received."""

    def admit(self, places: Numbers, samples: Numbers) -> None:
        """Give these places to some of them."""

    def vacate(self, places: Numbers) -> None:
        """The samples at these places have left."""

    def step(self) -> Values:
        """The next time step of all places; the rates so far."""

    def shrink(self, places: Numbers) -> None:
        """Keep these places only."""

    def close(self) -> None:
        """Give the memory back."""


class StaticRoom:
    """Static samples in a `Session`: their first neurons are computed once, for all steps."""

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._head: Head | None = None
        self._places: Places = session.take_places(size)

    def receive(self, samples: Array) -> None:
        """See `Room`."""
        self._give_back_head()
        self._head = self._session.take_head(len(samples))
        self._head(samples)

    def admit(self, places: Numbers, samples: Numbers) -> None:
        """See `Room`."""
        assert self._head is not None
        self._places.admit(places, self._head, samples)

    def vacate(self, places: Numbers) -> None:
        """See `Room`."""
        self._places.vacate(places)

    def step(self) -> Values:
        """See `Room`."""
        return self._places.step()

    def shrink(self, places: Numbers) -> None:
        """See `Room`."""
        smaller = self._session.take_places(len(places))
        smaller.go_on_from(self._places, places)
        self._session.give_back_places(self._places)
        self._places = smaller

    def close(self) -> None:
        """See `Room`."""
        self._session.give_back_places(self._places)
        self._give_back_head()

    def _give_back_head(self) -> None:
        if self._head is not None:
            self._session.give_back_head(self._head)
        self._head = None


class StreamRoom:
    """Frames, or samples of integer networks: a stream with a frame for each place."""

    def __init__(self, session: Runner, size: int, with_time: bool) -> None:
        self._session, self._with_time = session, with_time
        self._stream: Any = session.take(size)
        self._times, self._changed = np.zeros(size, np.int64), True
        self._received: Array | None = None
        self._here: Array | None = None  # (T, places, *features), or (places, *features)

    def receive(self, samples: Array) -> None:
        """See `Room`."""
        self._received = samples
        if self._here is None:
            steps = samples.shape[:1] if self._with_time else ()
            features = samples.shape[len(steps) + 1 :]
            self._here = np.zeros((*steps, len(self._times), *features), samples.dtype)

    def admit(self, places: Numbers, samples: Numbers) -> None:
        """See `Room`."""
        assert self._received is not None and self._here is not None
        self.vacate(places)
        if self._with_time:
            self._here[:, places] = self._received[:, samples]
        else:
            self._here[places] = self._received[samples]
        self._changed = True

    def vacate(self, places: Numbers) -> None:
        """See `Room`."""
        self._stream.reset(places)
        self._times[places] = 0

    def step(self) -> Values:
        """See `Room`."""
        assert self._here is not None
        frame, changed = self._here, self._with_time or self._changed
        if self._with_time:
            frame = frame[self._times % len(frame), np.arange(len(self._times))]
        self._stream.advance(frame, 1, held=True, changed=changed)
        self._times += 1
        self._changed = False
        return self._stream.rates()

    def shrink(self, places: Numbers) -> None:
        """See `Room`."""
        assert self._here is not None
        smaller = self._stream.selected(places)
        self._session.give_back(self._stream)
        self._stream, self._times, self._changed = smaller, self._times[places], True
        self._here = self._here.take(places, 1 if self._with_time else 0)

    def close(self) -> None:
        """See `Room`."""
        self._session.give_back(self._stream)


def room_for(session: Runner, size: int, with_time: bool) -> Room:
    """One with so many places."""
    if isinstance(session, Session) and not with_time:
        return StaticRoom(session, size)
    return StreamRoom(session, size, with_time)


def most_together(session: Runner, with_time: bool) -> int:
    """Places of a room, at most."""
    if isinstance(session, Session) and not with_time:
        return most_places(session.program, session.batch)
    return session.batch
