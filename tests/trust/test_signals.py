"""Ctrl-C and SIGTERM at any moment: an answer within a second, and a checkpoint that goes on bit for bit."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from patience import patiently
from signal_at import SignalAt
from small_runs import content, digest, digest_of, recipe_of, samples_of, trainer_of

from dsr import data, ops, train
from dsr.data import ArraySamples, DataSet, Samples
from dsr.files import checkpoint
from dsr.train import recipe, run_folder
from dsr.train import trainer as loops
from dsr.train.build import build_network
from dsr.train.interrupt import Interrupted

# The promise is a second. A machine that runs other things has its own ideas, so a test fails only far beyond it.
LIMIT = patiently(10)


def finished(kind, folder, steps):
    """The digest of a run that goes on from the folder's checkpoint, if its epochs are not done yet."""
    trainer = trainer_of(kind, folder, steps)
    trainer.resume()
    if trainer.position.epoch < trainer.recipe.epochs:
        trainer.fit()
    return digest(folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Digest of the run of four steps, and the lines it takes."""
    folder = tmp_path_factory.mktemp("unbroken")
    trainer = trainer_of("digits", folder, 4)
    with SignalAt(trainer, []) as watch:
        trainer.fit()
    return digest(folder), watch.lines


def stopped_at(folder, numbers, expected):
    """What became of a run with signals at these lines."""
    trainer = trainer_of("digits", folder, 4)
    message = ""
    with SignalAt(trainer, numbers, (signal.SIGINT, signal.SIGTERM)):
        try:
            trainer.fit()
        except Interrupted as stop:
            message = str(stop)
    if message.startswith("stopped by"):  # where handlers were just set, or are about to go
        assert trainer.position.step == 0 or trainer.position.epoch == trainer.recipe.epochs
        if trainer.position.step == 0:
            return "nothing done"
    elif message:
        assert "and saved; go on with: dsr train --resume" in message or message.endswith("is finished")
    assert [path.name for path in folder.iterdir() if "tmp" in path.name] == []
    return "same bits" if finished("digits", folder, 4) == expected else "other bits"


def test_a_signal_at_each_line(tmp_path, unbroken, amount, figure):
    """Each line of the trainer that a run reaches, once; a clock hits the gaps between two of them too rarely."""
    expected, lines = unbroken
    again = {}
    for number, line in enumerate(lines, start=1):
        again.setdefault(line, []).append(number)
    numbers = [found[len(found) // 2] for found in again.values()]
    # where a step that is not done becomes one that is: these lines are always tried
    norm = next(n for n in numbers if lines[n - 1].endswith("gradient_norm"))
    norm = next(n for n in range(norm, len(lines)) if not lines[n].endswith("gradient_norm"))
    between = list(range(norm + 1, norm + 20))
    chosen = between[:: amount(3, 1)]
    rest = sorted(set(numbers) - set(between))
    chosen += random.Random(1).sample(rest, amount(2, len(rest)))
    became = {n: stopped_at(tmp_path / str(n), [n], expected) for n in chosen}
    wrong = {lines[n - 1]: o for n, o in became.items() if o == "other bits" or (o == "nothing done" and n > 10)}
    figure(f"a signal at each of {len(became)} lines: {dict(Counter(became.values()))}")
    assert not wrong


def test_two_signals_in_a_row(tmp_path, unbroken, amount, figure):
    """The second one while the first is answered: the undoing of half a step and the save go on to their end."""
    expected, lines = unbroken
    chance = random.Random(2)
    inside = [n for n, line in enumerate(lines, 1) if line.endswith("gradient_norm")]  # after the passes, before a step
    outcomes = {}
    for count in range(amount(6, 400)):
        first = chance.choice(inside) if count % 2 else chance.randrange(1, len(lines))
        numbers = [first, first + chance.randrange(1, 60)]
        outcomes[tuple(numbers)] = stopped_at(tmp_path / str(count), numbers, expected)
    figure(f"{len(outcomes)} pairs of signals: {dict(Counter(outcomes.values()))}")
    assert "other bits" not in outcomes.values(), [lines[n - 1] for (n, _), o in outcomes.items() if o == "other bits"]


@pytest.fixture(autouse=True)
def _stray_signals():
    """Signals that come when nobody waits for them any more do not stop the tests."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def signals_after(seconds, *numbers):
    """Real signals to this process after a time, 2 ms apart; gives the list of moments at which they were sent."""
    sent, over = [], threading.Event()

    def send():
        for i, number in enumerate(numbers):
            if over.wait(0.002 if i else seconds):
                return
            sent.append(time.monotonic())
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def interrupted_fit(trainer, seconds, *numbers):
    """Fit, with signals so long after training began: the moment of the first one, and what the Trainer said."""
    epoch = trainer._epoch
    with ExitStack() as stack:

        def began():
            nonlocal sent
            trainer._epoch = epoch
            sent = stack.enter_context(signals_after(seconds, *numbers))
            epoch()

        sent, trainer._epoch = [], began
        try:
            trainer.fit()
        except Interrupted as stop:
            return sent[0], str(stop)
        return 0.0, ""


def describe(delays):
    """Median and maximum in words."""
    return (
        f"{len(delays)} moments, answered after {1e3 * statistics.median(delays):.0f} ms in the median, "
        f"{1e3 * max(delays):.0f} ms at most"
    )


@pytest.fixture(scope="module")
def long_run(tmp_path_factory, amount):
    """Steps, digest and seconds of a run that is long enough to be stopped again and again."""
    steps, folder = amount(40, 1200), tmp_path_factory.mktemp("long")
    trainer = trainer_of("digits", folder, steps)
    began = time.monotonic()
    trainer.fit()
    return steps, digest(folder), time.monotonic() - began


@pytest.mark.parametrize("signals", [("SIGINT",), ("SIGINT", "SIGTERM") * 5], ids=["one", "burst"])
def test_random_moments_of_training(tmp_path, long_run, amount, figure, signals):
    """Stopped at random moments again and again, saved each time, and the end is that of an unbroken run."""
    steps, expected, length = long_run
    chance = random.Random(len(signals))
    delays = []
    numbers = [getattr(signal, name) for name in signals]
    while len(delays) < amount(3, 30):
        trainer = trainer_of("digits", tmp_path / "broken", steps)
        if delays:
            trainer.resume()
        sent, message = interrupted_fit(trainer, chance.random() * length / amount(4, 40), *numbers)
        if not message:
            break
        delays.append(time.monotonic() - sent)
        assert "and saved; go on with" in message
        checkpoint.load(tmp_path / "broken" / run_folder.CHECKPOINT)
    assert finished("digits", tmp_path / "broken", steps) == expected
    figure(describe(delays))
    assert max(delays) < LIMIT


def test_a_network_of_long_steps(tmp_path, amount, figure):
    """Steps of about a second: the answer does not wait for the end of the step, only for that of one operation."""
    chosen = ["model=preact_resnet18", f"width={amount(4, 32)}", "batch_size=16", "timesteps=8", "epochs=1000"]
    samples = samples_of("resnet", 24)
    settings = recipe.load("digits", chosen)
    delays, chance = [], random.Random(3)
    trainer = train.Trainer(settings, samples, tmp_path / "run", str)
    images = trainer.training.batch(np.arange(16))
    began = time.monotonic()
    train.compute_gradients(trainer._build(), images, trainer.training.labels[:16])
    step = time.monotonic() - began
    while len(delays) < amount(3, 30):
        trainer = train.Trainer(settings, samples, tmp_path / "run", str)
        if delays:
            trainer.resume()
        sent, message = interrupted_fit(trainer, 1.5 * step * chance.random(), signal.SIGINT)
        delays.append(time.monotonic() - sent)
        assert "and saved; go on with" in message
        arrays, metadata = checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)
        assert metadata["position"]["step"] == trainer.position.step
        assert len(arrays) > 100
    figure(f"steps of {step:.2f} s: {describe(delays)}")
    assert max(delays) < LIMIT


