"""What calls leave behind in memory.

`growth` makes many calls several times over and takes, of each thing that it counts, the least growth: what a call
leaves behind is there each time, what a cache or the heap's layout adds is not. It counts references to the arguments,
objects known to the garbage collector, blocks of Python's allocator, bytes that Python and NumPy have asked for
(tracemalloc), bytes that malloc has given out (glibc's mallinfo2), and pages of the process.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

SANITIZED = "lib" in os.environ.get("LD_PRELOAD", "")
"""Under ASan: freed memory is kept for a while, and malloc is another."""

WINDOWS = 6


class Growth(NamedTuple):
    """What is there more after some calls; all zero, or less, where nothing leaks."""

    references: int = 0
    objects: int = 0
    blocks: int = 0
    traced: int = 0
    malloced: int = 0
    resident: int = 0


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "k")
    ]


def malloced_bytes() -> int:
    """Bytes that malloc has given out; 0 where it does not say."""
    ask = None if SANITIZED else getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = Mallinfo
    info = ask()
    return info.uordblks + info.hblkhd


def resident_bytes() -> int:
    """Memory of the process."""
    if SANITIZED or sys.platform != "linux":
        return 0
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # free pages of the heap would hide what is left behind
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def references(arguments: list[Any]) -> int:
    """Of all of Python where it counts them (a debug build), else of the arguments."""
    if hasattr(sys, "gettotalrefcount"):
        return sys.gettotalrefcount()
    return sum(sys.getrefcount(argument) for argument in arguments)


def counted(arguments: list[Any]) -> Growth:
    """All that is counted, but for tracemalloc's bytes."""
    gc.collect()
    # resident first: the others do not allocate for good, but the list of objects is long
    pages, malloced, blocks = resident_bytes(), malloced_bytes(), sys.getallocatedblocks()
    return Growth(references(arguments), len(gc.get_objects()), blocks, 0, malloced, pages)


def traced_bytes() -> int:
    """What Python and NumPy hold of what they asked for since tracemalloc began."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def growth(call: Callable[[], object], times: int, arguments: list[Any], slack: int = 0) -> Growth:
    """What `times` calls leave behind at least, whenever they are made."""
    gc.freeze()  # what was there before, garbage or not, is not looked at again
    try:
        for _ in range(3):
            call()
        plain = least_growth(lambda: counted(arguments), call, times, slack)
        tracemalloc.start()
        try:
            call()
            traced = least_growth(lambda: Growth(traced=traced_bytes()), call, times, slack)
        finally:
            tracemalloc.stop()
        return plain._replace(traced=traced.traced)
    finally:
        gc.unfreeze()


def least_growth(count: Callable[[], Growth], call: Callable[[], object], times: int, slack: int) -> Growth:
    """The least growth in several windows; no further one is needed once nothing has grown by more than it may."""
    least: Growth | None = None
    for _ in range(WINDOWS):
        before = count()
        for _ in range(times):
            call()
        now = [b - a for a, b in zip(before, count(), strict=True)]
        least = Growth(*(now if least is None else map(min, least, now)))
        if not leaks(least, times, slack):
            break
    assert least is not None
    return least


def leaks(found: Growth, times: int, slack: int = 0) -> list[str]:
    """What grew by more than `times` calls may: less than one small object (32 bytes) for two of them."""
    blocks, size = times // 2 + slack, 16 * times + 128 * slack
    allowed = Growth(0, blocks, blocks, size, size, size + 8 * os.sysconf("SC_PAGE_SIZE"))
    return [name for name in Growth._fields if getattr(found, name) > getattr(allowed, name)]


class Record:
    """How functions are checked, and the largest growth of each kind over all of a test module.

    Parameters
    ----------
    every : int
        Of the refused calls, every n-th is made.
    slack : int
        Blocks of memory that may be left over in all: few calls of large functions do not tell a leak from noise.
    """

    def __init__(self, every: int = 1, slack: int = 0) -> None:
        self.every, self.slack = every, slack
        self.functions = self.calls = 0
        self.most = Growth()

    def add(self, found: Growth, calls: int) -> None:
        """Takes in what was found of one function."""
        self.functions += 1
        self.calls += calls
        self.most = Growth(*map(max, self.most, found))

    def __str__(self) -> str:
        return (
            f"{self.functions} functions, {self.calls} calls in a window; at most "
            + ", ".join(f"{amount} {what}" for what, amount in self.most._asdict().items())
            + " more after it"
        )


Call = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]


def refused(call: Call) -> bool:
    """Whether the call raises one of the errors that wrong arguments give."""
    function, positional, named = call
    try:
        function(*positional, **named)
    except (TypeError, ValueError, OSError, RuntimeError, KeyError, FloatingPointError):
        return True
    return False


def check(name: str, good: list[Call], bad: list[Call], times: int, record: Record, slack: int = 0) -> None:
    """All calls of a function, so many times over: the good ones give a result and the bad ones an error.

    `slack` is added to the record's.
    """
    slack += record.slack
    bad = bad[:: record.every]
    for call in good:
        call[0](*call[1], **call[2])  # whatever it raises is told
    assert [number for number, call in enumerate(bad) if not refused(call)] == [], f"{name}: calls that went through"

    def everything() -> None:
        for function, positional, named in good:
            function(*positional, **named)
        for call in bad:
            refused(call)

    # None, small numbers and words are everybody's
    given = (value for _, positional, named in good + bad for value in (*positional, *named.values()))
    arguments = [value for value in given if not isinstance(value, int | str | None)]
    found = growth(everything, times, arguments, slack)
    calls = f"{times} times {len(good)} calls and {len(bad)} refused ones"
    assert leaks(found, times, slack) == [], f"{name}: {calls} left {found}"
    record.add(found, times * (len(good) + len(bad)))
