"""``dsr export``: the network of a run as a NIR graph."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np

from dsr.commands.arguments import Commands, add_run, add_run_data, count
from dsr.nir.readers import READERS
from dsr.nn.network import Network
from dsr.train import run_folder
from dsr.train.recipe import Recipe


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="a run as a NIR graph, for neuromorphic hardware and other simulators",
        description="Write the network of a run as a NIR graph (Neuromorphic Intermediate Representation, HDF5). With "
        "--for the graph is what one program takes, and what is lost by its neurons is measured on test samples, by "
        "running the graph as that program does.",
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as network.nir")
    parser.add_argument("--for", dest="reader", choices=sorted(READERS), help="the program that will read the file")
    parser.add_argument("--verify", action="store_true", help="run the written graph, and compare it spike by spike")
    parser.add_argument("--samples", type=count, default=200, help="test samples for --for and --verify (default: 200)")
    parser.add_argument("--delta-t", type=float, help="time step of the reader (default: that of LIF layers, or 1)")
    parser.add_argument("--euler", action="store_true", help="the reader takes Euler steps: fit time constants to it")
    parser.add_argument("--diagonal", action="store_true", help="the reader knows no Scale: write 1x1 weights instead")
    add_run_data(parser)
    parser.set_defaults(command=run, smaller="smaller --samples")


def run(options: Namespace) -> int:
    """Write the file."""
    from dsr import nir

    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    how = {"delta_t": options.delta_t, "euler": options.euler, "diagonal": options.diagonal, "reader": options.reader}
    features = tuple(metadata["features"])
    nir.save(network, features, options.out, **how)
    print(f"{options.out}: {recipe.model}, {recipe.neuron.upper()}, T = {recipe.timesteps}")
    if options.reader is not None:
        reader = READERS[options.reader]
        print(f"for {reader.version}: {reader.call}")
        if reader.note:
            print(reader.note)
    if options.verify or options.reader is not None:
        _verify(network, recipe, metadata, options)
    return 0


def _verify(network: Network, recipe: Recipe, metadata: dict[str, Any], options: Namespace) -> None:
    """Print how the written graph compares with the network on test samples."""
    from dsr import nir

    try:
        test = run_folder.load_run_data(recipe, metadata, options.data, options.workers).test
    except (ValueError, OSError) as error:
        if options.verify:
            raise
        print(f"not measured what is lost, without test samples: {error}")
        return
    number = min(options.samples, len(test))
    chosen = np.arange(number) * len(test) // number  # all classes, also where a test set is in their order
    labels = test.labels[chosen] if test.task == "classification" else None
    print(nir.verify(network, options.out, test.batch(chosen), labels))
