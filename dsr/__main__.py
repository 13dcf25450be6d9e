"""The command line: ``dsr info``, ``dsr train``, ``dsr evaluate``, ``dsr bench``."""

from __future__ import annotations

import argparse
import json
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

    bench = commands.add_parser("bench", help="measure kernels, or whole steps", description="Measure on this machine.")
    kinds = bench.add_subparsers(required=True, metavar="WHAT")
    kernels = kinds.add_parser(
        "kernels",
        help="convolutions and neurons",
        description="Speed of kernels per level and number of threads, beside a GEMM (OpenBLAS) and, where it is "
        "installed, PyTorch.",
    )
    kernels.add_argument("--density", type=float, default=0.1, help="share of bits that are set (default: 0.1)")
    kernels.add_argument("--batch", type=int, default=128, help="samples; T is 5 (default: 128, 640 lanes)")
    kernels.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    kernels.add_argument("--levels", nargs="+", default=["scalar", "avx2", "avx512"], help="(default: all there are)")
    kernels.set_defaults(run=_bench_kernels)
    step = kinds.add_parser(
        "step",
        help="training and evaluation steps of a model",
        description="Median seconds of a training step and an evaluation step, and peak memory, for each T.",
    )
    step.add_argument("--model", default="preact_resnet18", help="(default: preact_resnet18)")
    step.add_argument("--neuron", choices=["if", "lif"], default="if", help="(default: if)")
    step.add_argument("--timesteps", type=int, nargs="+", default=[1, 2, 5, 10, 20], help="(default: 1 2 5 10 20)")
    step.add_argument("--batch", type=int, default=16, help="samples of a step (default: 16)")
    step.set_defaults(run=_bench_step)
    for kind in (kernels, step):
        kind.add_argument("--repeats", type=int, default=5, help="measurements of each (default: 5)")
        kind.add_argument("--json", action="store_true", help="print JSON instead of a table")
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


def _bench_kernels(options: argparse.Namespace) -> int:
    from dsr.bench import kernels

    results = kernels.measure_all(
        options.levels, options.threads, density=options.density, batch=options.batch, repeats=options.repeats
    )
    print(json.dumps(results, indent=1) if options.json else kernels.table(results))
    return 0


def _bench_step(options: argparse.Namespace) -> int:
    from dsr.bench import step

    results = step.measure_all(options.model, options.neuron, options.timesteps, options.batch, options.repeats)
    print(json.dumps(results, indent=1) if options.json else step.table(results))
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
