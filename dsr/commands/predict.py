"""``dsr predict``: classes and probabilities of images, arrays and recordings."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dsr import train
from dsr.commands.arguments import Commands, add_run, count


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "predict",
        help="classes and probabilities of images, arrays and recordings",
        description="Print the most probable classes of each sample, by a run or a file of dsr.save. Files are images, "
        "recordings, or arrays (.npy, or .npz with x) of one or more samples, raw as those the run was trained with.",
        epilog="example: dsr predict runs/digits three.png seven.png",
    )
    add_run(parser)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="image, array or recording")
    parser.add_argument("--top", type=count, default=3, metavar="N", help="classes shown of each sample (default: 3)")
    parser.add_argument("--timesteps", type=count, metavar="T", help="another T than trained with")
    parser.add_argument("--json", action="store_true", help="print a JSON line for each sample")
    parser.set_defaults(command=run, smaller="fewer files at a time")


def run(options: Namespace) -> int:
    """Print a line for each sample."""
    model = train.load(options.folder, best=options.best, timesteps=options.timesteps, run_code=True)
    for name, found in _samples(model, options.files):
        if options.json:
            print(json.dumps({"file": name, **found}))
        elif "values" in found:
            print(f"{name}  " + "  ".join(f"{output} {value:.6g}" for output, value in found["values"].items()))
        else:
            most = sorted(found["probabilities"].items(), key=lambda item: -item[1])[: options.top]
            print(f"{name}  " + "  ".join(f"{label} {100 * share:.1f} %" for label, share in most))
    return 0


def _samples(model: train.Model, files: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of each sample, and what is predicted for it."""
    for file in files:
        values = model.task not in ("classification", "multilabel")
        rows = model.predict([file]) if values else model.predict_proba([file])
        names = model.classes or tuple(map(str, range(rows.shape[1])))
        for number, row in enumerate(rows):
            name = str(file) if len(rows) == 1 else f"{file}[{number}]"
            by_name = dict(zip(names, np.asarray(row, np.float64).reshape(-1).tolist(), strict=True))
            if values:
                yield name, {"values": by_name}
            elif model.task == "multilabel":
                yield name, {"labels": [n for n, p in by_name.items() if p > 0.5], "probabilities": by_name}
            else:
                yield name, {"class": max(by_name, key=lambda n: by_name[n]), "probabilities": by_name}
