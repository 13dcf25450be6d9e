"""``dsr export``: the network of a run as a NIR graph."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dsr.commands.arguments import Commands, add_run
from dsr.train import run_folder


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="a run as a NIR graph, for neuromorphic hardware and other simulators",
        description="Write the network of a run as a NIR graph (Neuromorphic Intermediate Representation, HDF5).",
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="such as network.nir")
    parser.add_argument("--delta-t", type=float, help="time step of the reader (default: that of LIF layers, or 1)")
    parser.add_argument("--euler", action="store_true", help="the reader takes Euler steps: fit time constants to it")
    parser.add_argument("--diagonal", action="store_true", help="the reader knows no Scale: write 1x1 weights instead")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Write the file."""
    from dsr import nir

    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    nir.save(
        network,
        tuple(metadata["features"]),
        options.out,
        delta_t=options.delta_t,
        euler=options.euler,
        diagonal=options.diagonal,
    )
    print(f"{options.out}: {recipe.model}, {recipe.neuron.upper()}, T = {recipe.timesteps}")
    return 0
