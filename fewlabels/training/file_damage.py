"""Whether what a run reads again is what it has written."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fewlabels.errors import FewLabelsError
from fewlabels.files import open_regular

T = TypeVar("T")
SUMS = "SHA256SUMS"
FAILURES: tuple[type[Exception], ...] = (  # of the readers of all files of a run folder
    *(FewLabelsError, OSError, ValueError, EOFError, RuntimeError, KeyError, TypeError),
    *(zipfile.BadZipFile, pickle.UnpicklingError),
)


class DamagedFileError(FewLabelsError):
    """A file that is missing, cut short, or not what was written."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file.parent} is damaged ({file.name}: {reason})")


def read_undamaged(file: Path, read: Callable[[Path], T]) -> T:
    """What ``read`` makes of a file.

    Raises:
        DamagedFileError: it cannot be read.
    """
    try:
        return read(file)
    except FileNotFoundError as error:
        raise DamagedFileError(file, "it is missing") from error
    except FAILURES as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedFileError(file, reason[:200]) from error


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Note the sums of files, as ``sha256sum`` does."""
    lines = [f"{_hash_file(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def check_sums(folder: Path, names: Sequence[str]) -> None:
    """Compare files with their sums; those of older versions have none, and are taken as they are.

    Raises:
        DamagedFileError: naming the first file that is missing, or is not what was written.
    """
    if not (folder / SUMS).exists():
        for name in names:
            read_undamaged(folder / name, _refuse_pipe)
        return
    text = read_undamaged(folder / SUMS, _read_text)
    noted = {line[66:]: line[:64] for line in text.splitlines()}
    for name in names:
        if read_undamaged(folder / name, _hash_file) != noted.get(name):
            raise DamagedFileError(folder / name, "it is not what was written")


def _read_text(path: Path) -> str:
    with open_regular(path) as file:
        return file.read().decode()


def _refuse_pipe(path: Path) -> None:
    with open_regular(path):
        pass


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
