"""Event files: what is read is what was written, and a damaged file is an error that says where."""

from __future__ import annotations

import io
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_events import AEDAT2_HEADER, aedat2_bytes, nmnist_bytes, recordings

from dsr.data.events.reading import EVENT, Events, as_events, read_events
from dsr.files.errors import DataError

AEDAT31_HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-05-16\r\n#!END-HEADER\r\n"
DAT_HEADER = b"% Data file containing CD events\n% Version 2\n% Width 128\n% Height 128\n"


def table(*rows):
    return np.array(list(rows), EVENT)


def packet(words, kind=1, source=1, overflow=0, capacity=None, count=None, each=8):
    body = np.asarray(words, "<u4").tobytes()
    count = len(words) if count is None else count
    capacity = count if capacity is None else capacity
    return struct.pack("<hhiiiiii", kind, source, each, 4, overflow, capacity, count, count) + body


def polarity_words(events, valid=1):
    word = events["x"].astype(np.int64) << 17 | events["y"].astype(np.int64) << 2 | events["p"] << 1 | valid
    return np.stack([word, events["t"] & 0x7FFFFFFF], axis=1)


def aedat31_bytes(events, header=AEDAT31_HEADER):
    """Packets of at most 3 events, each of one overflow of the clock, with triggers between them."""
    parts, start = [header, packet([[7, 1]], kind=0)], 0
    while start < len(events):
        overflow = events["t"][start] >> 31
        stop = start + 1
        while stop < min(start + 3, len(events)) and events["t"][stop] >> 31 == overflow:
            stop += 1
        parts.append(packet(polarity_words(events[start:stop]), overflow=int(overflow)))
        start = stop
    return b"".join(parts)


def dat_bytes(events, header=DAT_HEADER, kind=b"\x0c\x08", bits=(14, 14)):
    word = events["x"] + (events["y"].astype(np.int64) << bits[0]) + (events["p"].astype(np.int64) << sum(bits))
    return header + kind + np.stack([events["t"], word], axis=1).astype("<u4").tobytes()


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_of(events):
    return npz_bytes(**{name: events[name] for name in EVENT.names}, sensor_size=np.array([128, 128]))


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


FORMATS = {  # name of the file: how to write it, times that its format can hold, does it keep times that go back
    "a.aedat": (aedat2_bytes, 2**32 - 1, True),
    "b.aedat": (aedat31_bytes, 2**40, True),
    "c.bin": (nmnist_bytes, 2**23 - 1, False),
    "d.dat": (dat_bytes, 2**32 - 1, False),
    "e.npz": (npz_of, 2**50, True),
    "f.npy": (npy_bytes, 2**50, True),
}
GIVEN = {"c.bin": (128, 128), "f.npy": (128, 128)}


def read(tmp_path, name, data, size=None):
    path = tmp_path / name
    path.write_bytes(data)
    return read_events(path, GIVEN.get(name) if size is None else size)


def same(events, expected):
    assert events.events.dtype == EVENT
    np.testing.assert_array_equal(events.events, expected)


def some_events(count=50, seed=0, most=128):
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["x"], events["y"] = rng.integers(most, size=(2, count))
    events["p"] = rng.random(count) < 0.5
    events["t"] = np.sort(rng.integers(100_000, size=count))
    return events


def of_dtype(events, dtype):
    other = np.zeros(len(events), dtype)
    for name in EVENT.names:
        other[name] = events[name]
    return other


# --- by hand


def test_aedat2_bits(tmp_path):
    # 0x4390 = 0100 0011 1001 000 0: y = 67, 127 - x = 72, off bit 0; the first event of a file of MNIST-DVS
    data = AEDAT2_HEADER + bytes.fromhex("00004390 00000000 00007fff 00000055")
    events = read(tmp_path, "a.aedat", data)
    same(events, table((55, 67, 0, True), (0, 127, 85, False)))
    assert events.sensor_size == (128, 128, 2) and events.skipped == 0 and len(events) == 2


