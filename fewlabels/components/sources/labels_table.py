"""Labels of images from a CSV file, as spreadsheets and people write one."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

from fewlabels.data.class_names import clean_label
from fewlabels.errors import DataError, first_few

SEPARATORS = ",;\t"
"""Between cells; the one that the first line has most of, where it has any."""

NO_ROW = re.compile(r'"?sep=.?"?\s*', re.IGNORECASE)
"""What Excel writes above a table to say what separates its cells."""


class Row(NamedTuple):
    """A row of a table, and the line on which it begins."""

    line: int
    file: str
    label: str | None


def read_labels_csv(
    table: Path, folder: Path, names: Sequence[str], passed_over: Sequence[str] = ()
) -> list[str | None]:
    """Read the labels of images from a CSV file with columns file and label.

    Blanks around cells do not count, nor do rows without any text. A file may be written as a whole
    path, with a backslash for ``/``, in another Unicode form or case, while only one can be meant.

    Args:
        names: (N,) paths of the images below ``folder``.
        passed_over: sentences on files that are not among them, though they may be listed.

    Returns:
        One label for each name; None for images that the table leaves out or gives no label.

    Raises:
        DataError: no such columns, text that is not UTF-8, a row that cannot be taken apart,
            unknown files, or files listed twice.
    """
    rows = _read_rows(table, set(names))
    images = _match_files([row.file for row in rows], folder, names)
    unknown = [row for row in rows if row.file not in images]
    if unknown:
        listed = first_few([f"line {row.line}: {row.file}" for row in unknown], 3)
        raise DataError(
            f"{table}: {_count_files(unknown)} not among the images of the folder ({listed}); "
            + "; ".join(["remove their rows, or add the files", *passed_over])
        )
    own_rows: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        own_rows[images[row.file]].append(row)
    twice = [own for own in own_rows.values() if len(own) > 1]
    if twice:
        listed = first_few([f"lines {a.line} and {b.line}: {a.file}" for a, b, *_ in twice], 3)
        raise DataError(
            f"{table}: {_count_files(twice)} listed twice ({listed}); keep one row of each"
        )
    return [own_rows[i][0].label if i in own_rows else None for i in range(len(names))]


def read_tables(
    tables: Sequence[Path], folder: Path, names: Sequence[str], passed_over: Sequence[str] = ()
) -> list[str | None]:
    """The labels of images by several tables together; see :func:`read_labels_csv`.

    Raises:
        DataError: as there, or tables that disagree.
    """
    found: list[str | None] = [None] * len(names)
    said: dict[int, Path] = {}
    for table in tables:
        for i, label in enumerate(read_labels_csv(table, folder, names, passed_over)):
            if label is None:
                continue
            if found[i] not in (None, label):
                raise DataError(
                    f"{names[i]} is {found[i]!r} in {said[i]} and {label!r} in {table}; keep one "
                    "of the two rows"
                )
            found[i], said[i] = label, table
    return found


def _count_files(items: Sequence[object]) -> str:
    return "1 file is" if len(items) == 1 else f"{len(items)} files are"


def _match_files(files: Sequence[str], folder: Path, names: Sequence[str]) -> dict[str, int]:
    """The image that each file means, by the strictest reading that knows it."""

    def read_as_path(name: str) -> str:
        name = unicodedata.normalize("NFC", name.replace("\\", "/"))
        return os.path.normpath(os.path.join(root, name))

    def read_in_any_case(name: str) -> str:
        return read_as_path(name).casefold()

    root = unicodedata.normalize("NFC", str(folder.absolute()))
    images: dict[str, int] = {}
    for read in (str, str.strip, read_as_path, read_in_any_case):
        if left := {file for file in files if file not in images}:
            times = Counter(map(read, names))
            known = {read(name): i for i, name in enumerate(names)}
            images |= {file: known[read(file)] for file in left if times[read(file)] == 1}
    return images


def _read_rows(table: Path, names: Container[str]) -> list[Row]:
    """The rows of a table that hold any text, in which names of images may be quoted."""
    if not table.is_file():
        raise DataError(f"{table} is no file; name a CSV file with columns file and label")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            return list(_parse_rows(table, file, names))
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: is not UTF-8 ({error}); save it as 'CSV UTF-8'") from error


def _parse_rows(table: Path, text: TextIO, names: Container[str]) -> Iterator[Row]:
    first, above = text.readline(), 0
    while first and (not first.strip(SEPARATORS + " \r\n") or NO_ROW.fullmatch(first)):
        first, above = text.readline(), above + 1
    separator = max(SEPARATORS, key=first.count)
    lines = chain([first], text)
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    line, header = 1 + above, [""]
    try:
        header = [cell.strip().casefold() for cell in next(reader, [])]
        file, label = _find_columns(table, header, first)
        line = reader.line_num + above + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if any(cell.strip() for cell in cells[len(header) :]):
                    raise DataError(
                        f"{table}:{line}: {len(cells)} cells, where the first line has "
                        f'{len(header)}; put a name that holds a separator in quotes ("")'
                    )
                cells += [""] * len(header)
                yield _make_row(table, line, cells[file].strip(), cells[label].strip(), names)
            line = reader.line_num + above + 1
    except csv.Error as error:
        if "field limit" in str(error) and reader.line_num + above == line:  # no quote goes on
            raise DataError(
                f"{table}:{line}: a cell of over {csv.field_size_limit():,} letters; shorten it"
            ) from error
        raise DataError(_describe_open_quote(table, line)) from error


def _find_columns(table: Path, header: Sequence[str], first: str) -> tuple[int, int]:
    """Where the columns file and label are."""
    if not {"file", "label"} <= set(header):
        raise DataError(
            f"{table}: its first line must name the columns file and label, and is "
            f"{first.strip()[:80] or 'empty'}"
        )
    for column in ("file", "label"):
        if header.count(column) > 1:
            raise DataError(f"{table}: its first line names the column {column} twice; keep one")
    return header.index("file"), header.index("label")


def _make_row(table: Path, line: int, file: str, label: str, names: Container[str]) -> Row:
    if not file:
        raise DataError(f"{table}:{line}: names no file; name one, or remove the row")
    if "\0" in file + label:
        raise DataError(f"{table}:{line}: holds a NUL, which no name has; save it as 'CSV UTF-8'")
    if {"\n", "\r"} & set(label if file in names else file + label):
        raise DataError(_describe_open_quote(table, line))
    return Row(line, file, clean_label(label))


def _describe_open_quote(table: Path, line: int) -> str:
    return (
        f"{table}:{line}: a quote that opens in this row is not closed before its next cell; close "
        'it, or double it ("") where it belongs to a name'
    )
