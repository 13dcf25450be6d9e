"""Processes made by a process that has used the compiled part with several threads.

As a script: ``processes.py SCENARIO COUNT`` prints a line of JSON. A child that hangs is ended by its alarm.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from small_runs import digest, digest_of, recipe_of, samples_of, trainer_of

import dsr
from dsr.train.build import build_network

LIMIT = int(60 * float(os.environ.get("DSR_PATIENCE", "1")))
"""Seconds after which a child is taken to hang."""
KIND = "digits_lif"


class Work:
    """Something to compute: inference of a network that is there already, and training of a new one."""

    def __init__(self) -> None:
        samples = samples_of(KIND, 8)
        self.network = build_network(recipe_of(KIND), samples.features, 10)
        self.images = samples.train.batch(np.arange(64) % 16)

    def infer(self) -> str:
        """Digest of the output; a batch of 64 is large enough for a team of threads."""
        return digest_of(self.network, self.images)

    def train(self) -> str:
        """Digest of all that a short run leaves."""
        with tempfile.TemporaryDirectory() as folder:
            trainer_of(KIND, Path(folder), 4).fit()
            return digest(Path(folder))


def child(pipe: Any = None) -> tuple[int, str, str]:
    """The work in a process of its own: threads, and digests of inference and training."""
    signal.alarm(LIMIT)
    work = Work()
    found = dsr.get_num_threads(), work.infer(), work.train()
    if pipe is not None:
        pipe.send(found)
    return found


def task(number: int) -> str:
    """A task of a pool."""
    signal.alarm(LIMIT)
    return Work().infer()


def forked(work: Callable[[], object]) -> str:
    """What became of a forked child."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LIMIT)
        try:
            os._exit(0 if work() else 3)
        except BaseException as error:
            print(f"in a child: {error!r}", file=sys.stderr, flush=True)
            os._exit(4)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "hangs" if os.WTERMSIG(status) == signal.SIGALRM else signal.Signals(os.WTERMSIG(status)).name
    return {0: "right", 3: "other bits", 4: "error"}[os.WEXITSTATUS(status)]


def methods(count: int, work: Work, expected: tuple[str, str]) -> dict[str, Any]:
    """Each way of `multiprocessing` to make a process."""
    outcome: dict[str, Any] = {}
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        became: Counter[str] = Counter()
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=child, args=(there,))
            process.start()
            there.close()
            process.join()
            if process.exitcode == -signal.SIGALRM:
                became["hangs"] += 1
            elif process.exitcode or not here.poll():
                became[f"status {process.exitcode}"] += 1
            else:
                threads, *digests = here.recv()
                became["right" if tuple(digests) == expected else "other bits"] += 1
                outcome[f"{method}, threads"] = threads
        outcome[method] = dict(became)
    return outcome


def pool(count: int, work: Work, expected: tuple[str, str]) -> dict[str, Any]:
    """Pools of forked workers, as data loaders keep them."""
    with multiprocessing.get_context("fork").Pool(3) as workers:
        found = workers.map_async(task, range(count), chunksize=1).get(LIMIT)
    return {"right": found.count(expected[0]), "of": count}


def busy(count: int, work: Work, expected: tuple[str, str]) -> dict[str, Any]:
    """Forks while other threads are in the middle of operations, whose locks a child would find taken."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            work.network.forward(work.images)

    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    became: Counter[str] = Counter()
    for number in range(count):
        became[forked(lambda n=number: work.infer() == expected[0] and (n % 10 or work.train() == expected[1]))] += 1
        if became["hangs"]:
            break
    over.set()
    for thread in threads:
        thread.join()
    return dict(became)


def families(count: int, work: Work, expected: tuple[str, str]) -> dict[str, Any]:
    """Children of children, children of threads, threads of children, and children that want threads again."""

    def same() -> bool:
        return work.infer() == expected[0]

    def with_threads() -> bool:
        dsr.set_num_threads(2)
        return same() and work.train() == expected[1]

    def in_thread(function: Callable[[], object]) -> object:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(function()))
        thread.start()
        thread.join()
        return found[0]

    def used_and_forked() -> str:
        return forked(same) if same() else "other bits"

    outcome: dict[str, Any] = {
        "child": forked(same),
        "child of a child": forked(lambda: forked(same) == "right"),
        "child of a thread": in_thread(lambda: forked(same)),
        "child of a thread that had a team": in_thread(used_and_forked),
        "thread of a child": forked(lambda: in_thread(same)),
        "thread of a child, 2 threads": forked(lambda: dsr.set_num_threads(2) or in_thread(same)),
        "this process, afterwards": "right" if same() and work.train() == expected[1] else "other bits",
        "child with 2 threads": forked(with_threads),
    }
    return outcome


def main(scenario: str, count: str) -> None:
    """Run one scenario."""
    dsr.set_num_threads(4)
    work = Work()
    expected = work.infer(), work.train()
    run = {"methods": methods, "pool": pool, "busy": busy, "families": families}[scenario]
    print(json.dumps(run(int(count), work, expected)))


if __name__ == "__main__":
    main(*sys.argv[1:])
