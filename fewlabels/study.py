"""Studies: recipes over seeds, each a row of a table, compared with the first one in pairs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fewlabels.errors import FewLabelsError
from fewlabels.recipe import Recipe, load_recipe

CERTAIN = 0.95
COLUMNS = (
    "row",
    "seeds",
    "mean",
    "sd",
    "difference",
    "low",
    "high",
    "steps",
    "unlabelled images",
    "minutes",
)


@dataclass
class Row:
    """One recipe's runs, by seed, in percent."""

    name: str
    measure: str
    scores: dict[int, float] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    minutes: float = 0.0


def seeds_of(text: str) -> list[int]:
    """``"0-4,9"`` as [0, 1, 2, 3, 4, 9].

    Raises:
        FewLabelsError: anything else.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise FewLabelsError(f"--seeds {text!r}: expected numbers such as 0-9 or 100-104,7")
    spans = [[int(n) for n in span.split("-")] for span in text.split(",")]
    seeds = [n for span in spans for n in range(span[0], span[-1] + 1)]
    return list(dict.fromkeys(seeds))


def study(
    recipes: Sequence[str | Path],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    runs: str | Path = "runs/studies",
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Run every recipe with every seed, or take what is there already.

    A finished run of the same recipe is read, a stopped one goes on.

    Args:
        overrides: ``key=value`` for every recipe.
        runs: where the run folders stand, ``NAME-seed-S`` each.

    Raises:
        FewLabelsError: a mistake in a recipe, or a run folder that is of another recipe.
    """
    loaded = [
        [load_recipe(path, [*overrides, f"seed={seed}"]) for seed in seeds] for path in recipes
    ]
    rows: list[Row] = []
    for own in loaded:
        row = Row(own[0].name, "")
        if row.name in {other.name for other in rows}:
            raise FewLabelsError(f"two recipes are called {row.name!r}; give one another name")
        for recipe in own:
            end = _run(recipe, Path(runs))
            row.measure, row.scores[recipe.seed] = end["measure"], 100 * end["score"]
            row.steps, row.images = end["steps"], end["images"]
            row.minutes += end["minutes"] / len(own)
            say(f"{row.name} seed {recipe.seed}: {row.measure} {row.scores[recipe.seed]:.2f}")
        rows.append(row)
    return rows


def _run(recipe: Recipe, runs: Path) -> dict[str, Any]:
    """The last row of a run's metrics, after it has ended."""
    folder = runs / f"{recipe.name}-seed-{recipe.seed}"
    if (folder / "recipe.yaml").is_file():
        before = load_recipe(folder / "recipe.yaml")
        if before.hash != recipe.hash:
            raise FewLabelsError(
                f"{folder} is of another recipe ({before.hash}, not {recipe.hash}); remove it, or "
                "choose another --runs"
            )
        end = _end(folder)
        if end is not None:
            return end
    from fewlabels.assembly import assemble  # imports torch: only once the recipes stand

    started = (folder / "recipe.yaml").is_file()
    named = {**recipe.resolved, "name": folder.name}
    recipe = replace(recipe, name=folder.name, resolved=named)
    folder, _ = assemble(recipe, runs, folder if started else None)
    end = _end(folder)
    assert end is not None
    return end


def _end(folder: Path) -> dict[str, Any] | None:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return last if last.get("kind") == "end" else None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 of one value)."""
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return mean, math.sqrt(spread)


def paired(row: Row, first: Row) -> tuple[float, float, float] | None:
    """Mean difference to the first row over their seeds, and its 95 % interval (Student's t)."""
    from scipy.stats import t

    shared = sorted(set(row.scores) & set(first.scores))
    if row is first or len(shared) < 2:
        return None
    mean, spread = mean_and_spread([row.scores[s] - first.scores[s] for s in shared])
    reach = float(t.ppf((1 + CERTAIN) / 2, len(shared) - 1)) * spread / math.sqrt(len(shared))
    return mean, mean - reach, mean + reach


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One mapping a row, with the keys of :data:`COLUMNS`."""
    result = []
    for row in rows:
        mean, spread = mean_and_spread(list(row.scores.values()))
        difference, low, high = paired(row, rows[0]) or (None, None, None)
        values = (
            row.name, len(row.scores), mean, spread, difference, low, high, row.steps, row.images,
            row.minutes,
        )  # fmt: skip
        result.append(dict(zip(COLUMNS, values, strict=True)))
    return result


def markdown(rows: Sequence[Row]) -> str:
    """The table for people."""
    lines = [
        f"| {rows[0].measure}, % | seeds | mean +- sd | to the first row [95 %] | student steps | "
        "unlabelled images | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table(rows):
        difference = ""
        if row["difference"] is not None:
            difference = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        spread = f"{row['mean']:.2f} +- {row['sd']:.2f}"
        cells = [row["row"], row["seeds"], spread, difference, row["steps"]]
        cells += [row["unlabelled images"], f"{row['minutes']:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def write(rows: Sequence[Row], out: Path) -> None:
    """``out.md`` and ``out.csv``; the latter also has each seed's score."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(markdown(rows), encoding="utf-8")
    seeds = sorted({seed for row in rows for seed in row.scores})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *(f"seed {s}" for s in seeds)])
    writer.writeheader()
    for row, values in zip(rows, table(rows), strict=True):
        writer.writerow(values | {f"seed {s}": score for s, score in row.scores.items()})
    out.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")
