"""Event files of N-MNIST (.bin) and Prophesee (.dat), and of NumPy (.npz, .npy).

N-MNIST (.bin)
    5 bytes per event: x; y; polarity in bit 7 (1: on) and 23 bits of time in microseconds, high byte first. A record
    with y = 240 is not an event of a pixel: it adds 8192 microseconds to all later times (it is skipped and counted).
    The sensor has 34x34 pixels unless another size is given, as for the files of N-Caltech101, which have this layout.

Prophesee (.dat)
    Header lines that start with ``%``; a byte for the kind of events (0 or 12: changes of pixels), one for their size
    (8); then for each event its time and address, little-endian, 32 bits each. Version 2 has x in bits 0 to 13, y in
    bits 14 to 27, polarity in bits 28 to 31 (1: on); version 1 has 9, 8 and 1 bits.

NumPy (.npz, .npy)
    Arrays ``x``, ``y``, ``t`` and ``p``, or one structured array with these fields (in an .npz it is called
    ``events``), optionally with ``sensor_size``, (W, H). Nothing is unpickled.

In the first two formats times never go back; a file in which they do is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsr.data.events.aedat import known_size, places, whole_records
from dsr.data.events.array import EVENT, Events, SensorSize, blocks, check_size, first_step_back, join, pack
from dsr.files import archive as npy
from dsr.files.archive import Archive
from dsr.files.errors import DataError

_OVERFLOW_ROW = 240
_OVERFLOW_TIME = 1 << 13
_CHANGES = ((0, 8), (12, 8))
"""Kind and size of events of pixels."""

_DAT_BITS = {1: (9, 8, 1), 2: (14, 14, 4)}
"""Of x, y and polarity, by the version of the file."""


_Part = tuple[dict[str, NDArray[Any]], int, NDArray[np.int64]]
"""For some events: the fields, the number of records that were skipped, and the bytes at which the events begin."""


def read_nmnist(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Events of a .bin file of N-MNIST's layout."""
    records, size = whole_records(data, path, 0, 5), given or (34, 34, 2)
    return _in_order(_parts_of_nmnist(records), len(records), size, path)


def _parts_of_nmnist(records: NDArray[np.uint8]) -> Iterator[_Part]:
    overflows = 0
    for block in blocks(len(records)):
        x, y, high, middle, low = records[block].astype(np.int64).T
        overflow = y == _OVERFLOW_ROW
        times = ((high & 127) << 16 | middle << 8 | low) + _OVERFLOW_TIME * (overflows + np.cumsum(overflow))
        overflows += int(overflow.sum())
        kept = np.flatnonzero(~overflow)
        fields = {"x": x[kept], "y": y[kept], "t": times[kept], "p": high[kept] >> 7}
        yield fields, len(x) - len(kept), 5 * (block.start + kept)