def test_aedat31_bits(tmp_path):
    words = [[5 << 17 | 9 << 2 | 1 << 1 | 1, 1000], [127 << 17 | 0 << 2 | 0 << 1 | 1, 1001], [1 << 17 | 0, 1002]]
    unused = packet([*words[:1], [0, 0]], overflow=1, count=1, capacity=2)
    data = AEDAT31_HEADER + packet([[0, 0]], kind=0) + packet(words) + unused
    events = read(tmp_path, "a.aedat", data)
    same(events, table((5, 9, 1000, True), (127, 0, 1001, False), (5, 9, 1000 + 2**31, True)))
    assert events.sensor_size == (128, 128, 2) and events.skipped == 1  # bit 0 of the third word: not valid


def test_nmnist_bits(tmp_path):
    # the first events of a published file, then the end of the clock's range
    events = read(tmp_path, "a.bin", bytes.fromhex("070f80028e 131200 0bb7 0000ffffff"), size=(34, 34))
    same(events, table((7, 15, 654, True), (19, 18, 2999, False), (0, 0, 2**23 - 1, True)))


def test_nmnist_knows_its_sensor(tmp_path):
    path = tmp_path / "00001.bin"
    path.write_bytes(bytes.fromhex("212100000a"))
    assert read_events(path).sensor_size == (34, 34, 2)
    path.write_bytes(bytes.fromhex("210000000a 220000000a"))
    with pytest.raises(DataError, match=r"00001.bin: byte 5: x = 34 is outside the sensor of 34x34"):
        read_events(path)


def test_nmnist_overflow_records_move_time_on(tmp_path):
    data = bytes.fromhex("0101001fff 00f0000000 0202000001")
    events = read(tmp_path, "c.bin", data)
    same(events, table((1, 1, 8191, False), (2, 2, 8193, False)))
    assert events.skipped == 1


def test_dat_bits(tmp_path):
    # the first events of a file of N-CARS: version 2, kind 0
    header = b"% Data file containing N9Chronocam7Event2dE events.\n% Version 2\n% Date 2017-10-31 11:29:21\n"
    data = header + bytes.fromhex("0008 00000000 19000200 23000000 43c00810")
    events = read(tmp_path, "d.dat", data, size=(120, 100))
    same(events, table((25, 8, 0, False), (67, 35, 35, True)))
    assert events.sensor_size == (120, 100, 2)


def test_dat_version_1_has_other_bits(tmp_path):
    data = DAT_HEADER.replace(b"Version 2", b"Version 1") + bytes.fromhex("0008 05000000 05140200")
    same(read(tmp_path, "d.dat", data), table((5, 10, 5, True)))  # 0x21405: x = 5, y = 10, p = 1
    with pytest.raises(DataError, match=r"d.dat: byte \d+: not an address of version 1"):
        read(tmp_path, "d.dat", data[:-1] + b"\x10")


def test_npz_of_spikingjelly_and_of_structured_arrays(tmp_path):
    events = some_events()
    loose = {"t": events["t"].astype(np.uint32), "x": events["x"].astype(float), "y": events["y"].astype(np.uint8)}
    data = npz_bytes(**loose, p=events["p"].astype(int))
    same(read(tmp_path, "e.npz", data, size=(128, 128)), events)
    same(read(tmp_path, "e.npz", npz_bytes(events=events, sensor_size=(130, 128, 2))), events)
    big = of_dtype(events, [("t", ">u8"), ("p", "u1"), ("y", ">i4"), ("x", "<u2")])
    same(read(tmp_path, "e.npz", npz_bytes(events=big, sensor_size=(128, 128))), events)


def test_compressed_npz(tmp_path):
    events, file = some_events(), io.BytesIO()
    np.savez_compressed(file, events=events, sensor_size=(128, 128), notes=np.array("left alone"))
    same(read(tmp_path, "e.npz", file.getvalue()), events)


# --- round trips

ROWS = st.lists(
    st.tuples(st.integers(0, 127), st.integers(0, 127), st.integers(0, 2**40), st.booleans()), min_size=1, max_size=20
)


@pytest.mark.parametrize("name", FORMATS)
@given(rows=ROWS)
def test_what_is_written_is_read(tmp_path_factory, name, rows):
    write, latest, keeps = FORMATS[name]
    events = table(*rows)
    events["t"] = np.sort(events["t"] % (latest + 1))
    folder = tmp_path_factory.getbasetemp()
    same(read(folder, name, write(events)), events)
    if keeps and name != "a.aedat":  # whose clock has an end
        same(read(folder, name, write(events[::-1])), events[::-1])


