"""Event data: files of recordings, their events as arrays, and frames made from them."""

from dsr.data.events.array import EVENT, Events, as_events
from dsr.data.events.reading import read_events

__all__ = ["EVENT", "Events", "as_events", "read_events"]
