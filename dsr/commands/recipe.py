"""``dsr recipe``: a recipe to begin one's own with, or all keys of recipes with their defaults, as TOML."""

from __future__ import annotations

from argparse import Namespace

from dsr.commands.arguments import Commands, add_changes
from dsr.train import recipe


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "recipe",
        help="a recipe to start from, or all keys with their defaults",
        description="Print a recipe to start from: the keys that it sets, with what they mean. With --all every key; "
        "without a recipe the defaults of all keys.",
        epilog="example: dsr recipe arrays > mine.toml, change it, and dsr train mine.toml --data my.npz",
    )
    parser.add_argument("recipe", nargs="?", help=f"{', '.join(recipe.names())}, or the path of a TOML file")
    parser.add_argument("--all", action="store_true", help="every key, also those that have their defaults")
    add_changes(parser)
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    """Print a recipe, or the defaults."""
    if options.recipe is None and options.set:
        raise ValueError("--set: expected a recipe to change, got none")
    if options.recipe is None:
        print(recipe.text())
        return 0
    if about := recipe.comment(options.recipe):
        print(about)
    print(recipe.text(recipe.load(options.recipe, options.set), everything=options.all))
    return 0
