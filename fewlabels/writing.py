"""A file that a person asks for: whole or not at all, and never over one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fewlabels.errors import FewLabelsError


def refuse_existing(out: str | Path, holds: str = "something of yours") -> None:
    """Say so before any work is done.

    Raises:
        FewLabelsError: the file is there, or its place cannot be written.
    """
    refuse_unwritable(out)
    if Path(out).exists():
        raise FewLabelsError(f"{out} is there, and may hold {holds}; name another file")


def refuse_unwritable(out: str | Path) -> None:
    """Say before any work is done that nothing can be written there.

    Raises:
        FewLabelsError: so.
    """
    place = Path(out).absolute()
    try:
        above = next((folder for folder in place.parents if folder.exists()), place)
        place.exists()  # a name that is too long
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error.strerror}") from error
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise FewLabelsError(f"{above} is no folder that you may write to; name another place")


@contextmanager
def new_file(out: str | Path) -> Iterator[Path]:
    """A draft to write, which is moved to ``out`` at the end; after an error it is gone.

    It has the name of ``out``, in a folder of its own beside it.

    Raises:
        FewLabelsError: the place cannot be written.
    """
    file = Path(out)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".part-") as own:
            yield Path(own) / file.name
            os.replace(Path(own) / file.name, file)
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error