def large_test_set(steps, count):
    """Digits with a test set that takes a while."""
    small, digits = samples_of("digits", steps), data.load("digits").test
    numbers = np.arange(count) % len(digits)
    test = ArraySamples(digits.arrays[numbers], digits.labels[numbers])
    return DataSet("digits", small.classes, small.features, small.train, test)


def test_while_it_measures(tmp_path, amount, figure):
    """In the evaluation of an epoch: the epoch's steps are kept, and a resumed run measures again."""
    settings, samples = recipe_of("digits"), large_test_set(2, 4000)
    train.Trainer(settings, samples, tmp_path / "unbroken", str).fit()
    delays, chance = [], random.Random(4)
    for number in range(amount(1, 20)):
        folder = tmp_path / str(number)
        trainer = train.Trainer(settings, samples, folder, str)
        measure, moment, sent = trainer._measure, 0.05 * chance.random(), []

        def measured(measure=measure, moment=moment, sent=sent):
            with signals_after(moment, signal.SIGINT) as moments:
                try:
                    return measure()
                finally:
                    sent += moments

        trainer._measure = measured
        with pytest.raises(Interrupted, match="stopped in epoch 1 after 1 batches, and saved"):
            trainer.fit()
        delays.append(time.monotonic() - sent[0])
        trainer = train.Trainer(settings, samples, folder, str)
        trainer.resume()
        assert trainer.position.batch == 1
        trainer.fit()
        assert content(folder) == content(tmp_path / "unbroken")
    figure(describe(delays))
    assert max(delays) < LIMIT


