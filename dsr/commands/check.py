"""``dsr check``: what a neuromorphic chip cannot take of a run's network."""

from __future__ import annotations

from argparse import Namespace

from dsr.commands.arguments import Commands, add_run
from dsr.nir import targets
from dsr.train import run_folder


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "check",
        help="what a neuromorphic chip cannot take of a run's network",
        description="Print what a chip cannot take of the network of a run, what to change, and where the limit was "
        "read. The exit status is 1 if there is anything.",
    )
    add_run(parser)
    parser.add_argument("--target", choices=sorted(targets.TARGETS), required=True, help="the chip")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Print the findings."""
    network, _, metadata = run_folder.load_run(options.folder, best=options.best)
    findings = targets.check(network, tuple(metadata["features"]), options.target)
    wrong = [finding for finding in findings if not finding.fits]
    print(f"{options.target}: {_counted(len(wrong))}")
    for finding in wrong:
        print(f"- {finding}")
    for finding in findings[len(wrong) :]:
        print(f"note: {finding}")
    return int(bool(wrong))


def _counted(wrong: int) -> str:
    if wrong == 0:
        return "the network fits"
    return "1 thing does not fit" if wrong == 1 else f"{wrong} things do not fit"
