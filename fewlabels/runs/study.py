"""Studies: recipes run with several seeds, a table row each, compared to the first seed by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fewlabels.contracts.ranges import parse_number_ranges
from fewlabels.errors import FewLabelsError, Stopped
from fewlabels.evaluation.against_frozen import NAMES, OWN
from fewlabels.evaluation.bootstrap import read_class_scores
from fewlabels.recipe.recipe import Recipe, load_recipe
from fewlabels.registry.user_code import find_changed_files
from fewlabels.runs.provenance import refuse_other_plugins
from fewlabels.runs.resume import refuse_edited_recipe
from fewlabels.runs.study_table import StudyRow
from fewlabels.training.run_folder import Row, RunFolder, is_oracle


def seeds_of(text: str) -> list[int]:
    """Parse a text of seeds: ``"0-4,9"`` gives [0, 1, 2, 3, 4, 9].

    Raises:
        FewLabelsError: the text is not a list of numbers and ranges.
    """
    try:
        return parse_number_ranges(text)
    except ValueError as error:
        raise FewLabelsError(f"--seeds {text!r}: {error}") from error


def run_study(
    recipes: Sequence[str | Path],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    runs: str | Path = "runs/studies",
    say: Callable[[str], None] = print,
    validation: bool = False,
    imports: Sequence[str] = (),
) -> list[StudyRow]:
    """Run every recipe with every seed, or take what is there already.

    A finished run of the same recipe is read, a stopped one goes on.

    Args:
        overrides: ``key=value`` for every recipe.
        runs: where the run folders stand, ``NAME-seed-S`` each.
        validation: give the error on ``data.validation`` images and say nothing of the test: for
            choices.
        imports: modules that register components of yours.

    Raises:
        FewLabelsError: a mistake in a recipe, or a run folder that is of another recipe.
        Stopped: a signal has ended it.
    """
    loaded = _load_recipes(recipes, seeds, overrides, validation, imports)
    rows: list[StudyRow] = []
    for own in loaded:
        row = StudyRow(own[0].name, "", recipe=_hash_any_seed(own[0]))
        for recipe in own:
            lines = _run_recipe(recipe, Path(runs), must_score=not validation)
            try:
                _take_result(row, recipe.seed, lines, 1 / len(own), validation)
            except (KeyError, TypeError) as error:
                raise FewLabelsError(
                    f"{row.name} seed {recipe.seed}: its metrics.jsonl is damaged (a row lacks "
                    f"{error}); remove its folder in {runs}"
                ) from error
            if math.isnan(row.scores[recipe.seed]):  # of a run that stood there
                raise FewLabelsError(
                    f"{row.name} seed {recipe.seed}: nothing was scored, so nothing can be "
                    f"compared; remove its folder in {runs}, and name test images (data.test)"
                )
            place = RunFolder(_name_folder(recipe, Path(runs))).class_scores
            if not validation and (by_class := read_class_scores(place)):
                row.by_class[recipe.seed] = by_class
            say(f"{row.name} seed {recipe.seed}: {row.measure} {row.scores[recipe.seed]:.2f}")
        rows.append(row)
    return rows


def _load_recipes(
    recipes: Sequence[str | Path],
    seeds: Sequence[int],
    overrides: Sequence[str],
    validation: bool,
    imports: Sequence[str],
) -> list[list[Recipe]]:
    """Each recipe with each seed; refuses two of one name, and choices without held-out images."""
    loaded = [
        [load_recipe(path, [*overrides, f"seed={seed}"], imports) for seed in seeds]
        for path in recipes
    ]
    names = [own[0].name for own in loaded]
    for own in loaded:
        if names.count(own[0].name) > 1:
            raise FewLabelsError(f"two recipes are called {own[0].name!r}; give one another name")
        if validation and not own[0].data.validation:
            raise FewLabelsError(
                f"{own[0].name}: no image is held out; set data.validation to a number"
            )
    return loaded


def _take_result(
    row: StudyRow, seed: int, lines: Sequence[Row], share: float, validation: bool
) -> None:
    """Add a run's metrics to its row; ``share``: 1 / the runs of the row."""
    end = lines[-1]
    row.measure, score = end["measure"], end["score"]
    if validation:
        row.measure, score = "validation error", end["validation"]
    row.scores[seed] = 100 * score
    frozen = end.get("frozen_validation" if validation else "frozen")
    if frozen is not None:
        row.frozen[seed] = 100 * frozen
        row.frozen_model = NAMES.get(end["frozen_model"], NAMES[OWN])
    row.steps += end["steps"] * share
    row.images += end["images"] * share
    row.other += end["other_steps"] * share
    row.minutes += end["minutes"] * share
    row.oracle = is_oracle(end)
    _count_wrong(row, seed, lines)


def _count_wrong(row: StudyRow, seed: int, lines: Sequence[Row]) -> None:
    found = [line for line in lines if line["kind"] == "discovery" and "wrong" in line]
    for line in found:
        row.by_round.setdefault(line["round"], []).append(100 * line["wrong"])
    total = sum(line["discovered"] for line in found)
    if total:
        row.wrong[seed] = 100 * sum(line["wrong"] * line["discovered"] for line in found) / total


def _run_recipe(recipe: Recipe, runs: Path, must_score: bool) -> list[Row]:
    """Run a recipe, unless its run has ended already; returns the rows of its metrics."""
    folder = _name_folder(recipe, runs)
    if RunFolder(folder).recipe.is_file():
        before = load_recipe(RunFolder(folder).recipe)
        if before.hash != recipe.hash:
            raise FewLabelsError(
                f"{folder} is of another recipe ({before.hash}, not {recipe.hash}); remove it, or "
                "choose another --runs"
            )
        if other := find_changed_files(recipe.imports, folder):
            raise FewLabelsError(
                f"{folder} is of other code: {other[0]} is not what is imported now; remove the "
                "folder, or choose another --runs"
            )
    otherwise = "remove the folder, or choose another --runs"
    refuse_edited_recipe(recipe, folder, otherwise)
    refuse_other_plugins(recipe, folder, otherwise)
    if RunFolder(folder).read_end():
        return RunFolder(folder).read_metrics()
    from fewlabels.runs.assemble import assemble_run  # imports torch: only once the recipes stand

    named = {**recipe.resolved, "name": folder.name}
    own = replace(recipe, name=folder.name, resolved=named)
    resume = folder if folder.is_dir() else None
    try:
        folder, _ = assemble_run(own, runs, resume, _say_nothing, must_score)
    except Stopped as stopped:
        said = f"stopped in {recipe.name} seed {recipe.seed}; the same command goes on with it"
        raise Stopped(stopped.number, said if str(stopped) else "") from None
    return RunFolder(folder).read_metrics()


def _hash_any_seed(recipe: Recipe) -> str:
    """The hash that the recipe has with seed 0, whatever its seed."""
    return replace(recipe, resolved={**recipe.resolved, "seed": 0}).hash


def _name_folder(recipe: Recipe, runs: Path) -> Path:
    return runs / f"{recipe.name}-seed-{recipe.seed}"


def _say_nothing(text: str) -> None:
    """Drops progress messages: a study prints only the results of its runs."""
