"""Which files below a folder are images, and which are passed over that a person may miss."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fewlabels.errors import DataError

SUFFIXES = {
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Of images that Pillow reads: some of them where it was built so, or has a plugin for them."""

UNREAD = {
    ".arw", ".cr2", ".cr3", ".dds", ".dng", ".eps", ".fits", ".icns", ".ico", ".jpg2", ".jps",
    ".jxl", ".nef", ".orf", ".pcx", ".pfm", ".psd", ".raf", ".raw", ".rw2", ".sgi", ".svg",
    ".xbm",
}  # fmt: skip
"""Of images that are not read here."""

SYSTEM = {"#recycle", "$recycle.bin", "@eadir", "@recycle", "__macosx", "lost+found"}
"""Folders in which storage devices and systems keep thumbnails and what was thrown away."""

READ = "it leads to a folder that is read already"


class FoundImages(NamedTuple):
    """The images below a folder, sorted, and sentences on what was passed over."""

    files: list[Path]
    remarks: tuple[str, ...]


def list_suffixes() -> set[str]:
    """The suffixes of images that can be read here."""
    return SUFFIXES & Image.registered_extensions().keys()


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, sorted."""
    return find_images(folder).files


def find_images(folder: Path) -> FoundImages:
    """The images below a folder; hidden files and folders, macOS's ``._*`` too, are none.

    Links are followed, but each folder is read once, and by a link only where it lies elsewhere.
    What looks like an image and is passed over is counted by its reason; hidden files and other
    documents are not.
    """
    readable, files = list_suffixes(), []
    passed_over: dict[str, list[Path]] = defaultdict(list)
    for path in _walk_files(folder, passed_over):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in SUFFIXES | UNREAD:
            continue
        kept_by = [p for p in path.relative_to(folder).parts[:-1] if p.casefold() in SYSTEM]
        if kept_by:
            reason = f"{kept_by[0]} is a folder that a system keeps for itself"
        elif suffix not in readable:
            reason = f"{suffix} is not read here; convert such files to JPEG"
        elif not os.path.isfile(path):
            reason = "the link leads nowhere" if os.path.islink(path) else "it is no regular file"
        else:
            files.append(path)
            continue
        passed_over[reason].append(path)
    return FoundImages(
        sorted(files),
        tuple(_describe(folder, reason, sorted(own)) for reason, own in passed_over.items()),
    )


def _walk_files(folder: Path, passed_over: dict[str, list[Path]]) -> Iterator[Path]:
    """All that is no folder, below a folder and the folders that links lead to."""

    def note_unlisted(error: OSError) -> None:
        place = Path(error.filename)
        if place.name.casefold() not in SYSTEM:
            passed_over[f"the folder cannot be listed ({error.strerror})"].append(place)

    def enter_folder(path: Path) -> bool:
        """Note a folder as entered; False if it was before, or cannot be looked at."""
        try:
            seen = os.stat(path)
        except OSError as error:
            note_unlisted(error)
            return False
        if (seen.st_dev, seen.st_ino) in entered:
            passed_over[READ].append(path)
            return False
        entered.add((seen.st_dev, seen.st_ino))
        return True

    entered: set[tuple[int, int]] = set()
    tops = [folder]
    while tops:  # the folder itself, then where links of it lead, then where links of these do
        links: list[Path] = []
        for top in filter(enter_folder, tops):
            for here, folders, names in os.walk(top, onerror=note_unlisted):
                below = [Path(here, name) for name in sorted(folders) if not name.startswith(".")]
                links += filter(os.path.islink, below)
                real = [path for path in below if not os.path.islink(path)]
                folders[:] = [path.name for path in real if enter_folder(path)]
                yield from (Path(here, name) for name in names)
        tops = sorted(links)


def refuse_undecodable_names(folder: Path, names: Iterable[str]) -> None:
    """Refuse names of images below a folder that no table or text file can hold.

    Raises:
        DataError: a name is not UTF-8.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{folder}: the name {name!r} is not UTF-8; rename it") from error


def _describe(folder: Path, reason: str, paths: list[Path]) -> str:
    first = paths[0].relative_to(folder).as_posix()
    if len(paths) == 1:
        return f"{first} is passed over: {reason}"
    return f"{len(paths)} files are passed over, as {first}: {reason}"
