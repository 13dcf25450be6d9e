"""``dsr summary``: layers, shapes, parameters and operations of a recipe's network or a run's."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsr import system
from dsr.commands.arguments import CODE, Commands, add_changes, count, require_data
from dsr.data import DataSet
from dsr.nn.network import Network
from dsr.train import build_network, load, make_optimizer, memory, recipe, run_folder
from dsr.train.recipe import Recipe

SHAPES = {"cifar10": (3, 32, 32), "cifar100": (3, 32, 32), "digits": (1, 8, 8)}
"""Of samples of data sets, where every file has this one."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "summary",
        help="layers, shapes, parameters and operations of a network",
        description="A line a layer: output shape, parameters, multiply-adds of a sample and time step; and the memory "
        "that a training step will need.",
        epilog=CODE,
    )
    parser.add_argument("what", help="a recipe, or a run folder")
    add_changes(parser)
    parser.add_argument(
        "--features", type=count, nargs="+", metavar="N", help="N, C L or C H W, of a recipe without --data"
    )
    parser.add_argument("--classes", type=count, metavar="N", help="with --features (default: 10)")
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder or archive of the data set")
    parser.add_argument("--spikes", action="store_true", help="also firing rates and operations on 32 test samples")
    parser.set_defaults(command=run, smaller="a smaller width (--set)")


def run(options: Namespace) -> int:
    """Print the table."""
    from dsr.inspect import summary

    chosen, network, features, samples = (_of_run if Path(options.what).is_dir() else _of_recipe)(options)
    batch = None
    if samples is not None and options.spikes:
        batch = samples.test.batch(np.arange(min(32, len(samples.test))))
    print(summary.table(summary.summary(network, features, batch)))
    try:
        training = None if samples is None else samples.train
        teacher = load(chosen.teacher).network if chosen.teacher else None
        optimizer = make_optimizer(chosen, network)
        needed = memory.of_recipe(chosen, network, optimizer, features, training, teacher=teacher)
        print(needed.text())
        needed.require(system.memory_limit() * 2**20, system.resident_memory() * 2**20, chosen.accumulate)
    except (OSError, TypeError, ValueError) as error:
        # layers of one's own that cannot be copied or trained, a teacher that is not there, or too little room
        print(error)
    return 0


def _of_run(options: Namespace) -> tuple[Recipe, Network, tuple[int, ...], DataSet | None]:
    for name, value in (("--set", options.set), ("--features", options.features), ("--classes", options.classes)):
        if value:
            raise ValueError(f"summary: {name} cannot be given with a run folder: the run has its own")
    if options.data and not options.spikes:
        raise ValueError("summary: --data cannot be given with a run folder but for --spikes: the run knows its shapes")
    network, chosen, metadata = run_folder.load_run(options.what)
    samples = run_folder.load_run_data(chosen, metadata, options.data) if options.spikes else None
    return chosen, network, tuple(metadata["features"]), samples


def _of_recipe(options: Namespace) -> tuple[Recipe, Network, tuple[int, ...], DataSet | None]:
    chosen = recipe.load(options.what, options.set)
    if options.features is None:
        if options.classes is not None:
            raise ValueError("summary: --classes cannot be given without --features: the data set has its own")
        shape = f" ({' '.join(map(str, SHAPES[chosen.data]))})" if chosen.data in SHAPES else ""
        require_data(chosen, options.data, f", or --features C H W{shape}")
        samples = run_folder.load_data(replace(chosen, cache="none"), options.data)
        network = build_network(chosen, samples.features, len(samples.classes))
        return chosen, network, samples.features, samples
    if options.data or options.spikes:
        name = "--data" if options.data else "--spikes"
        raise ValueError(f"summary: {name} cannot be given with --features: samples have their own shape")
    features = tuple(options.features)
    return chosen, build_network(chosen, features, options.classes or 10), features, None
