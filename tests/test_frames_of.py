"""Frames one after the other: of files, of arrays, and of parts as they come, by time and by number."""

from __future__ import annotations

import numpy as np
import pytest

from dsr.data.events import EVENT, Events, frames_of
from dsr.data.events.frames import to_frames
from dsr.files.errors import DataError


def recording(count=1000, seed=0):
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["x"], events["y"] = rng.integers(0, 6, count), rng.integers(0, 4, count)
    events["t"], events["p"] = 500 + np.sort(rng.integers(0, 50_000, count)), rng.random(count) < 0.5
    return Events(events, (6, 4, 2))


def dat(path, events):
    """A Prophesee file, version 2."""
    table = events.events
    addresses = table["x"].astype("<u4") | table["y"].astype("<u4") << 14 | table["p"].astype("<u4") << 28
    header = b"% Version 2\n% Width 6\n% Height 4\n" + bytes([12, 8])
    path.write_bytes(header + np.stack([table["t"].astype("<u4"), addresses], axis=1).tobytes())
    return path


def parts_of(events, sizes):
    return [Events(part, events.sensor_size) for part in np.split(events.events, np.cumsum(sizes))]


def test_frames_by_number():
    events = recording()
    frames = list(frames_of(events, 300, "number"))
    assert [int(frame.sum()) for frame in frames] == [300, 300, 300, 100]
    assert frames[0].shape == (2, 4, 6) and frames[0].dtype == np.int32
    np.testing.assert_array_equal(np.stack(list(frames_of(events, 250, "number"))), to_frames(events, 4))


def test_frames_by_time():
    events = recording()
    table = events.events
    frames = list(frames_of(events, 10_000))
    assert sum(int(frame.sum()) for frame in frames) == len(events)
    numbers = (table["t"] - table["t"][0]) // 10_000
    for number, frame in enumerate(frames):
        expected = np.zeros((2, 4, 6), np.int32)
        some = table[numbers == number]
        np.add.at(expected, (some["p"].astype(int), some["y"], some["x"]), 1)
        np.testing.assert_array_equal(frame, expected)


def test_a_time_in_which_nothing_happens():
    events = recording(4)
    events.events["t"] = [0, 5, 35, 36]
    assert [int(frame.sum()) for frame in frames_of(events, 10)] == [2, 0, 0, 2]


@pytest.mark.parametrize(("each", "by"), [(7_000, "time"), (130, "number")])
def test_parts_as_they_come_give_the_frames_of_the_whole(each, by):
    events = recording()
    whole = np.stack(list(frames_of(events, each, by)))
    for sizes in ([0, 1, 129, 300], [500], [999]):
        np.testing.assert_array_equal(np.stack(list(frames_of(parts_of(events, sizes), each, by))), whole)


def test_a_frame_is_there_as_soon_as_its_events_are():
    events, given = recording(), []

    def camera():
        for part in parts_of(events, [250] * 3):
            given.append(len(part))
            yield part

    frames = frames_of(camera(), 200, "number")
    next(frames)
    assert given == [250]
    next(frames)
    assert given == [250, 250]


def test_files(tmp_path):
    events = recording()
    expected = np.stack(list(frames_of(events, 9_000)))
    np.testing.assert_array_equal(np.stack(list(frames_of(dat(tmp_path / "a.dat", events), 9_000))), expected)
    fields = {name: events.events[name] for name in "xytp"}
    np.savez(tmp_path / "a.npz", **fields, sensor_size=(6, 4))
    np.testing.assert_array_equal(np.stack(list(frames_of(str(tmp_path / "a.npz"), 9_000))), expected)
    np.testing.assert_array_equal(np.stack(list(frames_of(fields, 9_000, sensor_size=(6, 4)))), expected)
    assert list(frames_of([], 5)) == []


def test_bad_input(tmp_path):
    events = recording()
    for arguments, error, message in (
        ((events, 0), ValueError, "frames_of: argument 'each': expected an integer >= 1, got 0"),
        ((events, 5, "events"), ValueError, "frames_of: argument 'by': expected 'number' or 'time', got 'events'"),
        ((events, 5, "time", (6,)), ValueError, r"frames_of: argument 'sensor_size': expected \(W, H\)"),
    ):
        with pytest.raises(error, match=message):
            frames_of(*arguments)
    other = Events(events.events, (8, 8, 2))
    late = Events(events.events[500:], events.sensor_size)
    (tmp_path / "broken.dat").write_bytes(b"% Version 2\n")
    for source, error, message in (
        ([events, other], ValueError, r"frames_of: expected events of a sensor of size \(6, 4, 2\), got \(8, 8, 2\)"),
        (
            [late, events],
            ValueError,
            "frames_of: time goes back to .* microseconds; such events can be split",
        ),
        (5, TypeError, "frames_of: argument 'source': expected a recording or parts of one, got 5"),
        (tmp_path / "broken.dat", DataError, "broken.dat"),
        (tmp_path / "none.dat", OSError, "none.dat"),
    ):
        with pytest.raises(error, match=message):
            list(frames_of(source, 1000))
