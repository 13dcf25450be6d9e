"""``dsr train``: a network by a recipe, and what it leaves in a run folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from dsr import train
from dsr.commands.arguments import Commands, add_changes, add_workers, require_data, seconds
from dsr.files import figures
from dsr.files.lock import FolderLock
from dsr.ops.threads import get_num_threads
from dsr.train import distributed, plots, recipe, run_folder


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a network by a recipe",
        description="Train a network by a recipe and leave a run folder: checkpoints of the last and the best epoch, "
        "metrics (JSON lines and CSV), plots. Ctrl-C saves; --resume goes on as if nothing had happened, bit for bit.",
        epilog="example: dsr train digits --set epochs=5 --set neuron=lif --out runs/try",
    )
    parser.add_argument("recipe", nargs="?", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder or archive of the data set")
    add_changes(parser)
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE, numbered if that exists)")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with an unfinished run")
    parser.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="PATH",
        help="start from the weights of a ReLU network and set thresholds by its activations (hybrid training): a run "
        "folder, or a .safetensors, .npz or .pth file",
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
    parser.set_defaults(command=run, smaller="a smaller width, batch_size, timesteps, image_size or keep_mb (--set)")


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
        raise ValueError(f"train: expected a recipe, one of {', '.join(recipe.names())}, or --resume FOLDER")
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
            trainer.start_from(options.start)
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
    others = {"RECIPE": options.recipe, "--set": options.set, "--out": options.out, "--from": options.start}
    for name, value in others.items():
        if value:
            raise ValueError(f"--resume: {name} cannot be given with it: the run has its own")
    if not (folder / run_folder.CHECKPOINT).exists():
        raise FileNotFoundError(f"--resume: {folder}: expected a run folder, found no {run_folder.CHECKPOINT} in it")
    lock = FolderLock(folder)
    with lock if group.rank == 0 else nullcontext():
        _, chosen, metadata = run_folder.load_run(folder)
        _wait_for_data(group)
        samples = run_folder.load_run_data(chosen, metadata, options.data, options.workers)
        path = options.data or metadata["data_path"]
        trainer = train.Trainer(
            chosen, samples, folder, save_every=options.save_every, data_path=path, group=group, lock=lock
        )
        trainer.resume()
        if trainer.position.epoch == chosen.epochs:
            raise ValueError(
                f"--resume: {folder} is finished: all {chosen.epochs} epochs are done; dsr evaluate {folder} measures "
                "it, and a new run with --set epochs=... trains for longer"
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


def _say_what_was_trained(trainer: train.Trainer, metrics: Mapping[str, Any]) -> None:
    split = run_folder.held_out(trainer.recipe)
    print(f"{split} accuracy {100 * metrics[f'{split}_accuracy']:.2f} %")
    if figures.available():
        plots.run_pictures(trainer.folder, trainer.measured, trainer.held_out)
    else:
        print("no plots: matplotlib is not installed (pip install dsr[plot])")
    print(f"run folder: {trainer.folder}; read it back with: dsr evaluate {trainer.folder}")
