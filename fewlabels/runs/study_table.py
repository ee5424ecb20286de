"""The table of a study: means, spreads and paired differences."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fewlabels.evaluation.bootstrap import ClassScores, find_interval_of_mean
from fewlabels.files import new_file

CERTAIN = 0.95


@dataclass
class StudyRow:
    """The results of one recipe; scores and shares in percent, ``scores`` and ``wrong`` by seed.

    ``wrong`` is the share of a run's discovered labels that are not the true class, where that is
    known. ``by_round`` has the same share for each round with a discovery, one number per seed.
    ``by_class`` are an embedder's scores by test class, by seed. ``frozen`` is what the backbone
    gives without training, by seed, ``frozen_model`` its name in words. ``recipe`` is the recipe's
    hash with seed 0, which tells what a row is of once recipes have changed.
    """

    name: str
    measure: str
    scores: dict[int, float] = field(default_factory=dict)
    wrong: dict[int, float] = field(default_factory=dict)
    by_round: dict[int, list[float]] = field(default_factory=dict)
    by_class: dict[int, ClassScores] = field(default_factory=dict)
    steps: float = 0.0
    images: float = 0.0
    other: float = 0.0  # steps of phases that are not compared
    minutes: float = 0.0
    oracle: bool = False  # discovered samples got their true labels: no result
    frozen: dict[int, float] = field(default_factory=dict)
    frozen_model: str = ""
    recipe: str = ""

    @property
    def title(self) -> str:
        """The name, marked if it is an ORACLE run."""
        return f"{self.name} (ORACLE)" if self.oracle else self.name


class Comparison(NamedTuple):
    """Mean and standard deviation of a row; its paired difference to the first, 95 % interval."""

    mean: float
    sd: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return mean, math.sqrt(spread)


def compare_with_first(values: Mapping[int, float], first: Mapping[int, float]) -> Comparison:
    """Compare values with those of the first row, paired by seed (95 % by Student's t)."""
    from scipy.stats import t

    whole = mean_and_spread(list(values.values()))
    shared = sorted(set(values) & set(first))
    if values is first or len(shared) < 2:
        return Comparison(*whole)
    mean, spread = mean_and_spread([values[s] - first[s] for s in shared])
    reach = float(t.ppf((1 + CERTAIN) / 2, len(shared) - 1)) * spread / math.sqrt(len(shared))
    return Comparison(*whole, mean, mean - reach, mean + reach)


def mean_of_frozen(row: StudyRow) -> float:
    """Of the seeds of a row that have it."""
    return mean_and_spread(list(row.frozen.values()))[0]


Interval = tuple[float, float] | None


def find_class_intervals(row: StudyRow, first: StudyRow) -> tuple[Interval, Interval]:
    """Intervals of a row's mean, and of its difference to the first row, if other classes were
    tested (95 % by drawing classes anew); of the difference on the seeds that both have. None where
    a score by class is missing."""
    if set(row.by_class) != set(row.scores):
        return None, None
    own = find_interval_of_mean(list(row.by_class.values()))
    shared = [seed for seed in row.by_class if seed in first.by_class]
    if row is first or not shared:
        return _in_percent(own), None
    pair = [[each.by_class[seed] for seed in shared] for each in (row, first)]
    return _in_percent(own), _in_percent(find_interval_of_mean(*pair))


def _in_percent(interval: Interval) -> Interval:
    return interval and (100 * interval[0], 100 * interval[1])


def _format_interval(interval: Interval, sign: str) -> str:
    """``[low, high]``; empty for None."""
    return f"[{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]" if interval else ""


def _format_cells(found: Comparison) -> list[str]:
    """Two cells: mean and spread, and the difference."""
    difference = ""
    if found.difference is not None:
        difference = f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return [f"{found.mean:.2f} +- {found.sd:.2f}", difference]


def _format_table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    rule = ["---"] * len(head)
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in (head, rule, *lines))


