"""``dsr train``: a network by a recipe, and what it leaves in a run folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from dsr import train
from dsr.commands.arguments import CODE, Commands, add_changes, add_workers, require_data, seconds
from dsr.data.guess import guess
from dsr.files import figures
from dsr.files.lock import FolderLock
from dsr.ops.threads import get_num_threads
from dsr.train import distributed, memory, plots, recipe, run_folder


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a network by a recipe",
        description="Train a network by a recipe and leave a run folder: checkpoints of the last and the best epoch, "
        "metrics (JSON lines and CSV), plots. Ctrl-C saves; --resume goes on as if nothing had happened, bit for bit.",
        epilog=f"example: dsr train digits --set epochs=5 --set neuron=lif --out runs/try. {CODE}",
    )
    parser.add_argument("recipe", nargs="?", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder, archive or .npz file of the data set")
    add_changes(parser)
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE, numbered if that exists)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FOLDER",
        help="go on with an unfinished run; with --set epochs=N also with a finished one, whose schedule is then of N "
        "epochs",
    )
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="PATH",
        help="start from the weights of a network, in a run folder or a .safetensors, .npz or .pth file: of spiking "
        "neurons of the same kind with their thresholds, of ReLU with thresholds by its activations (hybrid training)",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="with --from: take the arrays that fit and print which; a new head has its initial values",
    )
    parser.add_argument(
        "--save-every",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="between checkpoints in an epoch (default: 300)",
    )
    add_workers(parser)
    parser.add_argument(
        "--mpi",
        action="store_true",
        help="ask MPI for other processes (mpirun and mpiexec are seen without it): each takes its part of every batch",
    )
    parser.set_defaults(
        command=run, smaller="accumulate = K, or a smaller width, batch_size, timesteps, image_size or keep_mb (--set)"
    )


def run(options: Namespace) -> int:
    """Train, on all ranks that there are."""
    with distributed.join(options.mpi) as group:
        make = _resumed if options.resume else _new
        with make(options, group) as trainer:
            if group.rank == 0:
                group.barrier()
                _say_what_is_trained(trainer)
            metrics = trainer.fit()
            if group.rank == 0:
                _say_what_was_trained(trainer, metrics)
    return 0


@contextmanager
def _new(options: Namespace, group: distributed.Group) -> Iterator[train.Trainer]:
    """A new run, in a folder of its own."""
    if options.recipe is None:
        if options.data:
            raise ValueError(f"train: expected a recipe. {what_to_do(options.data)}")
        raise ValueError(f"train: expected a recipe, one of {', '.join(recipe.names())}, or --resume FOLDER")
    if options.partial and options.start is None:
        raise ValueError("--partial: expected --from with it, got none")
    chosen = recipe.load(options.recipe, options.set)
    require_data(chosen, options.data)
    with _taken(options, group) as lock:
        _wait_for_data(group)
        samples = run_folder.load_data(chosen, options.data, options.workers)
        trainer = train.Trainer(
            chosen,
            samples,
            lock.folder,
            save_every=options.save_every,
            data_path=options.data,
            group=group,
            lock=lock,
        )
        if options.start is not None:
            trainer.start_from(options.start, strict=not options.partial)
        for line in recipe.without_effect(chosen, started=options.start is not None):
            trainer.say(f"note: {line}")
        yield trainer


@contextmanager
def _taken(options: Namespace, group: distributed.Group) -> Iterator[FolderLock]:
    """The folder of a new run, locked by rank 0; one that was made for it is removed if the run leaves it empty."""
    default = Path("runs", Path(options.recipe).stem)
    if group.rank > 0:
        yield FolderLock(options.out or default)
        return
    made = options.out is None or not options.out.exists()
    lock = FolderLock(options.out or _numbered(default))
    try:
        with lock:
            if (lock.folder / run_folder.CHECKPOINT).exists():
                raise ValueError(f"--out: {lock.folder} holds a run already; --resume {lock.folder} goes on with it")
            yield lock
    finally:
        if made:
            with suppress(OSError):
                lock.folder.rmdir()


def _numbered(folder: Path) -> Path:
    """A new folder of this name, or with -2, -3, ...; whoever makes it has it."""
    number, path = 1, folder
    while True:
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
            path = folder.with_name(f"{folder.name}-{number}")


@contextmanager
def _resumed(options: Namespace, group: distributed.Group) -> Iterator[train.Trainer]:
    """An unfinished run, where it was."""
    folder = options.resume
    others = {"RECIPE": options.recipe, "--out": options.out, "--from": options.start, "--partial": options.partial}
    for name, value in others.items():
        if value:
            raise ValueError(f"--resume: {name} cannot be given with it: the run has its own")
    if other := [change for change in options.set if change.partition("=")[0].strip() != "epochs"]:
        raise ValueError(f"--resume: only --set epochs=N can be given with it, got --set {other[0]}")
    if not (folder / run_folder.CHECKPOINT).exists():
        raise FileNotFoundError(f"--resume: {folder}: expected a run folder, found no {run_folder.CHECKPOINT} in it")
    lock = FolderLock(folder)
    with lock if group.rank == 0 else nullcontext():
        _, chosen, metadata = run_folder.load_run(folder, say=str)  # the trainer says what has changed
        chosen = recipe.changed(chosen, options.set)
        _wait_for_data(group)
        samples = run_folder.load_run_data(chosen, metadata, options.data, options.workers, keep=True)
        trainer = train.Trainer(
            chosen,
            samples,
            folder,
            save_every=options.save_every,
            data_path=options.data or metadata["data_path"],
            build=run_folder.build_of(chosen, metadata),
            group=group,
            lock=lock,
        )
        trainer.resume()
        if trainer.position.epoch == chosen.epochs:
            raise ValueError(
                f"--resume: {folder} is finished: all {chosen.epochs} epochs are done; dsr evaluate {folder} measures "
                "it, and --set epochs=N with more than these goes on"
            )
        trainer.say(f"resumed after {trainer.position.epoch} epochs and {trainer.position.batch} batches")
        yield trainer


def _wait_for_data(group: distributed.Group) -> None:
    """On other ranks: until rank 0 has decoded the data, into a cache where there is one."""
    if group.rank > 0:
        group.barrier()


def _say_what_is_trained(trainer: train.Trainer) -> None:
    weights = sum(parameter.value.size for _, parameter in trainer.network.parameters())
    chosen, samples = trainer.recipe, trainer.data
    print(
        f"{chosen.model} on {samples.name}: {weights:,} parameters, {chosen.neuron.upper()} neurons, T = "
        f"{chosen.timesteps}, {len(trainer.training):,} training and {len(trainer.held_out):,} "
        f"{run_folder.held_out(chosen)} samples"
    )
    if trainer.group.size > 1:
        print(f"{trainer.group.size} ranks, threads of this one: {get_num_threads()}")
    print(memory.require_room(trainer))


def _say_what_was_trained(trainer: train.Trainer, metrics: Mapping[str, Any]) -> None:
    split, metric, folder = run_folder.held_out(trainer.recipe), trainer.metric, trainer.folder
    assert folder is not None
    print(f"{split} {metric.title} {metric.text(metrics[trainer.best_by])} after the last epoch, {metrics['epoch']}")
    best = metric.sign * trainer.position.best
    if best != metrics[trainer.best_by]:
        print(f"best epoch: {metric.text(best)}" + ("" if split == "validation" else f"; {run_folder.OPTIMISTIC}"))
    if figures.available():
        plots.run_pictures(folder, trainer.measured, trainer.held_out, classes=trainer.data.classes)
    else:
        print("no plots: matplotlib is not installed (pip install dsr[plot])")
    print(f"run folder: {folder}; read it back with: dsr evaluate {folder}")


def what_to_do(path: Path) -> str:
    """What somebody who has data and no recipe may do next: how to get one that fits the data."""
    if not path.exists():
        return f"--data: {path} does not exist"
    kind = guess(path)
    if kind is None:
        return (
            f"--data: {path} is neither a file of arrays (.npz) nor a folder of images or recordings; a function of "
            'your own can read it: data = "mydata.py:load" in a recipe'
        )
    what = {"arrays": "an array file", "images": "a folder of images", "recordings": "a folder of recordings"}[kind]
    return (
        f"--data: {path} looks like {what}; get a recipe for it with: dsr recipe {kind} > my.toml, change it where "
        f"its comments say so, and train with: dsr train my.toml --data {path}"
    )
