"""AEDAT, the files of jAER (2.0) and cAER (3.1).

AEDAT 2.0
    Header lines that start with ``#``, then records of 8 bytes, big-endian: address and time in microseconds, both of
    32 bits. Addresses are read as those of a DVS128, the camera of MNIST-DVS and CIFAR10-DVS:

    | bits of the address | |
    |---|---|
    | 0 | 0: on, 1: off |
    | 1 to 7 | 127 - x |
    | 8 to 14 | y |
    | 15, 31 | not an event of a pixel: external trigger or other special event; skipped and counted |
    | 16 to 30 | 0 unless bit 31 is set; otherwise the file is not from a DVS128 |

    So ``x = 127 - bits``, ``y = bits`` and ``p = 1 - bit``, as in jAER's DVS128 and in the published code of DSR.
    Row 0 is the bottom line of jAER's display. (Later versions of SpikingJelly transpose the image by exchanging x and
    y.) The counter of times has 32 bits: when it overflows, times continue beyond 2**32.

AEDAT 3.1
    Header lines up to ``#!END-HEADER``, then packets, little-endian: a header of 28 bytes and `capacity` events of
    `size` bytes. Of packets of type 1, polarity, each event is a word and a time of 31 bits, to which the packet's
    overflow counter adds ``counter * 2**31``. Bit 0 of the word: valid (others are skipped and counted); bit 1: on;
    bits 2 to 16: y from the top; bits 17 to 31: x. Other packets contain triggers, frames or inertial data and are
    skipped.

Both formats allow times that go back, after a reset of the camera's clock or from old hardware. Events keep the order
of the file, which is enough for frames by number; frames by time refuse such a recording (`dsr.data.events.frames`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dsr.data.events.array import Events, Fail, SensorSize, blocks, join, pack
from dsr.files.errors import DataError

_PACKET = struct.Struct("<hhiiiiii")
_POLARITY = 1
_SENSORS = {"DVS128": (128, 128), "DAVIS240": (240, 180), "DAVIS346": (346, 260), "DAVIS640": (640, 480)}
"""Width and height by the start of the camera's name."""


