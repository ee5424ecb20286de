"""Studies: recipes over seeds, each a row of a table, compared with the first one in pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from fewlabels.errors import FewLabelsError
from fewlabels.imports import changed
from fewlabels.plugins import refuse_other_plugins
from fewlabels.recipe import Recipe, load_recipe

CERTAIN = 0.95


@dataclass
class Row:
    """One recipe's runs, by seed, in percent.

    ``wrong`` is the share of a run's discovered labels that are not the true class, where truth is
    known; ``by_round`` the same of each round that discovered, in order, a number a seed.
    """

    name: str
    measure: str
    scores: dict[int, float] = field(default_factory=dict)
    wrong: dict[int, float] = field(default_factory=dict)
    by_round: dict[int, list[float]] = field(default_factory=dict)
    steps: float = 0.0
    images: float = 0.0
    other: float = 0.0  # steps of phases that are not compared
    minutes: float = 0.0
    oracle: bool = False  # discovered samples got their true labels: no result

    @property
    def title(self) -> str:
        """The name, and what a reader must not miss."""
        return f"{self.name} (ORACLE)" if self.oracle else self.name


class Comparison(NamedTuple):
    """Mean and spread of a row, and its paired difference to the first row with an interval."""

    mean: float
    sd: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def seeds_of(text: str) -> list[int]:
    """``"0-4,9"`` as [0, 1, 2, 3, 4, 9].

    Raises:
        FewLabelsError: anything else.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise FewLabelsError(f"--seeds {text!r}: expected numbers such as 0-9 or 100-104,7")
    spans = [[int(n) for n in span.split("-")] for span in text.split(",")]
    if any(int(span[0]) > int(span[-1]) for span in spans):
        raise FewLabelsError(f"--seeds {text!r}: write the smaller number of a range first")
    seeds = [n for span in spans for n in range(span[0], span[-1] + 1)]
    return list(dict.fromkeys(seeds))


def study(
    recipes: Sequence[str | Path],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    runs: str | Path = "runs/studies",
    say: Callable[[str], None] = print,
    validation: bool = False,
    imports: Sequence[str] = (),
) -> list[Row]:
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
    """
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
    rows: list[Row] = []
    for own in loaded:
        row = Row(own[0].name, "")
        for recipe in own:
            lines = _run(recipe, Path(runs))
            end = lines[-1]
            row.measure, score = end["measure"], end["score"]
            if validation:
                row.measure, score = "validation error", end["validation"]
            row.scores[recipe.seed] = 100 * score
            row.steps += end["steps"] / len(own)
            row.images += end["images"] / len(own)
            row.other += end["other_steps"] / len(own)
            row.minutes += end["minutes"] / len(own)
            row.oracle = "ORACLE" in end
            _count_wrong(row, recipe.seed, lines)
            say(f"{row.name} seed {recipe.seed}: {row.measure} {row.scores[recipe.seed]:.2f}")
        rows.append(row)
    return rows


def _count_wrong(row: Row, seed: int, lines: Sequence[dict[str, Any]]) -> None:
    found = [line for line in lines if line["kind"] == "discovery" and "wrong" in line]
    for line in found:
        row.by_round.setdefault(line["round"], []).append(100 * line["wrong"])
    total = sum(line["discovered"] for line in found)
    if total:
        row.wrong[seed] = 100 * sum(line["wrong"] * line["discovered"] for line in found) / total


def _run(recipe: Recipe, runs: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, after it has ended."""
    folder = runs / f"{recipe.name}-seed-{recipe.seed}"
    if (folder / "recipe.yaml").is_file():
        before = load_recipe(folder / "recipe.yaml")
        if before.hash != recipe.hash:
            raise FewLabelsError(
                f"{folder} is of another recipe ({before.hash}, not {recipe.hash}); remove it, or "
                "choose another --runs"
            )
        if other := changed(recipe.imports, folder):
            raise FewLabelsError(
                f"{folder} is of other code: {other[0]} is not what is imported now; remove the "
                "folder, or choose another --runs"
            )
        refuse_other_plugins(recipe, folder, "remove the folder, or choose another --runs")
        if (lines := _lines(folder))[-1:] and lines[-1]["kind"] == "end":
            return lines
    from fewlabels.assembly import assemble  # imports torch: only once the recipes stand

    named = {**recipe.resolved, "name": folder.name}
    recipe = replace(recipe, name=folder.name, resolved=named)
    folder, _ = assemble(recipe, runs, folder if folder.is_dir() else None, say=_nothing)
    return _lines(folder)


