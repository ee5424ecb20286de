"""Commands about recipes: check, study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fewlabels.errors import FewLabelsError, RecipeError


def check_recipes(arguments: Sequence[str], imports: Sequence[str] = ()) -> int:
    """Check each recipe; every mistake of every one is printed."""
    from fewlabels.plugins import plugins
    from fewlabels.recipe import load_recipe

    overrides = [a for a in arguments if "=" in a]
    mistakes = []
    paths = [a for a in arguments if "=" not in a]
    if not paths:
        raise RecipeError(["no recipe given; name a YAML file before key=value"])
    for path in paths:
        try:
            recipe = load_recipe(path, overrides, imports)
            if plugins(recipe):  # only one that is made shows all that it has
                from fewlabels.building import check_made

                check_made(recipe)
            if recipe.blocks:  # their places are known to the backbone alone
                from fewlabels.building import check_blocks

                check_blocks(recipe)
        except RecipeError as error:
            mistakes += error.mistakes
        except FewLabelsError as error:
            mistakes += [f"{path}: {line}" for line in str(error).split("\n")]
        else:
            print(f"{path}: good (recipe {recipe.hash})")
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    return 2 if mistakes else 0


def run_study(
    words: Sequence[str],
    seeds: str,
    runs: str,
    out: Path | None,
    validation: bool,
    imports: Sequence[str],
) -> None:
    """Run a study and print its table; write it where ``out`` says."""
    from fewlabels.study import markdown, seeds_of, study, write

    paths, overrides = [w for w in words if "=" not in w], [w for w in words if "=" in w]
    if not paths:
        raise RecipeError(["no recipe given; name YAML files before key=value"])
    if out is not None and out.suffix in (".md", ".csv"):
        out = out.with_suffix("")
    if out is not None and not out.name:
        raise FewLabelsError(f"--out {out}: name a file, as in tables/mine; two are written")
    rows = study(paths, seeds_of(seeds), overrides, runs, validation=validation, imports=imports)
    if out is not None:
        write(rows, out)
    print(markdown(rows), end="")