def read_aedat2(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Events of an AEDAT 2.0 file from a DVS128."""
    start, lines = _header(data, path, end=None)
    for line in lines:
        chip = re.match(r"#\s*AEChip:\s*(\S+)", line)
        if chip and not chip[1].endswith(("DVS128", "Tmpdiff128")):
            raise DataError(f"{path}: recorded with {chip[1]}; AEDAT 2.0 files are read only if they are from a DVS128")
    size = known_size(path, (128, 128, 2), given)
    records = whole_records(data, path, start, 8).view(">u4").reshape(-1, 2)
    found = join(_parts_of_aedat2(records, path, start, size), len(records), size)
    if not len(found):
        raise DataError(f"{path}: contains no events of pixels, only {len(records)} external triggers")
    return found


def _parts_of_aedat2(records: NDArray[np.uint32], path: str, start: int, size: SensorSize) -> Iterator[Events]:
    last, turns = 0, 0
    for block in blocks(len(records)):
        address, times = records[block, 0].astype(np.int64), records[block, 1].astype(np.int64)
        special = (address & 0x8000_8000) != 0
        other = (address >> 31 == 0) & (address > 0xFFFF)
        if other.any():
            number = int(other.argmax())
            place = start + 8 * (block.start + number)
            raise DataError(f"{path}: byte {place}: address {address[number]:#x} is not one of a DVS128")
        back = np.diff(times, prepend=last if block.start else times[0]) < -(1 << 31)
        last = int(times[-1])
        times += (turns + np.cumsum(back)) << 32
        turns += int(back.sum())
        kept = np.flatnonzero(~special)
        address = address[kept]
        fields = {"x": 127 - (address >> 1 & 127), "y": address >> 8, "t": times[kept], "p": 1 - (address & 1)}
        yield pack(fields, size, len(times) - len(kept), places(path, start + 8 * (block.start + kept)))


def read_aedat31(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Polarity events of an AEDAT 3.1 file."""
    start, lines = _header(data, path, end="#!END-HEADER")
    sources, most = set(), 0
    for source, _, slots, _ in _polarity_packets(data, path, start):
        sources.add(source)
        most += len(slots)
    if not sources:
        raise DataError(f"{path}: contains no polarity events")
    if len(sources) > 1:
        raise DataError(f"{path}: contains events of {len(sources)} cameras, {sorted(sources)}; expected one")
    size = known_size(path, _source_size(lines, sources.pop()), given)
    found = join(_parts_of_aedat31(data, path, start, size), most, size)
    if not len(found):
        raise DataError(f"{path}: contains no valid polarity events")
    return found


def _parts_of_aedat31(data: bytes, path: str, start: int, size: SensorSize) -> Iterator[Events]:
    for _, first, slots, overflow in _polarity_packets(data, path, start):
        for block in blocks(len(slots)):
            words = slots[block].astype(np.int64)
            place = first + 8 * block.start
            if (late := words[:, 1] >> 31 != 0).any():
                raise DataError(f"{path}: byte {place + 8 * int(late.argmax())}: a negative time")
            valid = np.flatnonzero(words[:, 0] & 1)
            word, times = words[valid, 0], words[valid, 1] + (overflow << 31)
            fields = {"x": word >> 17, "y": word >> 2 & 0x7FFF, "t": times, "p": word >> 1 & 1}
            yield pack(fields, size, len(words) - len(valid), places(path, place + 8 * valid))


def _polarity_packets(data: bytes, path: str, position: int) -> Iterator[tuple[int, int, NDArray[np.uint32], int]]:
    """For each packet: the number of its camera, the byte of its first event, words and times, and the overflows."""
    while position < len(data):
        if len(data) - position < _PACKET.size:
            raise DataError(f"{path}: byte {position}: cut short in the header of a packet")
        kind, source, each, time_at, overflow, capacity, count, _ = _PACKET.unpack_from(data, position)
        first = position + _PACKET.size
        if not 0 <= count <= capacity or each < 1 or overflow < 0:
            raise DataError(f"{path}: byte {position}: not the header of a packet")
        if each * capacity > len(data) - first:
            raise DataError(
                f"{path}: byte {position}: cut short: a packet of {capacity} events of {each} bytes, "
                f"{len(data) - first} bytes left"
            )
        if kind == _POLARITY and capacity:
            if (each, time_at) != (8, 4):
                raise DataError(f"{path}: byte {position}: expected polarity events of 8 bytes, got {each}")
            slots = np.frombuffer(data, "<u4", 2 * capacity, first).reshape(-1, 2)
            if (slots[count:, 0] & 1).any():
                raise DataError(f"{path}: byte {position}: a packet of {count} events contains more")
            yield source, first, slots[:count], overflow
        position = first + each * capacity


def known_size(path: str, own: SensorSize | None, given: SensorSize | None) -> SensorSize:
    """The sensor size, from the file, its format or the caller; a DataError if it is missing or they differ."""
    if own is not None and given is not None and own != given:
        raise DataError(f"{path}: the sensor has {own[0]}x{own[1]} pixels, but sensor_size says {given[0]}x{given[1]}")
    size = own or given
    if size is None:
        raise DataError(
            f"{path}: the size of the sensor is not in the file: give it as read_events(path, sensor_size=(W, H)), or "
            "for a data set in the file sensor_size.txt in its folder, such as '128 128'"
        )
    return size


def whole_records(data: bytes, path: str, start: int, each: int) -> NDArray[np.uint8]:
    """The bytes after the header as rows of `each` bytes."""
    count, rest = divmod(len(data) - start, each)
    if rest:
        raise DataError(f"{path}: byte {len(data) - rest}: {rest} bytes left, but an event has {each}: cut short")
    if not count:
        raise DataError(f"{path}: byte {start}: contains no events")
    return np.frombuffer(data, np.uint8, count * each, start).reshape(count, each)


def _header(data: bytes, path: str, end: str | None) -> tuple[int, list[str]]:
    """The byte at which the header ends, and its lines: up to the line `end`, or while lines start with '#'."""
    position, lines = 0, []
    while data.startswith(b"#", position):
        stop = data.find(b"\n", position)
        if stop < 0:
            raise DataError(f"{path}: byte {position}: cut short in the header")
        lines.append(data[position:stop].decode("latin-1").rstrip("\r"))
        position = stop + 1
        if lines[-1] == end:
            return position, lines
    if end is not None:
        raise DataError(f"{path}: byte {position}: expected a header up to the line {end}")
    return position, lines


def _source_size(lines: list[str], source: int) -> SensorSize | None:
    """The sensor size of a camera according to the header, by its number; of the only camera whatever its number."""
    found = [match for line in lines if (match := re.match(r"#\s*Source\s+([0-9]+):\s*(\S+)", line))]
    named = {match[1]: match[2] for match in found}
    name = named.get(str(source), next(iter(named.values())) if len(named) == 1 else "")
    for start, (width, height) in _SENSORS.items():
        if name.upper().startswith(start):
            return width, height, 2
    return None


def places(path: str, offsets: NDArray[np.int64]) -> Fail:
    """Makes the error for an event of a file, given the bytes at which the events begin."""
    return lambda number, what: DataError(f"{path}: byte {offsets[number]}: {what}")