def test_without_a_trainer(amount, figure):
    """`dsr evaluate`: Ctrl-C is KeyboardInterrupt, in the middle of a forward pass, and the network is as it was."""
    network = build_network(recipe_of("digits"), (1, 8, 8), 10)
    samples = large_test_set(2, 40_000).test
    before = digest_of(network, samples.arrays[:50])
    delays, chance = [], random.Random(5)
    for _ in range(amount(3, 30)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with signals_after(0.1 * chance.random(), signal.SIGINT) as sent, pytest.raises(KeyboardInterrupt):
            train.accuracy(network, samples)
        delays.append(time.monotonic() - sent[0])
    assert digest_of(network, samples.arrays[:50]) == before
    figure(describe(delays))
    assert max(delays) < LIMIT


def repeat_for_ever(words, weight):
    """A convolution."""
    while True:
        ops.conv2d_spikes(words, weight, None, 1.0, ops.Geometry((3, 3), padding=(1, 1, 1, 1)), 4)


def test_one_long_operation(amount, figure):
    """A convolution cannot be left half way: Ctrl-C waits for its end."""
    batch = amount(8, 64)
    rng = np.random.default_rng(6)
    words = rng.integers(2**32, size=(2, 32, 32, 20, batch), dtype=np.uint32)
    words &= rng.integers(2**32, size=words.shape, dtype=np.uint32)
    weight = rng.normal(size=(64, 64, 3, 3)).astype(np.float32)
    began = time.monotonic()
    ops.conv2d_spikes(words, weight, None, 1.0, ops.Geometry((3, 3), padding=(1, 1, 1, 1)), 4)
    whole = time.monotonic() - began
    delays = []
    for _ in range(amount(2, 10)):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with signals_after(0.1 * whole, signal.SIGINT) as sent, pytest.raises(KeyboardInterrupt):
            repeat_for_ever(words, weight)
        delays.append(time.monotonic() - sent[0])
    figure(f"64 x 64 channels, 32x32, T = 20, {batch} samples, {whole:.2f} s a call: {describe(delays)}")
    assert max(delays) < 3 * whole + LIMIT


class Slow(Samples):
    """Samples of a disk that takes half a minute over one batch, during which a signal comes."""

    def __init__(self, samples, which, number):
        self.samples, self.labels, self.which, self.number, self.count = samples, samples.labels, which, number, 0
        self.sent = []

    def batch(self, numbers, draws=None):
        self.count += 1
        if self.count == self.which:
            with signals_after(0.05, self.number) as self.sent:
                time.sleep(30)
        return self.samples.batch(numbers, draws)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_while_data_are_loaded(tmp_path, figure, number):
    small = samples_of("digits", 8)
    trainer_of("digits", tmp_path / "unbroken", 8).fit()
    slow = Slow(small.train, 4, number)  # the first one is for the fingerprint
    samples = DataSet("digits", small.classes, small.features, slow, small.test)
    with pytest.raises(Interrupted, match="after 2 batches, and saved") as stop:
        train.Trainer(recipe_of("digits"), samples, tmp_path / "run", str).fit()
    delay = time.monotonic() - slow.sent[0]
    assert stop.value.number == number
    assert finished("digits", tmp_path / "run", 8) == digest(tmp_path / "unbroken")
    figure(f"answered after {1e3 * delay:.0f} ms")
    assert delay < LIMIT


def test_more_signals_while_it_saves(tmp_path, monkeypatch, amount, figure):
    """Impatience while the checkpoint is written does not cost it, nor the words that say how to go on."""
    trainer_of("digits", tmp_path / "unbroken", 8).fit()
    fsync, replace, sent = os.fsync, os.replace, 0

    def send():
        nonlocal sent
        if trainer._interrupts._waiting is not None:
            sent += 2
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    def slow_fsync(file):
        send()
        fsync(file)
        send()

    def slow_replace(*names):
        send()
        replace(*names)
        send()

    monkeypatch.setattr(os, "fsync", slow_fsync)
    monkeypatch.setattr(os, "replace", slow_replace)
    for number in range(amount(2, 20)):
        trainer = trainer_of("digits", tmp_path / str(number), 8)
        step = trainer._step

        def stopped(*arguments, step=step, trainer=trainer, number=number):
            if trainer.position.step == number % 8:
                os.kill(os.getpid(), signal.SIGINT)
            step(*arguments)

        trainer._step = stopped
        with pytest.raises(Interrupted, match="and saved; go on with: dsr train --resume"):
            trainer.fit()
        assert sorted(p.name for p in trainer.folder.iterdir() if p.suffix == ".tmp") == []
        assert finished("digits", trainer.folder, 8) == digest(tmp_path / "unbroken")
    figure(f"{amount(2, 20)} saves, {sent} signals during them, 0 checkpoints lost")
    assert sent > 0


def test_a_trainer_goes_on_after_ctrl_c(tmp_path):
    """In a notebook: the same Trainer, fitted again; handlers are those that were there before."""
    trainer_of("digits", tmp_path / "unbroken", 20).fit()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    trainer = trainer_of("digits", tmp_path / "run", 20)
    for _ in range(5):
        with signals_after(0.02, signal.SIGINT, signal.SIGINT):
            try:
                trainer.fit()
                break
            except Interrupted:
                assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    if trainer.position.epoch < 2:
        trainer.fit()
    assert digest(tmp_path / "run") == digest(tmp_path / "unbroken")


def test_a_signal_that_python_swallows(tmp_path):
    """What a destructor raises is only printed; the signal is answered at the end of the step all the same."""

    class Sender:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)

    trainer = trainer_of("digits", tmp_path / "run", 8)
    norm, calls = loops.gradient_norm, 0

    def destroying(parameters):
        nonlocal calls
        calls += 1
        if calls == 3:
            Sender()
        return norm(parameters)

    swallowed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda what: swallowed.append(what.exc_type))
        patch.setattr(loops, "gradient_norm", destroying)
        with pytest.raises(Interrupted, match="after 3 batches, and saved"):
            trainer.fit()
    assert swallowed == [Interrupted]


