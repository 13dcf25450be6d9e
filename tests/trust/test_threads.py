"""Python threads: a shared network answers as it does alone, networks of their own train as they do alone."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_runs import KINDS, digest, recipe_of, samples_of, trainer_of

import dsr
from dsr import _core, functional, train
from dsr.train.build import build_network

THREADS = 4


@pytest.fixture(autouse=True)
def _often():
    """Threads take turns as often as they can, so that they meet in the middle of everything."""
    before, count = sys.getswitchinterval(), _core.threads()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
    _core.set_threads(count)


def together(work, count=THREADS):
    """``work(number)`` in so many threads, which begin at the same time; results in order, or the first error."""
    begin = threading.Barrier(count)

    def started(number):
        begin.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(900) for future in [pool.submit(started, number) for number in range(count)]]


def network_of(kind):
    """A network of a kind after a step of training, so with running statistics of its own, and data for it."""
    samples = samples_of(kind, 8)
    network = build_network(recipe_of(kind), samples.features, 10)
    images, labels = samples.train.batch(np.arange(16)), samples.train.labels[:16]
    optimizer = dsr.SGD(network.parameters(), 0.1)
    train.train_step(network, optimizer, images, labels)
    return network, samples.train


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_network(amount, figure, kind, threads):
    """Batches of different sizes at the same time; half of the calls have an observer, which makes other ways."""
    _core.set_threads(threads)
    network, samples = network_of(kind)
    batches = [samples.batch(np.arange(first, first + 1 + first % 5)) for first in range(6)]
    alone = [network.forward(batch) for batch in batches]
    rates = [dsr.spike_rates(network, batch) for batch in batches]
    state = network.state()
    calls = amount(200, 10000) // (len(KINDS) * 2)

    def ask(number):
        wrong = 0
        for call in range(calls // THREADS):
            which = (call * 5 + number * 3) % len(batches)
            wrong += not np.array_equal(network.forward(batches[which]), alone[which])
            if call % 4 == 0:
                wrong += dsr.spike_rates(network, batches[which]) != rates[which]
        return wrong

    wrong = sum(together(ask))
    for name, array in network.state().items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
    figure(f"{calls // THREADS * THREADS} calls from {THREADS} threads, {wrong} with other bits")
    assert wrong == 0


def test_threads_come_and_go(amount, figure):
    """Each call from a thread that is new and ends after it, as in servers: teams of OpenMP threads do not pile up."""
    _core.set_threads(2)
    network, samples = network_of("digits")
    batch = samples.batch(np.arange(64) % 32)
    alone = network.forward(batch)

    def native():
        with open("/proc/self/status", encoding="ascii") as status:
            return int(next(line.split()[1] for line in status if line.startswith("Threads:")))

    answers = []
    counts = []
    for _ in range(amount(20, 1000)):
        thread = threading.Thread(target=lambda: answers.append(network.forward(batch)))
        thread.start()
        thread.join()
        counts.append(native() if sys.platform == "linux" else 0)
    assert all(np.array_equal(answer, alone) for answer in answers)
    figure(
        f"{len(answers)} threads, native threads of the process: {counts[0]} after the first, {counts[-1]} at the end"
    )
    assert max(counts[2:]) <= counts[0] + 4


@pytest.mark.parametrize("own", [1, 2])
def test_each_thread_trains_a_network_of_its_own(tmp_path, amount, figure, own):
    """Different kinds of networks side by side, each as if it were alone, its checkpoints included."""
    _core.set_threads(own)
    kinds = ["digits_lif", "digits_muon", "vgg", "cifar_fast"] if own == 1 else ["digits"] * THREADS
    steps = amount(2, 40)
    alone = {}
    for kind in set(kinds):
        trainer_of(kind, tmp_path / f"alone-{kind}", steps).fit()
        alone[kind] = digest(tmp_path / f"alone-{kind}")
    rounds = amount(1, 5)
    same = 0
    for count in range(rounds):
        trainers = [trainer_of(kind, tmp_path / f"{count}-{n}", steps) for n, kind in enumerate(kinds)]
        together(lambda number, trainers=trainers: trainers[number].fit())
        same += sum(digest(tmp_path / f"{count}-{n}") == alone[kind] for n, kind in enumerate(kinds))
    figure(f"{same} of {rounds * THREADS} runs of {steps} steps have the bits of a run alone")
    assert same == rounds * THREADS


def test_inference_beside_training(amount):
    """A thread trains one network while others ask another one."""
    network, samples = network_of("digits_lif")
    batch = samples.batch(np.arange(8))
    alone = network.forward(batch)
    own, data = network_of("digits")
    optimizer = dsr.SGD(own.parameters(), 0.01)
    images, labels = data.batch(np.arange(16)), data.labels[:16]

    def work(number):
        if number:
            return [network.forward(batch) for _ in range(amount(10, 500))]
        return [train.train_step(own, optimizer, images, labels)[0] for _ in range(amount(5, 250))]

    losses, *answers = together(work)
    assert all(np.array_equal(answer, alone) for one in answers for answer in one)
    again, data = network_of("digits")
    optimizer = dsr.SGD(again.parameters(), 0.01)
    assert [train.train_step(again, optimizer, images, labels)[0] for _ in losses] == losses


def test_errors_stay_in_their_thread(amount, figure):
    """Every other call is wrong in a way of its own: each thread gets the words about its own argument."""
    network, samples = network_of("digits")
    good = samples.batch(np.arange(4))
    alone = network.forward(good)
    calls = amount(20, 1000)

    def work(number):
        messages = set()
        for call in range(calls):
            if call % 2:
                assert np.array_equal(network.forward(good), alone)
                continue
            with pytest.raises(ValueError, match="Conv2d conv1") as error:
                network.forward(np.zeros((2, number + 2, 8, 8), np.float32))
            messages.add(str(error.value))
            with pytest.raises(ValueError, match="v_threshold") as error:
                functional.if_forward(np.zeros((3, 4)), v_threshold=-1.0 - number)
            messages.add(str(error.value))
        return messages

    for number, messages in enumerate(together(work)):
        assert len(messages) == 2
        assert any(f"got ({number + 2}, 8, 8)" in message for message in messages)
        assert any(f"{-1.0 - number}" in message for message in messages)
    figure(f"{THREADS} threads, {calls} errors each, none in another thread")


def test_the_number_of_threads_changes_during_calls(amount):
    """`set_num_threads` from one thread while others are in the middle of operations."""
    network, samples = network_of("digits")
    batch = samples.batch(np.arange(64) % 32)
    alone = network.forward(batch)

    def work(number):
        wrong = 0
        for call in range(amount(10, 500)):
            if number == 0:
                dsr.set_num_threads(1 + call % 4)
            wrong += not np.array_equal(network.forward(batch), alone)
        return wrong

    assert together(work) == [0] * THREADS
