"""Events: one type for recordings of dynamic vision sensors, and one function that reads all their files.

>>> recording = read_events("cifar10_airplane_0.aedat")
>>> recording.events.dtype.names, recording.sensor_size
(('x', 'y', 't', 'p'), (128, 128, 2))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dsr.data.events.aedat import read_aedat2, read_aedat31
from dsr.data.events.array import EVENT, Events, as_events, check_size
from dsr.data.events.files import read_dat, read_nmnist, read_npy, read_npz
from dsr.files.errors import DataError

__all__ = ["EVENT", "Events", "as_events", "read_events"]

_READERS = {
    rb"#!AER-DAT2\.0": read_aedat2,
    rb"#!AER-DAT3\.1": read_aedat31,
    rb"%[\t -~]{2}": read_dat,
    rb"PK\x03\x04[\x0a\x14\x2d]\0": read_npz,
    rb"\x93NUMPY[\1-\3]\0": read_npy,
}
"""By how a file begins, as a regular expression.

Files of N-MNIST's layout have no mark and begin with any event, in column 37 of a large sensor with ``%``. Therefore
the marks are longer than one byte: the third of a Prophesee file, a character, would be the time of an event at least 2
seconds after the start; and that of an .npz includes the version of ZIP that is needed, 1, 2 or 4.5.
"""

_OTHERS = {
    b"#!AER-DAT4": "an AEDAT 4 file, which the packages dv-processing and aedat read",
    b"#!AER-DAT": "an AEDAT file of another version than 2.0 and 3.1",
    b"MATLAB 5.0 MAT-file": "a MATLAB file, which scipy.io.loadmat reads",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, which h5py reads",
}


def read_events(path: str | Path, sensor_size: Sequence[int] | None = None) -> Events:
    """The events of a file: AEDAT 2.0 or 3.1, Prophesee .dat, NumPy .npz or .npy, or N-MNIST .bin.

    The first bytes say which, whatever the file is called; only N-MNIST's layout, which has no mark of its own, is told
    by the extension .bin. `dsr.data.events.aedat` and `dsr.data.events.files` tell how bits become x, y, t and p.

    Parameters
    ----------
    path : path
        Of the file.
    sensor_size : sequence of int, optional
        ``(W, H)`` or ``(W, H, 2)``; needed if neither the file nor its format contains it.

    Raises
    ------
    DataError
        The file is damaged, cut short, of another format, or holds no events; the message names the file and the byte.
        No event is left out silently.
    OSError
        The file cannot be read.
    """
    given = None if sensor_size is None else check_size("read_events", sensor_size)
    data, name = Path(path).read_bytes(), str(path)
    if not data:
        raise DataError(f"{name}: the file is empty")
    for mark, read in _READERS.items():
        if re.match(mark, data):
            return read(data, name, given)
    for mark, what in _OTHERS.items():
        if data.startswith(mark):
            raise DataError(
                f"{name}: {what}; convert it with "
                "numpy.savez(file, x=x, y=y, t=microseconds, p=polarity, sensor_size=(W, H))"
            )
    if Path(path).suffix.lower() == ".bin":
        return read_nmnist(data, name, given)
    raise DataError(
        f"{name}: byte 0: expected AEDAT 2.0 or 3.1, Prophesee .dat, .npz, .npy or N-MNIST .bin, got {data[:12]!r}"
    )