def samples(shared):
    with tarfile.open(shared / "data" / "event-samples.tar.xz") as tar:
        for member in tar:
            yield member.name.split("/", 1)[1], tar.extractfile(member).read()


def test_published_files_are_written_back_byte_for_byte(shared, tmp_path):
    counts = {}
    for name, data in samples(shared):
        file = name.rsplit("/", 1)[1]
        if file.startswith("mnist_"):
            events = read(tmp_path, file, data)
            assert aedat2_bytes(events.events, data[: len(data) - 8 * len(events)]) == data
            assert events.events["t"][0] == 0 and np.ptp(events.events["x"]) > 60
        elif file == "sample_nmnist.bin":
            events = read(tmp_path, file, data)
            assert nmnist_bytes(events.events) == data and events.sensor_size == (34, 34, 2)
        elif file == "sample_ncars.dat":
            events = read(tmp_path, file, data, size=(120, 100))
            assert dat_bytes(events.events, data[: data.index(b"21\n") + 3], b"\0\x08") == data
        else:
            continue
        assert events.skipped == 0
        counts[file] = len(events)
    mnist = [15744, 19454, 14844, 17254, 17386, 17984, 15125, 19858, 16641, 17643]
    assert [counts[f"mnist_0_scale04_0{number}01.aedat"] for number in range(10)] == mnist
    assert counts["sample_nmnist.bin"] == 4325 and counts["sample_ncars.dat"] == 2009 and len(counts) == 12


def test_files_of_other_formats_say_what_they_are(shared, tmp_path):
    expected = {"sample.aedat4": "AEDAT 4", "sample_stmnist.mat": "MATLAB", "cifar10_airplane_18.mat": "MATLAB"}
    for name, data in samples(shared):
        file = name.rsplit("/", 1)[1]
        if file in expected:
            with pytest.raises(DataError, match=rf"{file}: an? {expected.pop(file)}.*convert it with numpy.savez"):
                read(tmp_path, file, data)
    assert not expected


def test_all_recordings_of_the_archives(shared, tmp_path):
    total = 0
    for events, _ in recordings(shared / "data" / "nmnist-1100.tar", "nmnist/test"):
        total += len(events)
        same(read(tmp_path, "a.bin", nmnist_bytes(events), size=(34, 34)), events)
    assert total == 385_596
    total = 0
    for events, _ in recordings(shared / "data" / "dvs128.tar", "dvs128/mnist-dvs"):
        total += len(events)
        same(read(tmp_path, "a.aedat", aedat2_bytes(events)), events)
    assert total == 538_109


# --- time


def test_the_clock_of_aedat2_goes_on_after_its_end(tmp_path):
    events = some_events(4)
    events["t"] = [2**31 + 5, 2**32 - 1, 3, 7]
    data = aedat2_bytes(events)
    found = read(tmp_path, "a.aedat", data).events["t"]
    assert found.tolist() == [2**31 + 5, 2**32 - 1, 2**32 + 3, 2**32 + 7]


@pytest.mark.parametrize("name", FORMATS)
def test_times_that_go_back(tmp_path, name):
    write, _, keeps = FORMATS[name]
    events = some_events(30)
    events["t"] = np.arange(30) * 100
    events["t"][20:] -= 500
    if keeps:
        same(read(tmp_path, name, write(events)), events)
    else:
        size = len(write(events[:1])) - len(write(events[:1][:0]))
        place = len(write(events[:0])) + 20 * size
        with pytest.raises(DataError, match=rf"{name}: byte {place}: time goes back from 1900 to 1500 microseconds"):
            read(tmp_path, name, write(events))


# --- what is not an event


def test_external_triggers_are_counted(tmp_path):
    events = some_events(3)
    data = aedat2_bytes(events) + bytes.fromhex("00008000 00ffffff 80000000 00ffffff")
    found = read(tmp_path, "a.aedat", data)
    same(found, events)
    assert found.skipped == 2
    with pytest.raises(DataError, match="only 1 external triggers"):
        read(tmp_path, "a.aedat", AEDAT2_HEADER + bytes.fromhex("00008000 00000000"))


