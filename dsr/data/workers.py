"""Calls of a function in other processes: results in order, a bounded number ahead, and nothing that can hang.

Each process has a pipe of its own and at most one task: call ``i`` goes to process ``i % workers``, which gets its next
task when its result is taken. So no more results are under way than there are processes, whichever process is slow the
order is the same, and the death of either side ends the pipe, which the other one sees.

The processes are started afresh ("spawn"): a fork would copy the state of the threads of OpenMP, and hang.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from dsr.files.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_Worker = tuple[SpawnProcess, "Connection[Any, Any]"]


def call_ahead(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """``function(task)`` for each task, in order, computed by `workers` processes.

    Parameters
    ----------
    function : callable
        Of a module, or a method of an object that can be pickled.
    tasks : iterable
        Taken as they are needed, one a process ahead.
    workers : int
        Processes, at least 1. They end with the generator.

    Raises
    ------
    DataError, OSError
        What the function raised; any other error of it comes as a RuntimeError with its traceback.
    ChildProcessError
        A process died.
    """
    pool: list[_Worker] = []
    busy: deque[_Worker] = deque()
    try:
        for task in tasks:
            if len(pool) < workers:
                pool.append(_start(function))
                _send(pool[-1], task)
                busy.append(pool[-1])
            else:
                worker = busy.popleft()
                result = _result(worker)
                _send(worker, task)
                busy.append(worker)
                yield result
        while busy:
            yield _result(busy.popleft())
    finally:
        for process, connection in pool:
            connection.close()
            process.kill()  # it has nothing to lose, and may be in the middle of a task that nobody waits for
        for process, _ in pool:
            process.join()
            process.close()


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
    """Ctrl-C waits for the end, and a process that is started here does not get it before it can ignore it."""
    resource_tracker.ensure_running()  # else the start of a process does it, and lets interrupts through after that
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what the new process inherits
    # the mask is of this thread only: another one may take the signal, for which this process then runs its handler
    main = threading.current_thread() is threading.main_thread()
    waiting: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number)) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if waiting:
            signal.raise_signal(signal.SIGINT)


def _work(function: Callable[[Any], Any], connection: Connection[Any, Any]) -> None:
    """The life of a worker: it ends when the other side of the pipe does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
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
        -signal.SIGKILL: "; perhaps memory ran out",
        1: "; a script that starts worker processes must do so below a line: if __name__ == '__main__':",
    }
    return ChildProcessError(f"a worker process died: {how}{hints.get(code, '')}")
