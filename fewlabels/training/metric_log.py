"""metrics.jsonl: one JSON object a line, written by the main process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class MetricLog:
    """An append-only file of rows.

    Args:
        path: None in processes that do not write.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write_rows(self, rows: Iterable[dict[str, Any]], **where: Any) -> None:
        """Append rows, each with the round and step of ``where``."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({**row, **where}) + "\n")

    def read_rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        if self.path is None or not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def count_bytes(self) -> int:
        """Bytes written; a checkpoint keeps it."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def cut_back(self, size: int) -> None:
        """Forget what was written after a checkpoint that the run goes back to."""
        if self.path is not None and self.path.exists():
            with self.path.open("r+b") as file:
                file.truncate(size)