def test_aedat2_of_other_cameras_is_refused(tmp_path):
    data = aedat2_bytes(some_events(3))
    for address in ("00010000", "010abc12", "7fffffff"):
        with pytest.raises(DataError, match=rf"a.aedat: byte {len(data)}: address {int(address, 16):#x} is not one of"):
            read(tmp_path, "a.aedat", data + bytes.fromhex(address + "00ffffff"))
    chip = b"# AEChip: eu.seebetter.ini.chips.davis.Davis640\r\n"
    with pytest.raises(DataError, match=r"recorded with eu.seebetter.ini.chips.davis.Davis640"):
        read(tmp_path, "a.aedat", aedat2_bytes(some_events(3), AEDAT2_HEADER + chip))
    chip = b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    same(read(tmp_path, "a.aedat", aedat2_bytes(some_events(3), AEDAT2_HEADER + chip)), some_events(3))


def test_cameras_of_aedat31(tmp_path):
    events = some_events(4)
    events["x"][2] = 345
    davis = AEDAT31_HEADER.replace(b"DVS128", b"DAVIS346")
    found = read(tmp_path, "b.aedat", aedat31_bytes(events, davis))
    same(found, events)
    assert found.sensor_size == (346, 260, 2)
    with pytest.raises(DataError, match=r"byte \d+: x = 345 is outside the sensor of 128x128"):
        read(tmp_path, "b.aedat", aedat31_bytes(events))
    unknown = AEDAT31_HEADER.replace(b"DVS128", b"OTHER")
    with pytest.raises(DataError, match=r"sensor is not in the file: give it as read_events\(path, sensor_size"):
        read(tmp_path, "b.aedat", aedat31_bytes(events, unknown))
    assert read(tmp_path, "b.aedat", aedat31_bytes(events, unknown), size=(346, 260)).sensor_size == (346, 260, 2)
    words = polarity_words(events)
    with pytest.raises(DataError, match=r"contains events of 2 cameras, \[1, 3\]"):
        read(tmp_path, "b.aedat", AEDAT31_HEADER + packet(words) + packet(words, source=3))
    with pytest.raises(DataError, match="contains no polarity events"):
        read(tmp_path, "b.aedat", AEDAT31_HEADER + packet([[1, 2]], kind=0))


def test_sizes_that_contradict(tmp_path):
    data = FORMATS["a.aedat"][0](some_events(3))
    with pytest.raises(DataError, match=r"a.aedat: the sensor has 128x128 pixels, but sensor_size says 34x34"):
        read(tmp_path, "a.aedat", data, size=(34, 34))
    with pytest.raises(DataError, match="give it as read_events"):
        read(tmp_path, "unknown.npy", npy_bytes(some_events(3)))


# --- damage


@pytest.mark.parametrize("name", ["a.aedat", "b.aedat", "c.bin", "d.dat"])
def test_cut_files_name_the_byte(tmp_path, name):
    data = FORMATS[name][0](some_events(9))
    for cut in (1, 2, 3, 4):
        with pytest.raises(DataError, match=rf"{name}: byte \d+: .*cut short"):
            read(tmp_path, name, data[:-cut])


