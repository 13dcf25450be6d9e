"""``dsr bench``: the speed of kernels, whole steps, predictions and of loading on this machine."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import get_args

from dsr.commands.arguments import CODE, Commands, add_changes, count, share
from dsr.nn.norm import NormGradient, NormVariance
from dsr.nn.registry import SPIKING


def add(commands: Commands) -> None:
    """Declare the command."""
    bench = commands.add_parser("bench", help="measure kernels, or whole steps", description="Measure on this machine.")
    kinds = bench.add_subparsers(required=True, metavar="WHAT")
    kernels = kinds.add_parser(
        "kernels",
        help="convolutions and neurons",
        description="Speed of kernels per level and number of threads, beside a GEMM (OpenBLAS) and, where it is "
        "installed, PyTorch.",
    )
    kernels.add_argument("--density", type=float, default=0.1, help="share of bits that are set (default: 0.1)")
    kernels.add_argument("--batch", type=count, default=128, help="samples; T is 5 (default: 128, 640 lanes)")
    kernels.add_argument("--threads", type=count, nargs="+", default=[1, 2], help="(default: 1 2)")
    kernels.add_argument("--levels", nargs="+", help="(default: all there are)")
    kernels.set_defaults(command=run_kernels, smaller="a smaller --batch")
    step = kinds.add_parser(
        "step",
        help="training and evaluation steps of a model",
        description="Median seconds of a training step and an evaluation step, and peak memory, for each T.",
    )
    step.add_argument("--model", default="preact_resnet18", help="(default: preact_resnet18)")
    step.add_argument("--neuron", choices=SPIKING, default="if", help="(default: if)")
    step.add_argument("--timesteps", type=count, nargs="+", default=[1, 2, 5, 10, 20], help="(default: 1 2 5 10 20)")
    step.add_argument("--batch", type=count, default=16, help="samples of a step (default: 16)")
    step.add_argument("--image-size", type=count, default=32, metavar="N", help="side of the images (default: 32)")
    step.add_argument(
        "--rate",
        type=share,
        metavar="R",
        help="firing rate of each layer, such as 0.1 of trained networks; thresholds are set before timing (default: "
        "as they are initialised, at which rates fall with T, to 0.03 at T = 20, and times with them)",
    )
    step.add_argument(
        "--norm-gradient", choices=get_args(NormGradient), default="exact", help="as the recipe's (default: exact)"
    )
    step.add_argument(
        "--norm-variance", choices=get_args(NormVariance), default="steps", help="as the recipe's (default: steps)"
    )
    step.add_argument("--beside", choices=["torch"], help="measure the same training step in PyTorch, in turn")
    step.set_defaults(command=run_step, smaller="a smaller --batch, --timesteps or --image-size")
    inference = kinds.add_parser(
        "inference",
        help="predictions, compiled and with early exit",
        description="Milliseconds per sample of predictions, in turn: compiled (dsr.compile), as integers "
        "(dsr.quantize, 8 bits), both with early exit, not compiled, and the ordinary twin of the network in "
        "onnxruntime, in float32 and in int8, where that and onnx are installed.",
    )
    inference.add_argument("--model", default="cifar_fast", help="(default: cifar_fast)")
    inference.add_argument("--neuron", choices=SPIKING, default="if", help="(default: if)")
    inference.add_argument(
        "--run",
        type=Path,
        metavar="RUN",
        help="the trained network of a run folder, at its own rates on its own images, instead of --model, --neuron "
        "and --rate",
    )
    inference.add_argument("--data", type=Path, metavar="PATH", help="of --run (default: where the run had it from)")
    inference.add_argument("--timesteps", type=count, nargs="+", default=[1, 2, 4], help="(default: 1 2 4)")
    inference.add_argument("--batch", type=count, nargs="+", default=[1, 32], help="samples (default: 1 32)")
    inference.add_argument("--threads", type=count, nargs="+", default=[1, 2], help="(default: 1 2)")
    inference.add_argument(
        "--rate", type=share, default=0.1, metavar="R", help="firing rate that thresholds are set for (default: 0.1)"
    )
    inference.set_defaults(command=run_inference, smaller="smaller --batch or --timesteps")
    data = kinds.add_parser(
        "data",
        help="how fast pictures are loaded",
        description="Pictures a second that are read, decoded and augmented, beside what a training step of the recipe "
        "takes, and what to change where loading is too slow.",
        epilog=CODE,
    )
    data.add_argument("path", type=Path, help="folder or archive of the pictures")
    data.add_argument("--recipe", default="images", help="of this name or path (default: images)")
    add_changes(data)
    data.add_argument("--pictures", type=count, default=128, metavar="N", help="that are loaded (default: 128)")
    data.set_defaults(command=run_data, smaller="a smaller width, timesteps or image_size (--set)")
    for kind in (kernels, step, inference, data):
        kind.add_argument("--repeats", type=count, default=5, help="measurements of each (default: 5)")
        kind.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run_kernels(options: Namespace) -> int:
    """Print the speed of kernels."""
    from dsr.bench import kernels

    results = kernels.measure_all(
        options.levels, options.threads, density=options.density, batch=options.batch, repeats=options.repeats
    )
    print(json.dumps(results, indent=1) if options.json else kernels.table(results))
    return 0


def run_step(options: Namespace) -> int:
    """Print the time and memory of steps."""
    from dsr.bench import step

    results = step.measure_all(
        options.model,
        options.neuron,
        options.timesteps,
        options.batch,
        options.repeats,
        rate=options.rate,
        norm_gradient=options.norm_gradient,
        norm_variance=options.norm_variance,
        beside=options.beside,
        image_size=options.image_size,
    )
    print(json.dumps(results, indent=1) if options.json else step.table(results))
    return 0


def run_inference(options: Namespace) -> int:
    """Print the time of predictions."""
    from dsr.bench import inference

    samples = max(*options.batch, inference.SAMPLES)
    if options.run is not None:
        subject = inference.trained(options.run, options.data, samples)
    elif options.data is not None:
        raise ValueError("argument --data: expected --run with it")
    else:
        subject = inference.untrained(options.model, options.neuron, options.rate, samples)
    rows = inference.measure(subject, options.timesteps, options.batch, options.threads, options.repeats)
    print(json.dumps(rows, indent=1) if options.json else inference.table(rows))
    return 0


def run_data(options: Namespace) -> int:
    """Print how fast pictures are loaded."""
    from dsr.bench import data
    from dsr.train import recipe

    result = data.measure(recipe.load(options.recipe, options.set), options.path, options.pictures, options.repeats)
    print(json.dumps(result, indent=1) if options.json else data.table(result))
    return 0
