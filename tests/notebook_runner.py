"""Runs a notebook's code cells one after the other, without Jupyter, and can keep what they print and draw.

``python tests/notebook_runner.py notebooks/01_one_neuron.ipynb`` runs it in the current folder;
with ``--write`` the outputs go into the file, as Jupyter would put them there: so are the committed ones made. Those of
04 were made with DSR_CIFAR10 set; those of 04 and 05 have times in them, so the machine should be idle.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")


def run(notebook, keep):
    """Execute the code cells in one namespace; if outputs are to be kept, put them into the cells."""
    from matplotlib import pyplot as plt

    namespace = {"__name__": "__main__"}
    for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
        code, printed = "".join(cell["source"]), io.StringIO()
        with contextlib.redirect_stdout(printed):
            execute(code, number, namespace)
        cell["execution_count"], cell["outputs"] = number, []
        if printed.getvalue():
            text = printed.getvalue().splitlines(keepends=True)
            cell["outputs"].append({"name": "stdout", "output_type": "stream", "text": text})
        for figure in map(plt.figure, plt.get_fignums()):
            if not keep:
                figure.draw_without_rendering()
                continue
            data = {"image/png": picture(figure), "text/plain": ["<Figure>"]}
            cell["outputs"].append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")


def execute(code, number, namespace):
    """Execute a cell; refuse one that ends in a value, which Jupyter would print below the picture."""
    tree, last = ast.parse(code), None
    if isinstance(tree.body[-1], ast.Expr):
        last = compile(ast.Expression(tree.body.pop().value), f"<cell {number}>", "eval")
    exec(compile(tree, f"<cell {number}>", "exec"), namespace)
    value = None if last is None else eval(last, namespace)
    if value is not None and not code.rstrip().endswith(";"):
        raise ValueError(f"cell {number} ends in a value; print it, or end the line with a semicolon")


def fingerprint(notebook):
    """Of the code, noted when outputs are written: so a test can tell that they are of another version of it."""
    code = "\0".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def picture(figure):
    """PNG of 128 colours, a third of the size, in base64."""
    from PIL import Image

    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png")
    Image.open(whole).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the file; runs in a temporary folder")
    arguments = parser.parse_args()
    for path in map(Path.absolute, arguments.notebooks):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder if arguments.write else "."):
            run(notebook, arguments.write)
        if arguments.write:
            notebook["metadata"]["code_sha256"] = fingerprint(notebook)
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