@pytest.mark.parametrize("name", FORMATS)
def test_files_without_events(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: .*(no .*events|empty)"):
        read(tmp_path, name, FORMATS[name][0](some_events(0)))
    with pytest.raises(DataError, match=f"{name}: the file is empty"):
        read(tmp_path, name, b"")


@pytest.mark.parametrize("suffix", [*FORMATS, "x.mat", "x"])
@pytest.mark.parametrize("name", FORMATS)
def test_the_content_counts_not_the_name(tmp_path, name, suffix):
    """Every format under the extension of every other one; only N-MNIST's layout needs its own."""
    events, data = some_events(9), FORMATS[name][0](some_events(9))
    size = GIVEN.get(name, (128, 128))
    if name == "c.bin" and suffix != name:
        with pytest.raises(DataError, match=rf"{suffix}: byte 0: expected AEDAT 2.0 or 3.1"):
            read(tmp_path, suffix, data, size)
    else:
        same(read(tmp_path, suffix, data, size), events)


@pytest.mark.parametrize("start", [b"%", b"%\x20\x80", b"#!", b"PK\3\4", b"\x93N", b"\x89H", b"MA", b"\x89H\0\r\n"])
def test_nmnist_that_begins_like_another_format(tmp_path, start):
    """The first event of an N-Caltech101 file in column 37 made it a file of Prophesee: one file in 200."""
    data = start.ljust(5, b"\0") + b"\1\2\6\0\n"
    x, y, high, middle, low = start.ljust(5, b"\0")
    first = (x, y, (high & 127) << 16 | middle << 8 | low, high >> 7)
    same(read(tmp_path, "c.bin", data, (240, 180)), table(first, (1, 2, 6 << 16 | 10, False)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT3.0\r\n", "an AEDAT file of another version"),
        (b"#!AER-DAT2.0\r\n# no end of line", "byte 14: cut short in the header"),
        (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "byte 28: expected a header up to the line #!END-HEADER"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"% evt 3.0\n% format EVT3;height=720;width=1280\n% end\n", "a raw recording of Prophesee"),
        (b"% Data file\n% Version 7\n\x00\x08", "expected version 1 or 2 in the header, got 7"),
        (b"% Version 2\n\x0e\x08", r"byte 12: expected events of kind 0 or 12 and size 8, got \(14, 8\)"),
        (b"% Version 2\n% Width ten\n% Height 10\n\x0c\x08" + bytes(8), "expected a number for width, got 'ten'"),
        (b"% Version 2\n% Width 0\n% Height 10\n\x0c\x08" + bytes(8), r"sensor size: expected \(W, H\), got \(0, 10\)"),
        (DAT_HEADER + b"\x0c\x08" + bytes(7) + b"\x20", r"byte 72: p = 2 is not a polarity"),
        (AEDAT31_HEADER + packet([[1, 1]], capacity=9), r"cut short: a packet of 9 events of 8 bytes, 8 bytes left"),
        (AEDAT31_HEADER + packet([[1, 1]], count=-1), "not the header of a packet"),
        (AEDAT31_HEADER + packet([[1, 1], [1, 1]], count=1, capacity=2), "a packet of 1 events contains more"),
        (AEDAT31_HEADER + packet([[1, 1]], each=0), "not the header of a packet"),
        (AEDAT31_HEADER + packet([[1, 2**31]]), "a negative time"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    with pytest.raises(DataError, match=r"file: .*" + message):
        read(tmp_path, "file", data)


X = np.arange(3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": X, "t": X}, "missing: p$"),
        ({"frames": np.zeros((2, 2, 4, 4))}, "contains frames; expected events"),
        ({"x": X, "y": X, "t": X, "p": X}, "event 2: p = 2 is not a polarity"),
        ({"x": X, "y": X, "t": X, "p": X - 1}, "event 0: p = -1 is not a polarity"),
        ({"x": X, "y": X, "t": X / 2, "p": X > 1}, "event 1: t = 0.5 is not an integer"),
        ({"x": X * np.nan, "y": X, "t": X, "p": X > 1}, "event 0: x = nan is outside the sensor of 128x128"),
        ({"x": X, "y": X - 1, "t": X, "p": X > 1}, "event 0: y = -1 is outside"),
        (
            {"x": X, "y": X, "t": X.astype(np.uint64) + 2**63, "p": X > 1},
            "event 0: t = 9223372036854775808 is not a time",
        ),
        ({"x": X, "y": X[:2], "t": X, "p": X > 1}, r"y: expected one value per event, 3, got shape \(2,\)"),
        ({"x": X.reshape(1, 3), "y": X, "t": X, "p": X > 1}, r"expected one value per event, got shape \(1, 3\)"),
        ({"x": X.astype("M8[s]"), "y": X, "t": X, "p": X > 1}, "x: expected numbers, got datetime64"),
        ({"x": X.astype(object), "y": X, "t": X, "p": X > 1}, "array 'x': expected numbers, got Python objects"),
        ({"events": X}, "missing: x, y, t, p$"),
        ({"x": X, "y": X, "t": X, "p": X > 1, "sensor_size": 128}, r"sensor size: expected \(W, H\), got .128"),
        ({"x": X, "y": X, "t": X, "p": X > 1, "sensor_size": (1, 2, 3)}, "sensor size: expected"),
        ({"x": X, "y": X, "t": X, "p": X > 1, "sensor_size": (128, 10**6)}, "sensor size: expected"),
    ],
)
def test_npz_that_holds_no_events(tmp_path, arrays, message):
    with pytest.raises(DataError, match=r"e.npz: .*" + message):
        read(tmp_path, "e.npz", npz_bytes(**({"sensor_size": np.array([128, 128])} | arrays)))


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_are_refused_or_read_whole(tmp_path, name):
    whole = FORMATS[name][0](some_events(40))
    rng = np.random.default_rng(1)
    refused = 0
    for turn in range(300):
        data = bytearray(whole)
        kind = turn % 4
        place = int(rng.integers(len(data)))
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place] = int(rng.integers(256))
            data[int(rng.integers(min(200, len(data))))] = int(rng.integers(256))
        elif kind == 2:
            del data[place:]
        else:
            data[place:place] = rng.bytes(int(rng.integers(1, 20)))
        try:
            events = read(tmp_path, name, bytes(data))
        except DataError as error:
            assert name in str(error)
            refused += 1
            continue
        width, height, _ = events.sensor_size
        assert len(events) > 0
        assert (events.events["x"] >= 0).all() and (events.events["x"] < width).all()
        assert (events.events["y"] >= 0).all() and (events.events["y"] < height).all()
        if name in ("c.bin", "d.dat"):
            assert (np.diff(events.events["t"]) >= 0).all()
        if kind < 2 and name != "b.aedat":  # the bytes are as many: so are the records
            assert len(events) + events.skipped >= 40
    assert refused > 50


def huge_npy(shape):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % shape
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(100)


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("f.npy", huge_npy(10**15)),
        ("e.npz", zipped(huge_npy(10**12))),
        ("b.aedat", AEDAT31_HEADER + packet([[1, 1]], capacity=2**31 - 1, each=2**31 - 1)),
        ("b.aedat", AEDAT31_HEADER + packet([[1, 1]], capacity=2**31 - 1, count=2**31 - 1)),
        ("d.dat", DAT_HEADER.replace(b"128", b"999999999") + b"\x0c\x08" + bytes(8)),
    ],
)
def test_no_memory_for_what_a_file_only_claims(tmp_path, name, data):
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read(tmp_path, name, data, size=(128, 128))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_pickles_are_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    with pytest.raises(DataError, match=r"f\.npy"):
        read(tmp_path, "f.npy", npy_bytes(np.array([Trap()])))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "none.aedat")


