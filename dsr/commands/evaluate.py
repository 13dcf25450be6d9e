"""``dsr evaluate``: the test accuracy of a run."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import get_args

import numpy as np

from dsr.commands.arguments import Commands, add_run, add_run_data, count, positive
from dsr.data import DataSet
from dsr.deploy.early_exit import By, choose
from dsr.inspect import plots
from dsr.nn.network import Network
from dsr.train import run_folder
from dsr.train.build import make_loss
from dsr.train.inference import exit_curve, measure_exits
from dsr.train.metrics import beside, metric_of
from dsr.train.recipe import Recipe
from dsr.train.statistics import estimate_statistics, sample_batches
from dsr.train.steps import measure_all
from dsr.train.trainer import split
from dsr.train.views import Views


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("evaluate", help="test accuracy of a run folder, or the metric of its task")
    add_run(parser)
    add_run_data(parser)
    parser.add_argument("--timesteps", type=count, metavar="T", help="another T than trained with")
    parser.add_argument(
        "--image-size",
        type=count,
        metavar="N",
        help="another side of images than trained with, of networks that pool globally",
    )
    parser.add_argument(
        "--views",
        choices=get_args(Views),
        help="mean output over each image, its mirror image, and both shifted by a pixel (default: as in the recipe)",
    )
    parser.add_argument(
        "--early-exit",
        type=_threshold,
        metavar="P",
        help="a sample is done when its output is that clear: a probability such as 0.9, or auto: chosen on the run's "
        "samples for validation so that at most 0.5 %% of accuracy is lost",
    )
    parser.add_argument(
        "--exit-by",
        choices=get_args(By),
        default="probability",
        help="what --early-exit is: the probability of a class, or the margin between the two largest output rates",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="with --early-exit: a picture of accuracy against mean T"
    )
    parser.add_argument(
        "--new-statistics",
        action="store_true",
        help="estimate the statistics of batch normalisation on training samples, for another T than trained with",
    )
    parser.set_defaults(command=run, smaller="a smaller --timesteps or --image-size")


def _threshold(text: str) -> float | str:
    """A number > 0, or auto."""
    return text if text == "auto" else positive(text)


def run(options: Namespace) -> int:
    """Print the accuracy."""
    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best, timesteps=options.timesteps)
    samples = run_folder.load_run_data(recipe, metadata, options.data, options.workers, options.image_size)
    test = samples.test
    if options.new_statistics:
        training, _ = split(samples, recipe)
        estimate_statistics(network, sample_batches(training, recipe.part_size, recipe.seed))
    if test.task == "classification" and (found := len(np.unique(test.labels))) < len(metadata["classes"]):
        print(f"the test samples are of {found} of the {len(metadata['classes'])} classes of the run")
    metric = metric_of(test.task, make_loss(recipe)) if test.task == "other" else metric_of(test.task)
    views = options.views or recipe.test_views
    if options.plot is not None and options.early_exit is None:
        raise ValueError("argument --plot: expected --early-exit with it")
    if options.early_exit is not None:
        if test.task != "classification" or options.views not in (None, "one"):
            what = f"--views {options.views}" if test.task == "classification" else f"a run of {test.task}"
            raise ValueError(f"argument --early-exit: expected a run of classes, seen in one view, got {what}")
        print(_with_exits(network, recipe, samples, options))
    else:
        metrics = (metric, *beside(metric, len(metadata["classes"])))
        reached = measure_all(network, test, metrics, recipe.part_size, views, compiled=True)
        for each, value in zip(metrics, reached, strict=True):
            print(f"test {each.title} {each.text(value)}")
    if options.best and run_folder.optimistic(metadata):
        print(run_folder.OPTIMISTIC)
    return 0


def _with_exits(network: Network, recipe: Recipe, samples: DataSet, options: Namespace) -> str:
    """What early exit gives on the test samples, in words."""
    threshold, by, chosen, test = options.early_exit, options.exit_by, "", samples.test
    if threshold == "auto":
        if not recipe.validation:
            raise ValueError(
                "argument --early-exit: expected a number: the run held no samples out to choose a threshold with; "
                "validation = N in the recipe does that"
            )
        held_out = split(samples, recipe)[1]
        threshold = choose(exit_curve(network, held_out, by, recipe.part_size)).threshold
        chosen = f", chosen on {len(held_out)} samples for validation"
    if options.plot is not None:
        plots.exits(exit_curve(network, test, by, recipe.part_size), options.plot, threshold)
        chosen += f"; the curve is in {options.plot}"
    found = measure_exits(network, test, threshold, by, recipe.part_size)
    return (
        f"test accuracy {100 * found.accuracy:.2f} % with early exit at a {by} of {threshold:g}{chosen}\n"
        f"mean T {found.timesteps:.2f} of {network.timesteps}, {1000 * found.seconds:.3f} ms per sample; with all "
        f"steps {100 * found.accuracy_of_all:.2f} %, {1000 * found.seconds_of_all:.3f} ms per sample"
    )