def test_while_the_command_starts(tmp_path, amount, figure):
    """From the first moment on: a line or a traceback, never a checkpoint that is not whole."""
    program = "import sys; from dsr.__main__ import main; sys.exit(main(sys.argv[1:]))"
    statuses, chance, lost = Counter(), random.Random(7), 0
    for count in range(amount(2, 30)):
        folder = tmp_path / str(count)
        words = ["train", "digits", "--set", "epochs=1000", "--set", "width=8", "--out", str(folder)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, *words], stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
        )
        time.sleep(chance.random() * 1.5)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:  # Python ignores one that comes in its bookkeeping of imports
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=LIMIT)
            assert "Exception ignored in" in error and "importlib" in error
            lost += 1
        saved = (folder / run_folder.CHECKPOINT).exists()
        if saved:
            checkpoint.load(folder / run_folder.CHECKPOINT)
        # NumPy makes an ImportError of one that comes while its compiled part is loaded
        assert process.returncode in (130, -signal.SIGINT) or (
            process.returncode == 1 and "KeyboardInterrupt" in error
        ), error
        if process.returncode == 130:
            assert error.splitlines()[-1].startswith("dsr: ")
            assert ("and saved" in error) == saved
        statuses["saved" if saved else "nothing to save"] += 1
    figure(f"{statuses.total()} moments: {dict(statuses)}, {lost} lost by Python")
