"""Finds files under the data folders; writes a file whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from fewlabels.errors import FewLabelsError, shorten

NO_FILE = "a folder, a pipe or a device; name a file"


def refuse_existing(out: str | Path, holds: str = "something of yours") -> None:
    """Check, before any work is done, that ``out`` can be written and does not exist yet.

    Raises:
        FewLabelsError: the file exists, or its place cannot be written.
    """
    refuse_unwritable(out)
    if Path(out).exists():
        raise FewLabelsError(f"{out} is there, and may hold {holds}; name another file")


def refuse_unwritable(out: str | Path) -> None:
    """Check, before any work is done, that ``out`` can be written.

    Raises:
        FewLabelsError: it cannot be written.
    """
    if "\0" in str(out):
        raise FewLabelsError(f"{shorten(str(out))!r}: holds a NUL, which no name has")
    place = Path(out).absolute()
    try:
        above = next((folder for folder in place.parents if folder.exists()), place)
        place.exists()  # a name that is too long
    except OSError as error:
        raise FewLabelsError(f"{shorten(str(out))} cannot be written: {error.strerror}") from error
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise FewLabelsError(f"{above} is no folder that you may write to; name another place")


def replace_when_whole(draft: Path, place: Path) -> None:
    """Give a draft that is written to its end its name; what had that name before is gone.

    Both lie on one file system, so a kill leaves the whole of the one or the whole of the other;
    and the draft is on the disk before it is renamed, so a loss of power does too.
    """
    for path in (*draft.rglob("*"), draft):
        _flush_to_disk(path)
    os.replace(draft, place)
    _flush_to_disk(place.parent)


def _flush_to_disk(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # no folder can be opened there
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError:
        if not path.is_dir():  # some file systems cannot flush a folder
            raise
    finally:
        os.close(file)


@contextmanager
def new_file(out: str | Path) -> Iterator[Path]:
    """Give the path of a draft to write, which is moved to ``out`` at the end.

    The draft has the name of ``out`` and lies in a temporary folder beside it. After an error it is
    deleted.

    Raises:
        FewLabelsError: the place cannot be written.
    """
    file = Path(out)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".part-") as own:
            yield Path(own) / file.name
            replace_when_whole(Path(own) / file.name, file)
    except OSError as error:
        raise FewLabelsError(f"{out} cannot be written: {error}") from error


_HELD: set[Path] = set()
"""The files that this process holds by :func:`hold_file`."""


@contextmanager
def hold_file(file: Path, what: str) -> Iterator[None]:
    """Be the only process that works on something; the system lets go of it when a process dies.

    Args:
        file: is made, and stays; where the system or the disk knows no locks, nothing is held.
        what: is worked on, for the sentence.

    Raises:
        FewLabelsError: another process works on it; or the file cannot be made.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = file.resolve()
    if place in _HELD:  # the system asks no process to wait for itself
        raise FewLabelsError(f"{what} is being written by this process; wait for its end")
    try:
        held = file.open("a+")
    except OSError as error:
        raise FewLabelsError(f"{what} cannot be written: {error}") from error
    with held:
        try:
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                held.seek(0)
                raise FewLabelsError(
                    f"{what} is being written by process {held.read(20).strip()}; wait for its "
                    "end, or stop it"
                ) from error
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        _HELD.add(place)
        try:
            yield
        finally:
            _HELD.remove(place)


def data_roots() -> list[Path]:
    """The folders of data sets: $FEWLABELS_DATA if set, else ./data and ../shared/data."""
    chosen = os.environ.get("FEWLABELS_DATA")
    return [Path(chosen)] if chosen else [Path("data"), Path("..", "shared", "data")]


def find_path(path: str | Path) -> Path | None:
    """The existing file or folder at ``path``, as written or under a data root; else None."""
    # os.path takes a name that no file can have, or that nobody may look at, as not there.
    path = Path(os.path.expanduser(path))
    candidates = [path, *(root / path for root in data_roots())]
    return next((candidate for candidate in candidates if os.path.exists(candidate)), None)


def looked_for(path: str | Path) -> str:
    """The places where :func:`find_path` looks, for an error message."""
    places = [Path(path), *(root / path for root in data_roots())]
    return " or ".join(shorten(str(place)) for place in places)


@contextmanager
def open_regular(file: Path) -> Iterator[BinaryIO]:
    """Open a file of somebody else's making to read its bytes.

    Raises:
        FewLabelsError: a pipe or a device, which is not waited for.
        OSError: it is not there, is a folder, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(file, "rb", opener=lambda path, _: os.open(path, flags)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise FewLabelsError(f"{file}: no regular file, but a pipe or a device; name a file")
        yield stream


def read_bounded(file: Path, largest: int) -> bytes:
    """The bytes of a file that is of somebody else's making.

    Args:
        largest: bytes that it may have.

    Raises:
        FewLabelsError: a pipe or a device, which is not waited for; or a larger file.
        OSError: it is not there, is a folder, or may not be read.
    """
    with open_regular(file) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise FewLabelsError(
            f"{file}: more than {largest:,} bytes, too many for what it should hold"
        )
    return content
