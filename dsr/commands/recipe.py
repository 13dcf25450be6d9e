"""``dsr recipe``: all keys of a recipe, or a recipe with its values, as TOML to begin one's own with."""

from __future__ import annotations

from argparse import Namespace

from dsr.commands.arguments import Commands, add_changes
from dsr.train import recipe


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "recipe",
        help="the keys of a recipe with their values, as TOML",
        description="Print every key of a recipe with its value and what it means, or without a recipe the defaults.",
        epilog="example: dsr recipe digits > mine.toml, change it, and dsr train mine.toml",
    )
    parser.add_argument("recipe", nargs="?", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    add_changes(parser)
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Print a recipe, or the defaults."""
    if options.recipe is None and options.set:
        raise ValueError("--set: expected a recipe to change, got none")
    print(recipe.text(recipe.load(options.recipe, options.set) if options.recipe is not None else None))
    return 0
