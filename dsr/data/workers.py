"""Calls a function in worker processes: results come in order, a bounded number of tasks runs ahead, nothing hangs.

Each process has its own pipe and at most one task: processes take turns, and each gets its next task when its result is
taken. So there are never more results in progress than processes, the order does not depend on which process is slow,
and when one side dies, the pipe ends and the other side sees it.

With `AUTO` there are as many processes as help, which is measured while they work. The first calls are made here, until
they have taken `START` seconds: a short pass needs no process. Then there is one, and another whenever this process
waited for results for more than `WAITING` of the time (of at least `ROUND` seconds and two results of each), until
there are `most_workers`.

The processes are started afresh ("spawn"): a fork would copy the state of OpenMP's threads, and hang.

`concurrent.futures.ProcessPoolExecutor` was tried in the place of this. A program that ends while tasks are running
waits for them (12 s for tasks of 12 s, here none), it does not tell how a worker died, and after a SIGKILL of the
program its workers wait for ever unless they watch the program themselves.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from time import monotonic
from typing import Any, TypeVar

from dsr import system
from dsr.files.errors import DataError
from dsr.ops.threads import get_num_threads

Task = TypeVar("Task")
Result = TypeVar("Result")

AUTO = -1
"""Number of workers: as many as help."""
START = 1.0
"""Seconds of calls here before the first process is started, which takes 0.5 to 1 s until it is ready."""
WAITING, ROUND = 0.02, 1.0

_Worker = tuple[SpawnProcess, Any]
"""A process and the end of its pipe here, a `Connection`, or of another class on Windows."""


def call_ahead(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Generator[Result, None, None]:
    """``function(task)`` for each task, in order, computed by `workers` processes.

    Parameters
    ----------
    function : callable
        Of a module, or a method of an object that can be pickled.
    tasks : iterable
        Taken as they are needed, one ahead for each process.
    workers : int
        Number of processes, which end when the generator does. 0: the calls are made here. `AUTO`: as many as help.

    Raises
    ------
    DataError, OSError
        What the function raised; any other error of it comes as a RuntimeError with its traceback.
    ChildProcessError
        A process died.
    """
    number = _Number(0, most_workers()) if workers == AUTO else _Number(workers, workers)
    pool: list[_Worker] = []
    busy: deque[_Worker] = deque()
    try:
        for task in tasks:
            if number.wanted == 0:
                began = monotonic()
                here = function(task)
                number.worked(monotonic() - began)
                yield here
            elif len(pool) < number.wanted:
                pool.append(_start(function))
                _send(pool[-1], task)
                busy.append(pool[-1])
            else:
                worker = busy.popleft()
                began = monotonic()
                result = _result(worker)
                number.waited(began, monotonic())
                _send(worker, task)
                busy.append(worker)
                yield result
        while busy:
            yield _result(busy.popleft())
    finally:
        for process, connection in pool:
            connection.close()
            process.kill()  # it may be in the middle of a task, whose result nobody waits for any more
        for process, _ in pool:
            process.join()
            process.close()


def most_workers() -> int:
    """How many processes `AUTO` may come to: as many as this one has threads; on a single processor, none helps."""
    return get_num_threads() if len(system.processors()) > 1 else 0


class _Number:
    """How many processes there are to be, from the times of calls here and of waiting for others."""

    def __init__(self, wanted: int, most: int) -> None:
        self.wanted, self.most = wanted, most
        self._seconds, self._results, self._since = 0.0, 0, 0.0

    def worked(self, seconds: float) -> None:
        """A call was made here."""
        self._seconds += seconds
        if self._seconds >= START and self.most > 0:
            self._another()

    def waited(self, began: float, ended: float) -> None:
        """A result came; the first one of each process, which had to start, counts for nothing."""
        self._results += 1
        if self._results == self.wanted:
            self._since, self._seconds = ended, 0.0
        if self._results <= self.wanted:
            return
        self._seconds += ended - began
        passed = ended - self._since
        if passed < ROUND or self._results < 2 * self.wanted:
            return
        if self._seconds > WAITING * passed and self.wanted < self.most:
            self._another()
        else:
            self._since, self._seconds = ended, 0.0

    def _another(self) -> None:
        self.wanted += 1
        self._results = 0


def _start(function: Callable[[Any], Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(function, there), daemon=True)
    with _without_interrupts():
        process.start()
    there.close()
    return process, here


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the block ends, and keep it from a process started in it until that process ignores it."""
    # they are blocked in this thread only: another thread may get the signal, and then this process runs its handler
    main = threading.current_thread() is threading.main_thread()
    waiting: list[int] = []
    try:
        with system.interrupts_blocked():
            before = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number)) if main else None
            try:
                yield
            finally:
                if main:
                    signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    finally:
        if waiting:
            signal.raise_signal(signal.SIGINT)


def _work(function: Callable[[Any], Any], connection: Connection[Any, Any]) -> None:
    """What a worker process runs, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    system.unblock_interrupts()
    try:
        while True:
            task = connection.recv()
            try:
                answer = True, function(task)
            except (DataError, OSError) as error:
                answer = False, error
            except Exception:
                answer = False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
            connection.send(answer)
    except (EOFError, ConnectionError):
        return


def _send(worker: _Worker, task: Any) -> None:
    process, connection = worker
    try:
        connection.send(task)
    except ConnectionError:
        raise _death(process) from None


def _result(worker: _Worker) -> Any:
    process, connection = worker
    try:
        good, value = connection.recv()
    except (EOFError, ConnectionError):
        raise _death(process) from None
    if not good:
        raise value
    return value


def _death(process: SpawnProcess) -> ChildProcessError:
    process.join()
    code = process.exitcode or 0
    how = f"killed by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit status {code}"
    hints = {
        -9: "; perhaps memory ran out",  # SIGKILL, which Windows does not have
        1: "; a script that starts worker processes must do so below a line: if __name__ == '__main__':",
    }
    return ChildProcessError(f"a worker process died: {how}{hints.get(code, '')}")
