"""``dsr inspect``: what a trained network does."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsr.commands.arguments import Commands, add_run, add_run_data, count
from dsr.files import atomic, figures
from dsr.train import run_folder


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "inspect",
        help="what a trained network does: firing, errors, operations, energy",
        description="Firing rates, dead and saturated neurons and representation errors of each spiking layer; "
        "synaptic operations and an estimate of energy; errors and accuracy with other T and alpha.",
    )
    add_run(parser)
    add_run_data(parser)
    parser.add_argument("--samples", type=count, default=256, help="test samples, evenly spread (default: 256)")
    parser.add_argument(
        "--timesteps", type=count, nargs="+", metavar="T", help="T of the error curves (default: 1 2 5 10 20)"
    )
    parser.add_argument("--alpha", type=float, nargs="+", help="alphas of the error curves (default: as trained)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write report.json and pictures there")
    parser.set_defaults(command=run, smaller="smaller --samples or --timesteps")


def run(options: Namespace) -> int:
    """Print the report, and write it with pictures where that is asked for."""
    from dsr import inspect
    from dsr.inspect import plots

    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    samples = run_folder.load_run_data(recipe, metadata, options.data, options.workers).test
    number = min(options.samples, len(samples))
    chosen = np.arange(number) * len(samples) // number  # all classes, also where a test set is in their order
    images = samples.batch(chosen)
    labels = samples.labels[chosen] if samples.task == "classification" else None
    report = inspect.measure(network, images, labels)
    if report.layers or options.timesteps or options.alpha:  # a ReLU network has no such errors
        alphas = options.alpha or [None]
        curves = inspect.error_curves(network, images, labels, timesteps=options.timesteps, alphas=alphas)
        report = replace(report, curves=curves)
    print(json.dumps(report.to_dict(), indent=1) if options.json else report.text())
    if options.best and labels is not None and run_folder.optimistic(metadata):
        print(run_folder.OPTIMISTIC, file=sys.stderr)  # which is no part of the JSON
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        atomic.write(options.out / "report.json", (json.dumps(report.to_dict(), indent=1) + "\n").encode())
        if figures.available():
            plots.pictures(report, options.out)
        else:
            print("no pictures: matplotlib is not installed (pip install dsr[plot])", file=sys.stderr)
    return 0
