"""The command rehearse: what does a recipe do, and what does it cost?"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fewlabels.cli.options import add_import_option
from fewlabels.cli.recipes import split_words
from fewlabels.errors import FewLabelsError, RecipeError, for_terminal

if TYPE_CHECKING:
    from fewlabels.recipe.recipe import Recipe


def add_commands(commands: Any) -> None:
    """Declare ``rehearse``."""
    rehearse = commands.add_parser(
        "rehearse", help="run recipes shortened, on stand-in images; say what the whole run costs"
    )
    rehearse.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    rehearse.add_argument(
        "--images-per-second",
        action="append",
        default=[],
        metavar="[NAME=]NUMBER",
        help="of training on another machine; NAME: a backbone, embed or decode; may be repeated",
    )
    add_import_option(rehearse)
    rehearse.set_defaults(run_command=rehearse_recipes)


def rehearse_recipes(given: argparse.Namespace) -> int:
    """Rehearse each recipe: a page of one, a line of each of several; 0, or 2 if one is refused.

    Files that are the same recipe are rehearsed once.
    """
    from fewlabels.recipe.recipe import load_recipe
    from fewlabels.rehearsal.elsewhere import name_unused, parse_throughputs

    rates = parse_throughputs(given.images_per_second)
    paths, overrides = split_words(given.recipes)
    begin, refused = time.monotonic(), 0
    known: dict[str, str] = {}
    backbones: set[str] = set()
    for path in paths:
        try:
            recipe = load_recipe(path, overrides, given.imports, ended=True)
            backbones.add(recipe.model.backbone)
            if recipe.hash not in known:
                known[recipe.hash] = tell_rehearsal(recipe, rates, len(paths) > 1)
            print(f"{path}: {known[recipe.hash]}", flush=True)
        except FewLabelsError as error:
            own = isinstance(error, RecipeError)
            print(for_terminal(error if own else type(error)(f"{path}: {error}")), file=sys.stderr)
            refused += 1
    if backbones and (unused := name_unused(rates, backbones)):
        print(
            f"--images-per-second {', '.join(unused)}: no recipe here has such a backbone, so it "
            f"counted for nothing; there is {', '.join(sorted(backbones))}",
            file=sys.stderr,
        )
    if len(paths) > 1:
        minutes = (time.monotonic() - begin) / 60
        print(f"{len(paths)} recipes, {refused} refused, {minutes:.1f} minutes")
    return 2 if refused else 0


def tell_rehearsal(recipe: Recipe, rates: Mapping[str, float], short: bool) -> str:
    """Rehearse one recipe; a line or a page."""
    from fewlabels.rehearsal.measure import rehearse_recipe
    from fewlabels.rehearsal.memory import name_device, remember_imports
    from fewlabels.rehearsal.report import format_line, format_page

    imported = remember_imports()
    found = rehearse_recipe(recipe)
    tell = format_line if short else format_page
    return tell(found, rates, imported, name_device())