def read_dat(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Events of a .dat file of Prophesee."""
    start, about = 0, {}
    while data.startswith(b"%", start):
        stop = data.find(b"\n", start)
        if stop < 0:
            raise DataError(f"{path}: byte {start}: cut short in the header")
        words = data[start + 1 : stop].decode("latin-1").split()
        about.update({words[0].lower(): words[1]} if len(words) == 2 else {})
        start = stop + 1
    bits = _DAT_BITS.get(_number(about, "version", path) or 0)
    if bits is None:
        if about.keys() & {"evt", "format"}:
            raise DataError(f"{path}: a raw recording of Prophesee; convert it with metavision_file_to_dat")
        raise DataError(f"{path}: expected version 1 or 2 in the header, got {about.get('version', 'none')[:40]}")
    kind = tuple(data[start : start + 2])
    if kind not in _CHANGES:
        raise DataError(f"{path}: byte {start}: expected events of kind 0 or 12 and size 8, got {kind}")
    start += 2
    records = whole_records(data, path, start, 8).view("<u4")
    width, height = _number(about, "width", path), _number(about, "height", path)
    own = None if width is None or height is None else _size(path, (width, height))
    size = known_size(path, own, given)
    return _in_order(_parts_of_dat(records, bits, path, start, about["version"]), len(records), size, path)


def _parts_of_dat(
    records: NDArray[np.uint32], bits: tuple[int, int, int], path: str, start: int, version: str
) -> Iterator[_Part]:
    for block in blocks(len(records)):
        fields, rest = {"t": records[block, 0].astype(np.int64)}, records[block, 1].astype(np.int64)
        for name, many in zip("xyp", bits, strict=True):
            fields[name] = rest & (1 << many) - 1
            rest = rest >> many
        offsets = start + 8 * (block.start + np.arange(len(rest)))
        if rest.any():
            place = offsets[int((rest != 0).argmax())]
            raise DataError(f"{path}: byte {place}: not an address of version {version}")
        yield fields, 0, offsets


def read_npy(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Events of a .npy file."""
    array = _array(data, path)
    return _fields({name: array[name] for name in array.dtype.names or ()}, path, known_size(path, None, given))


def read_npz(data: bytes, path: str, given: SensorSize | None) -> Events:
    """Events of a .npz file."""
    archive = Archive(data, path)
    names = {name.removesuffix(".npy"): name for name in archive.files}
    wanted = {"events", "sensor_size", *(EVENT.names or ())} & names.keys()
    arrays = {name: _array(archive.read(names[name]), f"{path}: array '{name}'") for name in sorted(wanted)}
    own = _size(path, arrays.pop("sensor_size").tolist()) if "sensor_size" in arrays else None
    if "events" in arrays:
        events = arrays["events"]
        arrays = {name: events[name] for name in events.dtype.names or ()}
    if not arrays and "frames" in names:
        raise DataError(f"{path}: contains frames; expected events, that is arrays x, y, t and p")
    return _fields(arrays, path, known_size(path, own, given))


def _in_order(parts: Iterable[_Part], most: int, size: SensorSize, path: str) -> Events:
    """Checked events of a format in which times never go back; there are at most `most` of them."""
    events = join(_checked(parts, size, path), most, size)
    if not len(events):
        raise DataError(f"{path}: contains no events")
    return events


def _checked(parts: Iterable[_Part], size: SensorSize, path: str) -> Iterator[Events]:
    last = 0
    for fields, skipped, offsets in parts:
        yield pack(fields, size, skipped, places(path, offsets))
        number = first_step_back(times := np.append(last, fields["t"]))
        if number is not None:
            earlier, later = times[number - 1 : number + 1]
            raise DataError(
                f"{path}: byte {offsets[number - 1]}: time goes back from {earlier} to {later} microseconds"
            )
        last = times[-1]


def _fields(fields: dict[str, NDArray[Any]], path: str, size: SensorSize) -> Events:
    """Checked events of arrays in a file."""
    missing = [name for name in EVENT.names or () if name not in fields]
    if missing:
        raise DataError(f"{path}: expected arrays x, y, t and p, but missing: {', '.join(missing)}")
    try:
        events = pack(fields, size, 0, lambda number, what: DataError(f"{path}: event {number}: {what}"))
    except TypeError as error:  # a field that does not contain numbers
        raise DataError(str(error)) from error
    if not len(events):
        raise DataError(f"{path}: contains no events")
    return events


def _array(data: bytes | memoryview, what: str) -> NDArray[Any]:
    """The array of .npy bytes, with one value per event."""
    array = npy.read_npy(data, what)
    if array.ndim > 1:
        raise DataError(f"{what}: expected one value per event, got shape {array.shape} of {array.dtype}")
    return array.reshape(-1)


def _size(path: str, size: Any) -> SensorSize:
    """A sensor size that a file claims."""
    try:
        return check_size(path, size)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: sensor size: expected (W, H), got {str(size)[:60]}") from error


def _number(about: dict[str, str], name: str, path: str) -> int | None:
    """A number of the header; None if it is missing."""
    text = about.get(name)
    if text is not None and not re.fullmatch("[0-9]{1,9}", text):
        raise DataError(f"{path}: header: expected a number for {name}, got {text[:40]!r}")
    return None if text is None else int(text)
