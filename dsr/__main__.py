"""The command line: ``dsr info``, ``dsr train``, ``dsr evaluate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dsr
from dsr import checkpoint, data, plot, recipe, train
from dsr.info import describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("dsr: interrupted", file=sys.stderr)
        return 130
    except (checkpoint.CheckpointError, ValueError, FloatingPointError, OSError) as error:
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
        description="Train a network by a recipe and leave a run folder: checkpoint, metrics (JSON lines), plots.",
        epilog="example: dsr train digits --set epochs=5 --set neuron=lif --out runs/try",
    )
    training.add_argument("recipe", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    training.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one value of the recipe; repeatable"
    )
    training.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE, numbered if that exists)")
    training.set_defaults(run=_train)

    evaluation = commands.add_parser("evaluate", help="test accuracy of a run folder")
    evaluation.add_argument("folder", type=Path, help="run folder of dsr train")
    evaluation.set_defaults(run=_evaluate)
    return parser


def _info(options: argparse.Namespace) -> int:
    print(describe())
    return 0


def _train(options: argparse.Namespace) -> int:
    chosen = recipe.load(options.recipe, options.set)
    folder = options.out or _free_folder(Path("runs"), Path(options.recipe).stem)
    if (folder / train.CHECKPOINT).exists():
        raise ValueError(f"--out: {folder} holds a run already")
    samples = data.load(chosen.data)
    trainer = train.Trainer(chosen, samples, folder)
    count = sum(parameter.value.size for _, parameter in trainer.network.parameters())
    print(
        f"{chosen.model} on {samples.name}: {count:,} parameters, {chosen.neuron.upper()} neurons, "
        f"T = {chosen.timesteps}, {len(samples.train_images):,} training and {len(samples.test_images):,} test samples"
    )
    metrics = trainer.fit()
    print(f"test accuracy {100 * metrics['test_accuracy']:.2f} %")
    if plot.available():
        plot.run_pictures(folder, trainer.network, samples.test_images[0])
    else:
        print("no plots: matplotlib is not installed (pip install dsr[plot])")
    print(f"run folder: {folder}; read it back with: dsr evaluate {folder}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    print(f"test accuracy {100 * train.evaluate_run(options.folder):.2f} %")
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
