"""Event data: files of recordings, their events as arrays, and frames made from them."""

from dsr.data.events.array import EVENT, Events, as_events
from dsr.data.events.reading import read_events
from dsr.data.events.streams import frames_of

__all__ = ["EVENT", "Events", "as_events", "frames_of", "read_events"]
