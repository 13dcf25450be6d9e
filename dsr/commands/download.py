"""``dsr download``: a data set from its authors' site."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dsr.commands.arguments import DOWNLOADS, Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("download", help="get a data set from its authors' site")
    parser.add_argument("name", choices=DOWNLOADS)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Get the archive, and say how to train with it."""
    from dsr.data.cifar import download_cifar

    archive = download_cifar(options.name, options.out)
    print(f"{archive}; train with: dsr train {options.name}-if --data {archive}")
    return 0
