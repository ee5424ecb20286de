"""A file that a person asks for: whole or not at all, and never over one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewlabels.errors import FewLabelsError


def refuse_existing(out: str, holds: str = "something of yours") -> None:
    """Say so before any work is done.

    Raises:
        FewLabelsError: the file is there.
    """
    if Path(out).exists():
        raise FewLabelsError(f"{out} is there, and may hold {holds}; name another file")


@contextmanager
def new_file(out: str) -> Iterator[Path]:
    """A draft to write, which is moved to ``out`` at the end; after an error it is gone.

    Raises:
        FewLabelsError: the place cannot be written.
    """
    file = Path(out)
    draft = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error
