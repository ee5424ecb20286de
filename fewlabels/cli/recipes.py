"""Commands about recipes: run, study, check."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewlabels.cli.options import add_import_option
from fewlabels.errors import FewLabelsError, RecipeError, make_printable
from fewlabels.files import refuse_unwritable
from fewlabels.training.processes import leave_processes


def add_commands(commands: Any) -> None:
    """Declare ``run``, ``study`` and ``check``."""
    run = commands.add_parser(
        "run", help="run a recipe: RECIPE [key=value ...], or --resume FOLDER"
    )
    run.add_argument("recipe", nargs="?", help="a YAML file")
    run.add_argument("overrides", nargs="*", help="key=value, as in rounds.rounds=3")
    run.add_argument("--out", default="runs", help="where run folders are made")
    run.add_argument("--resume", help="go on with a run folder that was stopped")
    add_import_option(run)
    run.set_defaults(run_command=run_recipe)
    study = commands.add_parser("study", help="run recipes over seeds, and compare them")
    study.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    study.add_argument("--seeds", default="0-2", help="as in 0-9 or 100-104,7")
    study.add_argument("--runs", default="runs/studies", help="where the run folders stand")
    study.add_argument("--out", type=Path, help="write OUT.md and OUT.csv")
    study.add_argument(
        "--validation", action="store_true", help="the error on data.validation, not on the test"
    )
    add_import_option(study)
    study.set_defaults(run_command=run_study)
    check = commands.add_parser("check", help="check recipes without running them")
    check.add_argument("recipes", nargs="+", help="YAML files; key=value overrides may follow")
    add_import_option(check)
    check.set_defaults(run_command=lambda given: check_recipes(given.recipes, given.imports))


def run_recipe(given: argparse.Namespace) -> None:
    """``fewlabels run``."""
    from fewlabels.runs.train import train

    train(given.recipe, given.overrides, given.out, given.resume, given.imports)
    leave_processes()


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The recipes and the overrides among words; a file may have = in its name.

    Raises:
        RecipeError: there is no recipe.
    """
    paths = [word for word in words if "=" not in word or os.path.isfile(word)]
    if not paths:
        raise RecipeError(["no recipe given; name a YAML file before key=value"])
    return paths, [word for word in words if word not in paths]


def check_recipes(arguments: Sequence[str], imports: Sequence[str] = ()) -> int:
    """Check each recipe and print all mistakes; returns 0, or 2 if there are any."""
    from fewlabels.recipe.recipe import load_recipe

    paths, overrides = split_words(arguments)
    mistakes = []
    for path in paths:
        try:
            recipe = load_recipe(path, overrides, imports)
            from fewlabels.runs.check_start import check_start  # torch, once a recipe can be read

            check_start(recipe)
        except RecipeError as error:
            mistakes += error.mistakes
        except FewLabelsError as error:
            mistakes += [f"{path}: {line}" for line in str(error).split("\n")]
        else:
            print(f"{path}: good (recipe {recipe.hash})")
            for remark in recipe.remarks:
                print(f"  {make_printable(remark)}")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 2 if mistakes else 0


def run_study(given: argparse.Namespace) -> None:
    """``fewlabels study``: run a study and print its table; write it to ``out`` too, if given."""
    from fewlabels.runs.study import run_study, seeds_of
    from fewlabels.runs.study_table import format_markdown, write_tables

    (paths, overrides), out = split_words(given.recipes), given.out
    if out is not None and out.suffix in (".md", ".csv"):
        out = out.with_suffix("")
    if out is not None and not out.name:
        raise FewLabelsError(f"--out {out}: name a file, as in tables/mine; two are written")
    if out is not None:
        refuse_unwritable(out.with_name(f"{out.name}.csv"))
    rows = run_study(
        paths,
        seeds_of(given.seeds),
        overrides,
        given.runs,
        validation=given.validation,
        imports=given.imports,
    )
    if out is not None:
        write_tables(rows, out)
    print(format_markdown(rows), end="")
