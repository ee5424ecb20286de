"""Where a relative path of a recipe is looked for."""

from __future__ import annotations

import os
from pathlib import Path


def data_roots() -> list[Path]:
    """The folders of data sets: $FEWLABELS_DATA if set, else ./data and ../shared/data."""
    chosen = os.environ.get("FEWLABELS_DATA")
    return [Path(chosen)] if chosen else [Path("data"), Path("..", "shared", "data")]


def locate(path: str | Path) -> Path | None:
    """The existing file or folder that ``path`` means: as written, else under a data root."""
    path = Path(path).expanduser()
    for candidate in [path, *(root / path for root in data_roots())]:
        if candidate.exists():
            return candidate
    return None


def looked_for(path: str | Path) -> str:
    """Where :func:`locate` looked, for a sentence."""
    return " or ".join(str(p) for p in [Path(path), *(root / path for root in data_roots())])
