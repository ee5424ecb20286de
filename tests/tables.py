"""Makes docs/tables.md of the headers of recipes/tables and of the numbers in docs/studies.

``python tests/tables.py`` writes the page; tests/runs/test_table_recipes.py compares it.
``python tests/tables.py FILE`` first notes in the headers what ``OMP_NUM_THREADS=1 fewlabels rehearse
recipes/tables/*/*.yaml > FILE`` printed of each recipe's cost; its time is that of the processor, on
which what else the machine does counts little.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fewlabels.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[1]
TABLES, STUDIES = ROOT / "recipes" / "tables", ROOT / "docs" / "studies"
MEASURES = ("test error", "wrong labels", "recall@1")
COST = re.compile(
    r"^(\S+\.yaml): ([\d,]+ steps, .+?), \S+ \S+ here \(1 thread; (.+?) of the processor\)(.*); rehearsed"
)


@dataclass(frozen=True)
class Cell:
    """A column of a row: what is measured, how it is run, and what the text has."""

    measure: str
    overrides: str
    text: str


@dataclass(frozen=True)
class TableRow:
    """What the header of a recipe says; ``studies`` are paths below recipes/."""

    path: Path
    title: str
    command: str
    cells: tuple[Cell, ...]
    studies: tuple[str, ...]
    cost: str


def read_rows() -> list[TableRow]:
    """Read the headers of all rows, in the order of the text."""
    return sorted((read_row(path) for path in TABLES.glob("*/*.yaml")), key=place_row)


def read_row(path: Path) -> TableRow:
    """Read the header of a recipe; a line of it that begins with blanks belongs to the one before."""
    lines = [line[2:] for line in path.read_text().splitlines() if line.startswith("# ")]
    title, command, *rest = re.sub(r"\n  ", " ", "\n".join(lines)).split("\n")
    cells: list[Cell] = []
    studies: list[str] = []
    cost = ""
    for line in rest:
        if found := re.match(r"Text \((.+?)\): (.+)", line):
            for part in found[2].split("; "):
                cell = re.fullmatch(r"(?:((?:[\w.]+=\S+ ?)+): )?(.+)", part)
                assert cell is not None, f"{path}: {part}"
                cells.append(Cell(found[1], cell[1] or "", cell[2]))
        elif found := re.match(r"Study: (\S+)", line):
            studies += expand_braces(found[1])
        elif line.startswith("Cost: "):
            cost = line.removeprefix("Cost: ")
    return TableRow(path, title, command, tuple(cells), tuple(studies), cost)


def expand_braces(text: str) -> list[str]:
    """Write out one pair of braces, as a shell does."""
    found = re.search(r"\{(.+?)\}", text)
    return [text.replace(found[0], word) for word in found[1].split(",")] if found else [text]


def place_row(row: TableRow) -> tuple[int, int, int, str]:
    """Chapter, table, number of the row or column, and the recipe's name."""
    found = re.match(r"Table (\d+)\.(\d+), (?:row|column) (\d+)", row.title)
    assert found is not None, f"{row.path}: the first line of its header names no table and row"
    return int(found[1]), int(found[2]), int(found[3]), row.path.stem


def read_studies(study: str) -> Iterator[str]:
    """What was measured by the recipe of a study: "data measure mean +- sd (seeds)"."""
    path = ROOT / "recipes" / study
    data = path.stem.split("_")[0]
    begin = path.parent.name
    now = load_recipe(path, ["seed=0"], ended=True).hash
    for file in (STUDIES / f"{begin}_{data}.csv", *sorted(STUDIES.glob(f"{begin}_*_{data}.csv"))):
        found = [row for row in read_csv(file) if row["row"].split(" ")[0] == path.stem]
        for row in found:
            if row["measure"] in MEASURES:
                number = f"{float(row['mean']):.2f} +- {float(row['sd']):.2f} ({row['seeds']})"
                earlier = "" if row.get("recipe") == now else ", earlier recipe"
                yield f"{data} {row['measure']} {number}{earlier}"
        if found:
            return


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is not there."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def format_tables() -> str:
    """The page, as Markdown."""
    page = [*INTRODUCTION]
    for table, group in groupby(read_rows(), lambda row: row.path.parent.name.split("_")[1]):
        page += ["", f"## Table {table}", "", *HEAD, *(format_row(row) for row in group)]
    return "\n".join(page) + "\n"


def format_row(row: TableRow) -> str:
    """One line of a table."""
    texts = [f"{cell.overrides}: {cell.text}".removeprefix(": ") for cell in row.cells]
    measures = {cell.measure for cell in row.cells}
    what = f" ({measures.pop()})" if len(measures) == 1 else ""
    cells = (
        row.title.partition(", ")[2].rstrip("."),
        f"[{row.path.stem}](../{row.path.relative_to(ROOT).as_posix()})",
        "; ".join(texts) + what,
        " ".join(f"[{Path(s).stem}](../recipes/{s})" for s in row.studies),
        "; ".join(number for study in row.studies for number in read_studies(study)),
        shorten_cost(row.cost),
    )
    return f"| {' | '.join(cells)} |"


def shorten_cost(cost: str) -> str:
    """Steps, and time of the processor; nothing if the cost is not known."""
    found = re.match(r"([\d,]+ steps), .* decoded, (.+) of one core", cost)
    return f"{found[1]}, {found[2]}" if found else ""


def note_costs(printed: str) -> None:
    """Write a ``Cost:`` line below the command in the header of each recipe of a sweep."""
    for line in printed.splitlines():
        if found := COST.match(line):
            path = ROOT / found[1]
            title, command, *rest = path.read_text().split("\n")
            rest = [own for own in rest if not own.startswith("# Cost: ")]
            cost = f"# Cost: {found[2]}, {found[3]} of one core{found[4]}"
            path.write_text("\n".join([title, command, cost, *rest]))


INTRODUCTION = (
    "# Tables of the dissertation",
    "",
    "Rows that this package can run: the recipe at the dissertation's scale; what the text reports, in percent, behind the",
    "overrides of a column where it needs some; the study that asks the same at a small scale, and what that measured, in",
    "percent (seeds); and by `fewlabels rehearse` the whole run's steps and the time that one CPU core would need, which shows what",
    "is dear. A study's number is of an *earlier recipe* where the recipe has changed since. [Rows that are not here](../recipes/tables/README.md) are of methods",
    "that this package does not have. Made of the recipes' headers by `python tests/tables.py`.",
)
HEAD = (
    "| row | recipe | the text | reduced study | our number | cost |",
    "| --- | --- | --- | --- | --- | --- |",
)

if __name__ == "__main__":
    if sys.argv[1:]:
        note_costs(Path(sys.argv[1]).read_text())
    (ROOT / "docs" / "tables.md").write_text(format_tables())
