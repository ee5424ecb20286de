"""Which files below a folder are images, and which are passed over that a person may miss."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

SUFFIXES = {
    ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Of images that Pillow reads: some of them where it was built so, or has a plugin for them."""

UNREAD = {
    ".arw", ".cr2", ".cr3", ".dng", ".eps", ".jxl", ".nef", ".orf", ".psd", ".raf",
    ".raw", ".rw2", ".svg",
}  # fmt: skip
"""Of images that are not read here."""

SYSTEM = {"#recycle", "$recycle.bin", "@eadir", "@recycle", "__macosx", "lost+found"}
"""Folders in which storage devices and systems keep thumbnails and what was thrown away."""

LOOP = "a link back to a folder that it lies in is not followed"


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

    Links are followed, but for those that lead back to where they lie. What looks like an image and
    is passed over is counted by its reason; hidden files and other documents are not.
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
        elif not path.is_file():
            reason = "the link leads nowhere" if path.is_symlink() else "it is no regular file"
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

    above = {str(folder): [_identify(folder)]}  # by folder, those that it lies in and itself
    for here, folders, names in os.walk(folder, onerror=note_unlisted, followlinks=True):
        own, followed = above.pop(here), []
        for name in folders:
            path = os.path.join(here, name)
            if name.startswith("."):
                continue
            if (identity := _identify(path)) in own:
                passed_over[LOOP].append(Path(path))
                continue
            above[path] = [*own, identity]
            followed.append(name)
        folders[:] = followed
        yield from (Path(here, name) for name in names)


def _identify(folder: str | Path) -> tuple[int, int]:
    seen = os.stat(folder)
    return seen.st_dev, seen.st_ino


def _describe(folder: Path, reason: str, paths: list[Path]) -> str:
    first = paths[0].relative_to(folder).as_posix()
    if len(paths) == 1:
        return f"{first} is passed over: {reason}"
    return f"{len(paths)} files are passed over, as {first}: {reason}"