def format_markdown(rows: Sequence[StudyRow]) -> str:
    """The table of scores and costs; with discoveries, a second table of wrong labels."""
    against = ["seeds", "mean +- sd", "to the first row [95 %]"]
    costs = ["student steps", "unlabelled images", "other steps", "minutes"]
    classes = ["with other classes [95 %]", "and to the first row"]
    intervals = [find_class_intervals(row, rows[0]) for row in rows]
    if not any(own for own, _ in intervals):
        classes = []
    # One column: all rows of a study have the same measure, so the same kind of frozen model.
    frozen = list(dict.fromkeys(row.frozen_model for row in rows if row.frozen))[:1]
    head = [f"{rows[0].measure}, %", *against, *classes, *frozen, *costs]
    lines = []
    for row, (own, difference) in zip(rows, intervals, strict=True):
        told = _format_cells(compare_with_first(row.scores, rows[0].scores))
        if classes:
            told += [_format_interval(own, ""), _format_interval(difference, "+")]
        if frozen:
            told.append(f"{mean_of_frozen(row):.2f}" if row.frozen else "")
        cost = [round(row.steps), round(row.images), round(row.other), f"{row.minutes:.1f}"]
        lines.append([row.title, len(row.scores), *told, *cost])
    tables = [_format_table(head, lines)]
    looked = {round(row.images) for row in rows} - {0}  # supervised rows look at none
    if len({round(row.steps) for row in rows}) > 1 or len(looked) > 1:
        tables.append("The rows differ in student steps or unlabelled images: not a fair study.\n")
    if found := [row for row in rows if row.wrong]:
        head, lines = ["wrong among the discovered labels, %", *against, "each discovery"], []
        for row in found:
            told = _format_cells(compare_with_first(row.wrong, found[0].wrong))
            means = [mean_and_spread(row.by_round[r])[0] for r in sorted(row.by_round)]
            each = " / ".join(f"{mean:.1f}" for mean in means)
            lines.append([row.title, len(row.wrong), *told, each])
        tables.append(_format_table(head, lines))
    return "\n".join(tables)


def write_tables(rows: Sequence[StudyRow], out: Path) -> None:
    """Write ``out.md`` and ``out.csv``; the CSV has a line per row and measure, with every seed."""
    with new_file(out.with_name(f"{out.name}.md")) as draft:
        draft.write_text(format_markdown(rows), encoding="utf-8")
    text = io.StringIO()
    seeds = sorted({seed for row in rows for seed in row.scores})
    cost = ["steps", "unlabelled images", "other steps", "minutes"]
    ends = ["class low", "class high", "difference class low", "difference class high"]
    head = ["row", "measure", "seeds", *Comparison._fields, *ends, "frozen", *cost, "recipe"]
    head += [f"seed {seed}" for seed in seeds]
    writer = csv.DictWriter(text, head)
    writer.writeheader()
    found = [row for row in rows if row.wrong]
    for row, measure, values, first in [
        *((row, row.measure, row.scores, rows[0].scores) for row in rows),
        *((row, "wrong labels", row.wrong, found[0].wrong) for row in found),
    ]:
        line = {"row": row.title, "measure": measure, "seeds": len(values), "recipe": row.recipe}
        line |= compare_with_first(values, first)._asdict()
        if values is row.scores:
            pairs = find_class_intervals(row, rows[0])
            line |= dict(zip(ends, [*(pairs[0] or ("", "")), *(pairs[1] or ("", ""))], strict=True))
            line["frozen"] = mean_of_frozen(row) if row.frozen else ""
        values_of_cost = [round(row.steps), round(row.images), round(row.other), row.minutes]
        line |= dict(zip(cost, values_of_cost, strict=True))
        writer.writerow(line | {f"seed {s}": value for s, value in values.items()})
    with new_file(out.with_name(f"{out.name}.csv")) as draft:
        draft.write_text(text.getvalue(), encoding="utf-8")
