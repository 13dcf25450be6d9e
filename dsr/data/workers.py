"""Calls a function in worker processes: results come in order, a bounded number of tasks runs ahead, nothing hangs.

Each process has its own pipe and at most one task: call ``i`` goes to process ``i % workers``, which gets its next task
when its result is taken. So there are never more results in progress than processes, the order does not depend on which
process is slow, and when one side dies, the pipe ends and the other side sees it.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from dsr import system
from dsr.files.errors import DataError

Task = TypeVar("Task")
Result = TypeVar("Result")

_Worker = tuple[SpawnProcess, Any]
"""A process and the end of its pipe here, a `Connection`, or of another class on Windows."""


def call_ahead(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """``function(task)`` for each task, in order, computed by `workers` processes.

    Parameters
    ----------
    function : callable
        Of a module, or a method of an object that can be pickled.
    tasks : iterable
        Taken as they are needed, one ahead for each process.
    workers : int
        Number of processes, at least 1. They end when the generator does.

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
            process.kill()  # it may be in the middle of a task, whose result nobody waits for any more
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
