"""``dsr quantize``: a run as an integer network, after further training with rounded weights or without."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsr import train
from dsr.commands.arguments import Commands, add_run, add_run_data, natural, seconds
from dsr.data import DataSet, Samples
from dsr.data.samples import in_order
from dsr.deploy.integer_model import CALIBRATION, IntegerModel, quantize
from dsr.deploy.lowering import lower
from dsr.files import checkpoint
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.ops.arguments import shown
from dsr.train import run_folder
from dsr.train.build import make_loss
from dsr.train.metrics import Metric, metric_of
from dsr.train.model import Model, load
from dsr.train.recipe import Recipe

SLOWER = 0.02
"""The learning rate of further training, as a fraction of the recipe's.

A finished cifar10-fast with weights of 4 bits had 91.04 % without further training, 91.28 % after an epoch at a
sixtieth, and 90.76 % after one at a tenth, which the integers no longer followed.
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "quantize",
        help="a run as a network of integers: int8 weights, the same spikes on every machine",
        description="Round the weights of a run to a few bits and write an integer network, a quarter of the size, "
        "which dsr.IntegerModel.load reads. With --epochs it is trained further first, with rounded weights, by its "
        "recipe at a fiftieth of the learning rate.",
    )
    add_run(parser)
    add_run_data(parser)
    parser.add_argument("--bits", type=_bits, help="of the weights, 2 to 8 (default: as trained with, or 8)")
    parser.add_argument("--epochs", type=natural, default=0, metavar="N", help="of further training (default: 0)")
    parser.add_argument(
        "--learning-rate",
        type=seconds,
        metavar="RATE",
        help="of further training (default: a fiftieth of the recipe's)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="(default: integer-BITS.safetensors in the run folder)"
    )
    parser.set_defaults(command=run, smaller="a smaller batch_size of the recipe")


def _bits(text: str) -> int:
    if text not in {str(bits) for bits in range(2, 9)}:
        raise ArgumentTypeError(f"expected an integer from 2 to 8, got {shown(text)}")
    return int(text)


def run(options: Namespace) -> int:
    """Write the file, and print what became of the accuracy."""
    if options.learning_rate is not None and not options.epochs:
        raise ValueError("--learning-rate: expected --epochs with it, got none")
    out = options.out
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):  # before hours of training
        raise ValueError(f"--out: expected a file in a folder that exists, got {shown(str(out))}")
    _, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    samples = run_folder.load_run_data(recipe, metadata, options.data, options.workers)
    metric = metric_of(samples.task, make_loss(recipe)) if samples.task == "other" else metric_of(samples.task)
    model = load(options.folder, best=options.best, run_code=True)
    bits = options.bits or recipe.weight_bits or 8
    before = train.measure(model.network, samples.test, metric, recipe.part_size)
    print(f"test {metric.title} {metric.text(before)} of the run" + _trained_with(recipe))
    if options.epochs:
        lower(model.network, metadata["features"]).refuse_graded("quantize", "an integer network")  # before training
        trained = _trained(options, recipe, bits, samples)
        model = Model(trained, model.classes, model.preprocessing, model.task, model.about)
    # the samples of a run are preprocessed already, which images tell by not being bytes
    raw = model.preprocessing
    known = Model(model.network, model.classes, raw if raw is not None and raw.kind == "images" else None, model.task)
    integer = quantize(known, _calibration(samples.train), bits)
    integer.preprocessing = model.preprocessing
    reached = _measured(integer, samples.test, metric, recipe.part_size)
    out = out or options.folder / f"integer-{bits}.safetensors"
    integer.save(out)
    print(f"test {metric.title} {metric.text(reached)} with weights of {bits} bits, {_points(metric, before, reached)}")
    floats = sum(array.nbytes for _, array in model.network.arrays())
    print(f"{out}: {out.stat().st_size:,} bytes; the arrays of the run's network have {floats:,}")
    return 0


def _trained_with(recipe: Recipe) -> str:
    return f", trained with weights of {recipe.weight_bits} bits" if recipe.weight_bits else ""


def _points(metric: Metric, before: float, reached: float) -> str:
    if metric.name == "accuracy":
        return f"{100 * (reached - before):+.2f} points"
    return f"{reached - before:+.4g}"


def _trained(options: Namespace, recipe: Recipe, bits: int, samples: DataSet) -> Network:
    """The network after further training with rounded weights."""
    rate = SLOWER * recipe.learning_rate if options.learning_rate is None else options.learning_rate
    steps = min(recipe.warmup_steps, options.epochs * len(samples.train) // recipe.batch_size // 4)
    further = replace(recipe, epochs=options.epochs, learning_rate=rate, weight_bits=bits, warmup_steps=steps)
    path = options.folder / (run_folder.BEST if options.best else run_folder.CHECKPOINT)
    _, metadata = checkpoint.load(path)
    trainer = train.Trainer(further, samples, build=run_folder.build_of(further, metadata))
    trainer.start_from(path)
    trainer.fit()
    return trainer.measured


def _calibration(samples: Samples) -> Values:
    """Some of the training samples, spread over all of them."""
    numbers = np.linspace(0, len(samples) - 1, min(CALIBRATION, len(samples))).astype(np.int64)
    return samples.batch(numbers)


def _measured(model: IntegerModel, samples: Samples, metric: Metric, batch_size: int) -> float:
    """The mean of the metric."""
    total = 0.0
    for part, batch in in_order(samples, batch_size):
        total += metric.total(model.run(batch), samples.labels[part])
    return total / len(samples)
