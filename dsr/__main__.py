"""The command line: ``dsr info``, ``dsr train``, ``dsr evaluate``, ``dsr inspect``, ``dsr bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any, get_args

import numpy as np

import dsr
from dsr import train
from dsr.files import atomic, figures
from dsr.info import describe
from dsr.ops.memory import keep_freed_memory
from dsr.ops.threads import get_num_threads
from dsr.train import distributed, plots, recipe, run_folder
from dsr.train.build import build_network
from dsr.train.interrupt import Interrupted
from dsr.train.views import Views


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log in a file shows each line as it comes
    try:
        return int(options.run(options))
    except Interrupted as stop:
        print(f"dsr: {stop}", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        print("dsr: interrupted", file=sys.stderr)
        return 130
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        print(f"dsr: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dsr", description="Spiking neural networks on the CPU you have.")
    parser.add_argument("--version", action="version", version=f"dsr {dsr.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="version, instruction level, threads, BLAS")
    info.set_defaults(run=_info)

    training = commands.add_parser(
        "train",
        help="train a network by a recipe",
        description="Train a network by a recipe and leave a run folder: checkpoints of the last and the best epoch, "
        "metrics (JSON lines and CSV), plots. Ctrl-C saves; --resume goes on as if nothing had happened, bit for bit.",
        epilog="example: dsr train digits --set epochs=5 --set neuron=lif --out runs/try",
    )
    training.add_argument("recipe", nargs="?", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    training.add_argument("--data", type=Path, metavar="PATH", help="folder or archive of the data set")
    training.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one value of the recipe; repeatable"
    )
    training.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE, numbered if that exists)")
    training.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with an unfinished run")
    training.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="PATH",
        help="start from the weights of a ReLU network and set thresholds by its activations (hybrid training): a run "
        "folder, or a .safetensors, .npz or .pth file",
    )
    training.add_argument(
        "--save-every",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="between checkpoints in an epoch (default: 300)",
    )
    training.add_argument("--workers", type=int, default=0, help="processes that decode images of folders (default: 0)")
    training.add_argument(
        "--mpi",
        action="store_true",
        help="ask MPI for other processes (mpirun and mpiexec are seen without it): each takes its part of every batch",
    )
    training.set_defaults(run=_train)

    download = commands.add_parser("download", help="get a data set from its authors' site")
    download.add_argument("name", choices=["cifar10", "cifar100"])
    download.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    download.set_defaults(run=_download)

    evaluation = commands.add_parser("evaluate", help="test accuracy of a run folder")
    evaluation.add_argument("folder", type=Path, help="run folder of dsr train")
    evaluation.add_argument("--data", type=Path, metavar="PATH", help="(default: where the run had it from)")
    evaluation.add_argument("--timesteps", type=int, help="another T than trained with")
    evaluation.add_argument("--best", action="store_true", help="the checkpoint of the best epoch, not the last")
    evaluation.add_argument(
        "--views",
        choices=get_args(Views),
        help="mean output over each image, its mirror image, and both shifted by a pixel (default: as in the recipe)",
    )
    evaluation.add_argument("--workers", type=int, default=0, help="processes that decode images (default: 0)")
    evaluation.set_defaults(run=_evaluate)

    looking = commands.add_parser(
        "inspect",
        help="what a trained network does: firing, errors, operations, energy",
        description="Firing rates, dead and saturated neurons and representation errors of each spiking layer; "
        "synaptic operations and an estimate of energy; errors and accuracy with other T and alpha.",
    )
    looking.add_argument("folder", type=Path, help="run folder of dsr train")
    looking.add_argument("--data", type=Path, metavar="PATH", help="(default: where the run had it from)")
    looking.add_argument("--best", action="store_true", help="the checkpoint of the best epoch, not the last")
    looking.add_argument("--samples", type=int, default=256, help="test samples, evenly spread (default: 256)")
    looking.add_argument("--timesteps", type=int, nargs="+", help="T of the error curves (default: 1 2 5 10 20)")
    looking.add_argument("--alpha", type=float, nargs="+", help="alphas of the error curves (default: as trained)")
    looking.add_argument("--workers", type=int, default=0, help="processes that decode images (default: 0)")
    looking.add_argument("--json", action="store_true", help="print JSON instead of tables")
    looking.add_argument("--out", type=Path, metavar="FOLDER", help="write report.json and pictures there")
    looking.set_defaults(run=_inspect)

    listing = commands.add_parser(
        "summary",
        help="layers, shapes, parameters and operations of a network",
        description="A line a layer: output shape, parameters, multiply-adds of a sample and time step.",
    )
    listing.add_argument("what", help="a recipe, or a run folder")
    listing.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of dsr train")
    listing.add_argument("--features", type=int, nargs=3, metavar=("C", "H", "W"), help="of a recipe without --data")
    listing.add_argument("--classes", type=int, default=10, help="of a recipe without --data (default: 10)")
    listing.add_argument("--data", type=Path, metavar="PATH", help="folder or archive of the data set")
    listing.add_argument("--spikes", action="store_true", help="also firing rates and operations on 32 test samples")
    listing.set_defaults(run=_summary)

    export = commands.add_parser(
        "export",
        help="a run as a NIR graph, for neuromorphic hardware and other simulators",
        description="Write the network of a run as a NIR graph (Neuromorphic Intermediate Representation, HDF5).",
    )
    export.add_argument("folder", type=Path, help="run folder of dsr train")
    export.add_argument("--best", action="store_true", help="the checkpoint of the best epoch, not the last")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as network.nir")
    export.add_argument("--delta-t", type=float, help="time step of the reader (default: that of LIF layers, or 1)")
    export.add_argument("--euler", action="store_true", help="the reader takes Euler steps: fit time constants to it")
    export.add_argument("--diagonal", action="store_true", help="the reader knows no Scale: write 1x1 weights instead")
    export.set_defaults(run=_export)

    bench = commands.add_parser("bench", help="measure kernels, or whole steps", description="Measure on this machine.")
    kinds = bench.add_subparsers(required=True, metavar="WHAT")
    kernels = kinds.add_parser(
        "kernels",
        help="convolutions and neurons",
        description="Speed of kernels per level and number of threads, beside a GEMM (OpenBLAS) and, where it is "
        "installed, PyTorch.",
    )
    kernels.add_argument("--density", type=float, default=0.1, help="share of bits that are set (default: 0.1)")
    kernels.add_argument("--batch", type=int, default=128, help="samples; T is 5 (default: 128, 640 lanes)")
    kernels.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    kernels.add_argument("--levels", nargs="+", help="(default: all there are)")
    kernels.set_defaults(run=_bench_kernels)
    step = kinds.add_parser(
        "step",
        help="training and evaluation steps of a model",
        description="Median seconds of a training step and an evaluation step, and peak memory, for each T.",
    )
    step.add_argument("--model", default="preact_resnet18", help="(default: preact_resnet18)")
    step.add_argument("--neuron", choices=["if", "lif"], default="if", help="(default: if)")
    step.add_argument("--timesteps", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="(default: 1 2 5 10 20)")
    step.add_argument("--batch", type=int, default=16, help="samples of a step (default: 16)")
    step.set_defaults(run=_bench_step)
    for kind in (kernels, step):
        kind.add_argument("--repeats", type=int, default=5, help="measurements of each (default: 5)")
        kind.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _info(options: argparse.Namespace) -> int:
    print(describe())
    return 0


def _train(options: argparse.Namespace) -> int:
    with distributed.join(options.mpi) as group:
        if group.rank > 0:
            group.barrier()  # until rank 0 has decoded the data, into a cache where there is one
        trainer = _resumed(options, group) if options.resume else _new_run(options, group)
        if group.rank == 0:
            group.barrier()
            _say_what_is_trained(trainer)
        metrics = trainer.fit()
        if group.rank == 0:
            _say_what_was_trained(trainer, metrics)
    return 0


def _say_what_is_trained(trainer: train.Trainer) -> None:
    count = sum(parameter.value.size for _, parameter in trainer.network.parameters())
    chosen, samples = trainer.recipe, trainer.data
    print(
        f"{chosen.model} on {samples.name}: {count:,} parameters, {chosen.neuron.upper()} neurons, T = "
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


def _new_run(options: argparse.Namespace, group: distributed.Group) -> train.Trainer:
    if options.recipe is None:
        raise ValueError(f"train: expected a recipe, one of {', '.join(recipe.names())}, or --resume FOLDER")
    chosen = recipe.load(options.recipe, options.set)
    folder = options.out or _free_folder(Path("runs"), Path(options.recipe).stem)
    if (folder / run_folder.CHECKPOINT).exists():
        raise ValueError(f"--out: {folder} holds a run already; --resume {folder} goes on with it")
    samples = run_folder.load_data(chosen, options.data, options.workers)
    trainer = train.Trainer(chosen, samples, folder, save_every=options.save_every, data_path=options.data, group=group)
    if options.start is not None:
        trainer.start_from(options.start)
    return trainer


def _resumed(options: argparse.Namespace, group: distributed.Group) -> train.Trainer:
    for name, value in (("RECIPE", options.recipe), ("--set", options.set), ("--out", options.out)):
        if value:
            raise ValueError(f"--resume: {name} cannot be given with it: the run has its own")
    _, chosen, metadata = run_folder.load_run(options.resume)
    path = options.data or metadata["data_path"]
    samples = run_folder.load_data(chosen, path, options.workers)
    trainer = train.Trainer(chosen, samples, options.resume, save_every=options.save_every, data_path=path, group=group)
    trainer.resume()
    if trainer.position.epoch == chosen.epochs:
        raise ValueError(f"--resume: {options.resume} is finished: all {chosen.epochs} epochs are done")
    trainer.say(f"resumed after {trainer.position.epoch} epochs and {trainer.position.batch} batches")
    return trainer


def _download(options: argparse.Namespace) -> int:
    from dsr.data.cifar import download_cifar

    archive = download_cifar(options.name, options.out)
    print(f"{archive}; train with: dsr train {options.name}-if --data {archive}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    network, chosen, metadata = run_folder.load_run(options.folder, best=options.best, timesteps=options.timesteps)
    samples = run_folder.load_data(
        replace(chosen, timesteps=network.timesteps), options.data or metadata["data_path"], options.workers
    )
    reached = train.accuracy(network, samples.test, chosen.batch_size, options.views or chosen.test_views)
    print(f"test accuracy {100 * reached:.2f} %")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from dsr import inspect
    from dsr.inspect import plots

    if options.samples < 1:
        raise ValueError(f"--samples: expected a number >= 1, got {options.samples}")
    network, chosen, metadata = run_folder.load_run(options.folder, best=options.best)
    samples = run_folder.load_data(chosen, options.data or metadata["data_path"], options.workers).test
    count = min(options.samples, len(samples))
    numbers = np.arange(count) * len(samples) // count  # all classes, also where a test set is in their order
    images, labels = samples.batch(numbers), samples.labels[numbers]
    curves = inspect.error_curves(network, images, labels, timesteps=options.timesteps, alphas=options.alpha or [None])
    report = replace(inspect.measure(network, images, labels), curves=curves)
    print(json.dumps(report.to_dict(), indent=1) if options.json else report.text())
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        atomic.write(options.out / "report.json", (json.dumps(report.to_dict(), indent=1) + "\n").encode())
        if figures.available():
            plots.pictures(report, options.out)
        else:
            print("no pictures: matplotlib is not installed (pip install dsr[plot])", file=sys.stderr)
    return 0


def _summary(options: argparse.Namespace) -> int:
    from dsr.inspect import summary

    batch = None
    if Path(options.what).is_dir():
        network, chosen, metadata = run_folder.load_run(options.what)
        features, data_path = tuple(metadata["features"]), options.data or metadata["data_path"]
    else:
        chosen, data_path = recipe.load(options.what, options.set), options.data
        features, classes = options.features, options.classes
        if features is None:
            samples = run_folder.load_data(chosen, data_path)
            features, classes = samples.features, len(samples.classes)
        network = build_network(chosen, tuple(features), classes)
    if options.spikes:
        test = run_folder.load_data(chosen, data_path).test
        batch = test.batch(np.arange(min(32, len(test))))
    print(summary.table(summary.summary(network, tuple(features), batch)))
    return 0


def _export(options: argparse.Namespace) -> int:
    from dsr import nir

    network, chosen, metadata = run_folder.load_run(options.folder, best=options.best)
    nir.save(
        network,
        tuple(metadata["features"]),
        options.out,
        delta_t=options.delta_t,
        euler=options.euler,
        diagonal=options.diagonal,
    )
    print(f"{options.out}: {chosen.model}, {chosen.neuron.upper()}, T = {chosen.timesteps}")
    return 0


def _bench_kernels(options: argparse.Namespace) -> int:
    from dsr.bench import kernels

    results = kernels.measure_all(
        options.levels, options.threads, density=options.density, batch=options.batch, repeats=options.repeats
    )
    print(json.dumps(results, indent=1) if options.json else kernels.table(results))
    return 0


def _bench_step(options: argparse.Namespace) -> int:
    from dsr.bench import step

    results = step.measure_all(options.model, options.neuron, options.timesteps, options.batch, options.repeats)
    print(json.dumps(results, indent=1) if options.json else step.table(results))
    return 0


def _free_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3`, ... that does not exist."""
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder


if __name__ == "__main__":
    sys.exit(main())
