"""Ranks that are threads: what training on several of them computes, without MPI."""

import threading

import numpy as np
from patience import patiently

from dsr.train.distributed import Ranks


class Threads:
    """What the ranks of a test share: collective calls put their arrays here, and wait for each other."""

    def __init__(self, size):
        self.size, self.slots, self.barrier = size, [None] * size, threading.Barrier(size, timeout=patiently(60))
        self.sent = [0] * size

    def exchange(self, rank, array):
        self.slots[rank] = array.copy()
        self.barrier.wait()
        found = [slot.copy() for slot in self.slots]
        self.barrier.wait()
        return found


class Communicator:
    """One rank of `Threads`."""

    def __init__(self, shared, rank):
        self.shared, self.rank, self.size = shared, rank, shared.size

    def all_to_all(self, sent):
        self.shared.sent[self.rank] += sent.nbytes // self.size * (self.size - 1)
        return np.stack([other[self.rank] for other in self.shared.exchange(self.rank, sent)])

    def all_gather(self, sent):
        self.shared.sent[self.rank] += sent.nbytes * (self.size - 1)
        return np.stack(self.shared.exchange(self.rank, sent))

    def broadcast(self, array):
        array[:] = self.shared.exchange(self.rank, array)[0]


def on_ranks(size, work):
    """``work(group)`` on each rank; the results in order, or the first error."""
    shared, results, errors = Threads(size), [None] * size, []

    def body(rank):
        try:
            results[rank] = work(Ranks(Communicator(shared, rank)))
        except threading.BrokenBarrierError:
            pass  # another rank has failed
        except BaseException as error:
            errors.append(error)
            shared.barrier.abort()

    ranks = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    if errors:
        raise errors[0]
    return results
