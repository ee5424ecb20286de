"""metrics.jsonl: one JSON object a line, written by the main process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fewlabels.errors import FewLabelsError
from fewlabels.files import new_file, open_regular

Row = dict[str, Any]


class MetricLog:
    """An append-only file of rows.

    Args:
        path: None in processes that do not write.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def begin_with(self, row: Row) -> None:
        """Forget all rows, and write the first, as one act."""
        if self.path is not None:
            with new_file(self.path) as draft:
                draft.write_text(json.dumps(row) + "\n", encoding="utf-8")

    def write_rows(self, rows: Iterable[Row], **where: Any) -> None:
        """Append rows, each with the entries of ``where`` (round, step)."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({**row, **where}) + "\n")

    def read_rows(self) -> list[Row]:
        """All rows so far.

        Raises:
            FewLabelsError: a line that is no row, or the file is a pipe or a device.
        """
        if self.path is None or not self.path.exists():
            return []
        with open_regular(self.path) as file:
            return parse_rows(file.read(), self.path)

    def count_bytes(self) -> int:
        """The size of the file in bytes, which a checkpoint saves for :meth:`cut_back`."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def cut_back(self, size: int) -> None:
        """Forget what was written after a checkpoint that the run goes back to.

        Raises:
            FewLabelsError: what was written before it is not all there.
        """
        if self.path is None:
            return
        held = self.path.read_bytes()[:size] if self.path.exists() else b""
        if len(held) < size:
            raise FewLabelsError(
                f"{self.path} has {len(held)} bytes of the {size} that were written when the "
                "checkpoint was; put the file back, or start a new run"
            )
        parse_rows(held, self.path)
        if self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(size)


def parse_rows(lines: bytes, path: Path) -> list[Row]:
    """The rows in a file's lines; each says of which kind it is.

    Raises:
        FewLabelsError: a line that is no row.
    """
    rows = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
            raise FewLabelsError(
                f"{path}:{number} is damaged: it is no row of metrics; put the file back, or start "
                "a new run"
            )
        rows.append(row)
    return rows