# --- arrays


def test_arrays_of_others_are_taken_as_they_are():
    events = some_events()
    taken = as_events(events, (128, 128, 2))
    assert taken.events is events and taken.sensor_size == (128, 128, 2)
    assert as_events(taken) is taken and as_events(taken, (128, 128)) is taken
    same(as_events({name: events[name].tolist() for name in "txyp"}, (128, 128)), events)
    as_tonic = of_dtype(events, [("t", "u8"), ("x", "u2"), ("y", "u2"), ("p", "?"), ("more", "f8")])
    same(as_events(as_tonic, [128, 128]), events)
    assert len(as_events(events[:0], (128, 128))) == 0
    assert as_events(taken, (200, 128)).sensor_size == (200, 128, 2)


@pytest.mark.parametrize(
    ("array", "size", "error", "message"),
    [
        (some_events(), None, ValueError, r"argument 'sensor_size': expected \(W, H\), got None"),
        (some_events(), (128,), ValueError, r"expected \(W, H\) or \(W, H, 2\), got \(128,\)"),
        (some_events(), (128, 128, 1), ValueError, "expected"),
        (some_events(), (128.0, 128), ValueError, "expected"),
        (some_events(), (0, 128), ValueError, "expected 1 to 4096 a side"),
        (np.zeros((5, 4)), (34, 34), TypeError, "a structured array or a mapping .* got an array of float64"),
        ([1, 2], (34, 34), TypeError, "got list"),
        ({"x": [1], "y": [1], "t": [1]}, (34, 34), ValueError, "expected fields x, y, t and p, got x, y, t"),
        ({"x": [1], "y": [50], "t": [1], "p": [1]}, (60, 50), ValueError, "event 0: y = 50 is outside .* 60x50"),
        ({"x": ["1"], "y": [5], "t": [1], "p": [1]}, (60, 50), TypeError, "x: expected numbers"),
        (Events(table((40, 1, 1, True)), (41, 41, 2)), (40, 41), ValueError, "event 0: x = 40 is outside"),
    ],
)
def test_what_are_no_events(array, size, error, message):
    with pytest.raises(error, match=r"as_events: .*" + message):
        as_events(array, size)
