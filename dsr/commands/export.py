"""``dsr export``: the network of a run as a NIR graph, as plain C, or as a file for libdsr."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsr.commands.arguments import Commands, add_run, add_run_data, count
from dsr.data.preprocessing import Preprocessing
from dsr.nir.readers import READERS
from dsr.nn.network import Network
from dsr.ops import Values
from dsr.train import run_folder
from dsr.train.recipe import Recipe

ONLY = {"nir": ("delta_t", "euler", "diagonal", "reader", "verify"), "c": ("name", "frames"), "libdsr": ()}
"""Formats, with the options that each has alone."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="a run as a NIR graph, for neuromorphic hardware and other simulators, as plain C, or for libdsr",
        description="Write the network of a run as a NIR graph (Neuromorphic Intermediate Representation, HDF5), or as "
        "a folder of C99 that needs no Python, no memory allocation and no threads, or as a file that libdsr, the C "
        "library under this package, loads and runs. The latter two in integers, where RUN is a file of dsr quantize.",
    )
    add_run(parser)
    parser.add_argument("--format", choices=list(ONLY), default="nir", help="(default: nir)")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="such as network.nir, a folder for C, or network.dsrmodel",
    )
    graph = parser.add_argument_group(
        "nir",
        "With --for the graph is what one program takes, and what is lost by its neurons is measured on test samples, "
        "by running the graph as that program does.",
    )
    graph.add_argument("--for", dest="reader", choices=sorted(READERS), help="the program that will read the file")
    graph.add_argument("--verify", action="store_true", help="run the written graph, and compare it spike by spike")
    graph.add_argument("--samples", type=count, default=200, help="test samples for --for and --verify (default: 200)")
    graph.add_argument("--delta-t", type=float, help="time step of the reader (default: that of LIF layers, or 1)")
    graph.add_argument("--euler", action="store_true", help="the reader takes Euler steps: fit time constants to it")
    graph.add_argument("--diagonal", action="store_true", help="the reader knows no Scale: write 1x1 weights instead")
    code = parser.add_argument_group("c", "The first test sample becomes the test of the folder.")
    code.add_argument("--name", help="what all names begin with (default: the name of the folder)")
    code.add_argument(
        "--frames",
        action="store_true",
        help="a frame for each time step: keeps nothing of a static sample, which takes less RAM and more time "
        "(default for recordings)",
    )
    add_run_data(parser)
    parser.set_defaults(command=run, smaller="smaller --samples")


def run(options: Namespace) -> int:
    """Write the file or the folder."""
    for name in (name for other, names in ONLY.items() if other != options.format for name in names):
        if getattr(options, name):
            flag = "for" if name == "reader" else name.replace("_", "-")
            raise ValueError(f"export: --{flag} cannot be given with --format {options.format}")
    if options.folder.is_file() and options.format == "nir":
        wanted = "expected a run folder with --format nir"
        raise ValueError(f"export: {wanted}, got the file {options.folder}")
    return {"nir": _graph, "c": _code, "libdsr": _model}[options.format](options)


def _graph(options: Namespace) -> int:
    from dsr import nir

    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    how = {"delta_t": options.delta_t, "euler": options.euler, "diagonal": options.diagonal, "reader": options.reader}
    features = tuple(metadata["features"])
    nir.save(network, features, options.out, **how)
    print(f"{options.out}: {recipe.model}, {recipe.neuron.upper()}, T = {recipe.timesteps}")
    if options.reader is not None:
        reader = READERS[options.reader]
        print(f"for {reader.version}: {reader.call}")
        if reader.note:
            print(reader.note)
    if options.verify or options.reader is not None:
        _verify(network, recipe, metadata, options)
    return 0


def _verify(network: Network, recipe: Recipe, metadata: dict[str, Any], options: Namespace) -> None:
    """Print how the written graph compares with the network on test samples."""
    from dsr import nir

    try:
        test = run_folder.load_run_data(recipe, metadata, options.data, options.workers).test
    except (ValueError, OSError) as error:
        if options.verify:
            raise
        print(f"not measured what is lost, without test samples: {error}")
        return
    number = min(options.samples, len(test))
    chosen = np.arange(number) * len(test) // number  # all classes, also where a test set is in their order
    labels = test.labels[chosen] if test.task == "classification" else None
    print(nir.verify(network, options.out, test.batch(chosen), labels))


def _model(options: Namespace) -> int:
    from dsr.deploy.integer_model import IntegerModel
    from dsr.deploy.lowering import lower
    from dsr.deploy.model_file import save_model

    if options.folder.is_file():
        integer = IntegerModel.load(options.folder)
        length = save_model(integer, options.out)
        print(f"{options.out}: weights of {integer.bits} bits, T = {integer.timesteps}, {length:,} bytes")
        return 0
    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    length = save_model(lower(network, metadata["features"]), options.out)
    print(f"{options.out}: {recipe.model}, {recipe.neuron.upper()}, T = {recipe.timesteps}, {length:,} bytes")
    return 0


def _code(options: Namespace) -> int:
    from dsr.deploy.c import export_c
    from dsr.deploy.integer_model import IntegerModel
    from dsr.deploy.lowering import lower

    name = re.sub(r"\W", "_", options.out.resolve().name) if options.name is None else options.name
    if options.folder.is_file():
        integer = IntegerModel.load(options.folder)
        frames = options.frames or (integer.preprocessing is not None and integer.preprocessing.has_time)
        run_of = options.folder.parent
        sample = _sample(options, *run_folder.load_run(run_of)[1:], frames) if _is_run(run_of) else None
        print(export_c(integer, options.out, name=name, frames=frames, sample=sample))
        return 0
    network, recipe, metadata = run_folder.load_run(options.folder, best=options.best)
    noted = metadata.get("preprocessing")
    preprocessing = Preprocessing.from_dict(noted) if noted else None
    frames = options.frames or (preprocessing is not None and preprocessing.has_time)
    exported = export_c(
        lower(network, metadata["features"]),
        options.out,
        name=name,
        frames=frames,
        sample=_sample(options, recipe, metadata, frames),
        preprocessing=preprocessing,
        classes=metadata["classes"],
    )
    print(exported)
    return 0


def _is_run(folder: Path) -> bool:
    return (folder / run_folder.CHECKPOINT).is_file()


def _sample(options: Namespace, recipe: Recipe, metadata: Mapping[str, Any], frames: bool) -> Values | None:
    """The first test sample, or None where the data are not there."""
    try:
        batch = run_folder.load_run_data(recipe, metadata, options.data, options.workers).test.batch(np.arange(1))
    except (ValueError, OSError) as error:
        if options.data is not None:
            raise
        print(f"the test gets a random sample: {error}")
        return None
    if batch.ndim == len(metadata["features"]) + 2:
        return batch[:, 0]
    return np.repeat(batch, recipe.timesteps, axis=0) if frames else batch[0]