def _nothing(text: str) -> None:
    """Of a study's runs only the results are told."""


def _lines(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics; none where they are missing, or cut off in the middle of a line."""
    try:
        text = (folder / "metrics.jsonl").read_text("utf-8")
        return [json.loads(line) for line in text.splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 of one value)."""
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return mean, math.sqrt(spread)


def compare(values: Mapping[int, float], first: Mapping[int, float]) -> Comparison:
    """Values by seed against those of the first row, in pairs (95 % by Student's t)."""
    from scipy.stats import t

    whole = mean_and_spread(list(values.values()))
    shared = sorted(set(values) & set(first))
    if values is first or len(shared) < 2:
        return Comparison(*whole)
    mean, spread = mean_and_spread([values[s] - first[s] for s in shared])
    reach = float(t.ppf((1 + CERTAIN) / 2, len(shared) - 1)) * spread / math.sqrt(len(shared))
    return Comparison(*whole, mean, mean - reach, mean + reach)


def _told(found: Comparison) -> list[str]:
    """Two cells: mean and spread, and the difference."""
    difference = ""
    if found.difference is not None:
        difference = f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return [f"{found.mean:.2f} +- {found.sd:.2f}", difference]


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in (head, rule, *lines))


def markdown(rows: Sequence[Row]) -> str:
    """The table for people; a second one of the wrong labels where samples were discovered."""
    against = ["seeds", "mean +- sd", "to the first row [95 %]"]
    costs = ["student steps", "unlabelled images", "other steps", "minutes"]
    head = [f"{rows[0].measure}, %", *against, *costs]
    lines = []
    for row in rows:
        told = _told(compare(row.scores, rows[0].scores))
        cost = [round(row.steps), round(row.images), round(row.other), f"{row.minutes:.1f}"]
        lines.append([row.title, len(row.scores), *told, *cost])
    tables = [_table(head, lines)]
    looked = {round(row.images) for row in rows} - {0}  # supervised rows look at none
    if len({round(row.steps) for row in rows}) > 1 or len(looked) > 1:
        tables.append("The rows differ in student steps or unlabelled images: not a fair study.\n")
    if found := [row for row in rows if row.wrong]:
        head, lines = ["wrong among the discovered labels, %", *against, "each discovery"], []
        for row in found:
            told = _told(compare(row.wrong, found[0].wrong))
            means = [mean_and_spread(row.by_round[r])[0] for r in sorted(row.by_round)]
            each = " / ".join(f"{mean:.1f}" for mean in means)
            lines.append([row.title, len(row.wrong), *told, each])
        tables.append(_table(head, lines))
    return "\n".join(tables)


def write(rows: Sequence[Row], out: Path) -> None:
    """``out.md`` and ``out.csv``; the latter has a line a row and measure, with every seed's."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(f"{out.name}.md").write_text(markdown(rows), encoding="utf-8")
    text = io.StringIO()
    seeds = sorted({seed for row in rows for seed in row.scores})
    cost = ["steps", "unlabelled images", "other steps", "minutes"]
    head = ["row", "measure", "seeds", *Comparison._fields, *cost, *(f"seed {s}" for s in seeds)]
    writer = csv.DictWriter(text, head)
    writer.writeheader()
    found = [row for row in rows if row.wrong]
    for row, measure, values, first in [
        *((row, row.measure, row.scores, rows[0].scores) for row in rows),
        *((row, "wrong labels", row.wrong, found[0].wrong) for row in found),
    ]:
        line = {"row": row.title, "measure": measure, "seeds": len(values)}
        line |= compare(values, first)._asdict()
        values_of_cost = [round(row.steps), round(row.images), round(row.other), row.minutes]
        line |= dict(zip(cost, values_of_cost, strict=True))
        writer.writerow(line | {f"seed {s}": value for s, value in values.items()})
    out.with_name(f"{out.name}.csv").write_text(text.getvalue(), encoding="utf-8")
