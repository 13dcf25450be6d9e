"""``dsr evaluate``: the test accuracy of a run."""

from __future__ import annotations

from argparse import Namespace
from typing import get_args

import numpy as np

from dsr import train
from dsr.commands.arguments import Commands, add_run, add_run_data, count
from dsr.train import run_folder
from dsr.train.build import make_loss
from dsr.train.metrics import metric_of
from dsr.train.statistics import sample_batches
from dsr.train.views import Views


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("evaluate", help="test accuracy of a run folder, or the metric of its task")
    add_run(parser)
    add_run_data(parser)
    parser.add_argument("--timesteps", type=count, metavar="T", help="another T than trained with")
    parser.add_argument(
        "--views",
        choices=get_args(Views),
        help="mean output over each image, its mirror image, and both shifted by a pixel (default: as in the recipe)",
    )
    parser.add_argument(
        "--new-statistics",
        action="store_true",
        help="estimate the statistics of batch normalisation on training samples, for another T than trained with",
    )
    parser.set_defaults(command=run, smaller="a smaller --timesteps")


def run(options: Namespace) -> int:
    """Print the accuracy."""
    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best, timesteps=options.timesteps)
    samples = run_folder.load_run_data(recipe, metadata, options.data, options.workers)
    test = samples.test
    if options.new_statistics:
        train.estimate_statistics(network, sample_batches(samples.train, recipe.batch_size, recipe.seed))
    if test.task == "classification" and (found := len(np.unique(test.labels))) < len(metadata["classes"]):
        print(f"the test samples are of {found} of the {len(metadata['classes'])} classes of the run")
    metric = metric_of(test.task, make_loss(recipe)) if test.task == "other" else metric_of(test.task)
    reached = train.measure(network, test, metric, recipe.batch_size, options.views or recipe.test_views)
    print(f"test {metric.title} {metric.text(reached)}")
    if options.best and run_folder.optimistic(metadata):
        print(run_folder.OPTIMISTIC)
    return 0
