"""Reads the folder of a finished run, for its model card."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fewlabels.errors import HubError
from fewlabels.evaluation.classification import summarize_error
from fewlabels.files import open_regular
from fewlabels.recipe.recipe import Recipe, load_recipe
from fewlabels.runs.resume import refuse_edited_recipe
from fewlabels.training.file_damage import read_undamaged
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder, is_oracle

Scores = dict[tuple[str, str], dict[str, float]]
"""Scores in percent: by (search, model), then by measure."""
MEASURES = ("recall", "map", "r_prec", "nmi")


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a finished run, its recipe, and the rows of its metrics.jsonl."""

    folder: Path
    recipe: Recipe
    rows: list[dict[str, Any]]

    @property
    def start(self) -> dict[str, Any]:
        """The first row: versions and device."""
        return self.rows[0]

    @property
    def end(self) -> dict[str, Any]:
        """The last row: final score, minutes and steps."""
        return self.rows[-1]

    @property
    def measured(self) -> bool:
        """Whether there was anything to score."""
        return math.isfinite(self.end["score"])


@dataclass(frozen=True)
class Labels:
    """How many images had which kind of label.

    ``given`` by people, None if all that the data set has; ``validation``: held out. Of the
    ``discovered`` labels ``known`` are on images of known class, and ``wrong`` of these differ from
    that class. ``clustered`` images have cluster numbers, which are neither right nor wrong.
    """

    given: int | None
    validation: int
    discovered: int
    wrong: int
    known: int
    clustered: int


def read_run(folder: Path) -> FinishedRun:
    """The run in a folder.

    Raises:
        HubError: no run folder, one that has not come to its end, or an ORACLE run.
        RecipeError: a recipe that this version does not read.
        FewLabelsError: metrics that are damaged, or a recipe that has been edited since.
    """
    files = RunFolder(folder)
    if not files.recipe.is_file():
        raise HubError(f"{folder} is no run folder: it has no recipe.yaml; name one, as in runs/x")
    recipe = load_recipe(files.recipe, ended=True)
    rows = MetricLog(files.metrics).read_rows()
    if recipe.rounds.oracle or any(is_oracle(row) for row in rows):
        raise HubError(
            f"{folder}: its discovered samples got their true labels (rounds.oracle), which is an "
            "analysis and no result, so it is not pushed; run it with rounds.oracle=false"
        )
    if not rows or rows[-1]["kind"] != "end":
        raise HubError(
            f"{folder} has not come to its end; fewlabels run --resume {folder} goes on with it"
        )
    refuse_edited_recipe(recipe, folder, "or push a run of the edited recipe")
    return FinishedRun(folder, recipe, rows)


def check_same(runs: Sequence[FinishedRun]) -> None:
    """Check that all runs have the same recipe and plugins, and different seeds.

    Raises:
        HubError: they do not; it names the first run that does not fit.
    """

    def apart_from_seed(run: FinishedRun) -> dict[str, Any]:
        return {k: v for k, v in run.recipe.resolved.items() if k not in ("name", "seed")}

    first = runs[0]
    seeds = {first.recipe.seed}
    for run in runs[1:]:
        if apart_from_seed(run) != apart_from_seed(first):
            raise HubError(
                f"{run.folder} is of another recipe than {first.folder}; give runs that differ in "
                "their seed alone"
            )
        noted, other = run.start.get("plugins"), first.start.get("plugins")
        if None not in (noted, other) and noted != other:  # older runs did not note them
            raise HubError(
                f"{run.folder} was made with other plugins than {first.folder}, or other versions "
                "of them; give runs that differ in their seed alone"
            )
        if run.recipe.seed in seeds:
            raise HubError(f"{run.folder}: seed {run.recipe.seed} is given twice; leave one out")
        seeds.add(run.recipe.seed)


def last_scores(run: FinishedRun) -> Scores:
    """The last scores of each model in each search; errors as ``evaluation.report`` says."""
    rows = [row for row in run.rows if row["kind"] == "evaluation"]
    found: Scores = {}
    for row in rows:
        place = (row["search"], row["model"])
        if "error" in row or "validation_error" in row:
            told = summarize_error(rows, row["model"], run.recipe.evaluation.report)
            names = {"error": "test error", "validation": "validation error"}
            found[place] = {names[k]: 100 * told[k] for k in names if k in told}
        else:
            found[place] = {k: 100 * v for k, v in row.items() if k.startswith(MEASURES)}
    return found


def summarize_labels(run: FinishedRun) -> Labels:
    """Count the labels in the ledger: the last label of each image in the last generation.

    Raises:
        FewLabelsError: labelled.csv or a file of the ledger is missing or damaged.
    """
    asked = run.recipe.data.labels
    given: int | None = {"none": 0, "all": None}.get(str(asked))
    validation = run.recipe.data.validation
    if isinstance(asked, int):
        parts = read_undamaged(RunFolder(run.folder).labelled, _read_parts)
        given, validation = parts.count("labelled"), parts.count("validation")
    files = sorted(RunFolder(run.folder).ledger.glob("*.parquet"))
    lines = [line for file in files for line in read_undamaged(file, _read_ledger)]
    begin = _last_generation(run.recipe, max((line["round"] for line in lines), default=0))
    last = {
        line["row"]: line
        for line in sorted(lines, key=lambda line: line["round"])
        if line["round"] >= begin
    }
    if given == 0:  # then labels are numbers of clusters
        return Labels(0, validation, 0, 0, 0, clustered=len(last))
    known = [line for line in last.values() if line["truth"] >= 0]
    wrong = sum(line["label"] != line["truth"] for line in known)
    return Labels(given, validation, len(last), wrong, len(known), clustered=0)


def _read_parts(file: Path) -> list[str]:
    with open_regular(file) as stream:
        return [row["part"] for row in csv.DictReader(io.TextIOWrapper(stream, "utf-8"))]


def _read_ledger(file: Path) -> list[dict[str, int]]:
    with open_regular(file) as stream:
        table: Any = pq.read_table(stream, columns=["round", "row", "label", "truth"])
        return [{key: int(value) for key, value in line.items()} for line in table.to_pylist()]


def _last_generation(recipe: Recipe, last: int) -> int:
    """The first round of the generation that contains round ``last``."""
    ask = recipe.rounds
    first = ask.discover_every if recipe.discovery and recipe.data.labels != "none" else 0
    return first + max(0, last - first) // ask.rounds * ask.rounds
