"""The command line: ``dsr COMMAND``, whose commands are the modules of `dsr.commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

import dsr
from dsr.commands import (
    bench,
    check,
    download,
    evaluate,
    export,
    info,
    inspect,
    predict,
    quantize,
    recipe,
    summary,
    train,
)
from dsr.ops.memory import keep_freed_memory
from dsr.train.interrupt import Interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    _prepare_output()
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    try:
        return int(options.command(options))
    except Interrupted as stop:
        _tell(str(stop))
        return 128 + stop.number
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        _tell(f"not enough memory{reason}" + (f"; {options.smaller} needs less" if options.smaller else ""))
        return 1
    except (ValueError, FloatingPointError, OSError, ImportError) as error:
        _tell(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dsr", description="Spiking neural networks on the CPU you have.")
    parser.add_argument("--version", action="version", version=f"dsr {dsr.__version__}")
    parser.set_defaults(smaller="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (info, train, recipe, download, evaluate, predict, inspect, summary, check, export, quantize, bench):
        command.add(commands)
    return parser


def _prepare_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a log in a file shows each line as it comes; a path that the terminal cannot show ends no run
            stream.reconfigure(
                line_buffering=True, errors="backslashreplace" if stream.errors == "strict" else stream.errors
            )


def _tell(message: str) -> None:
    with suppress(OSError):  # of a terminal that is closed
        print(f"dsr: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
