"""Features of images on disk, by the content of the images; shared by runs and processes."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL.Image import Image

from fewlabels.data.lazy_images import LazyImages
from fewlabels.errors import FewLabelsError

KEY = np.dtype("V16")
"""What identifies an image: the first 16 bytes of SHA-256 of its file or its pixels."""
LIMIT = 20.0
"""GiB that all features may take, unless ``$FEWLABELS_CACHE_GB`` says otherwise."""


def find_cache() -> Path:
    """The folder of what can be computed again: ``$FEWLABELS_CACHE`` or ``~/.cache/fewlabels``."""
    return Path(os.environ.get("FEWLABELS_CACHE") or "~/.cache/fewlabels").expanduser()


def read_limit() -> float:
    """Bytes that all features may take.

    Raises:
        FewLabelsError: ``$FEWLABELS_CACHE_GB`` is no number.
    """
    text = os.environ.get("FEWLABELS_CACHE_GB") or str(LIMIT)
    try:
        size = float(text)
    except ValueError:
        size = -1.0
    if not size >= 0:
        raise FewLabelsError(
            f"FEWLABELS_CACHE_GB is {text!r}; set it to a number of GiB, as in 20, or unset it"
        )
    return size * 2**30


def hash_images(images: Sequence[Image], rows: np.ndarray) -> np.ndarray:
    """A key (N,) for each of some images: equal files have equal keys, wherever they lie.

    Raises:
        UnreadableImageError: an image of a table that cannot be read.
    """
    return np.array([_hash_image(images, int(row)) for row in rows], KEY)


def _hash_image(images: Sequence[Image], row: int) -> bytes:
    what: Any = images.read(row) if isinstance(images, LazyImages) else images[row]
    if isinstance(what, (str, Path)):
        data = Path(what).read_bytes()
    elif isinstance(what, BytesIO):
        data = what.getvalue()
    else:
        data = f"{what.mode} {what.size}".encode() + what.tobytes()
    return hashlib.sha256(data).digest()[: KEY.itemsize]


class FeatureStore:
    """A file of float16 rows that is mapped into memory, and a file of their keys.

    Several runs may add to one store at the same time. A store that is open does not see what
    others add. A process that is killed while it adds loses at most what it added.

    Args:
        folder: the folder of both files; it is made if it does not exist.
        width: numbers in a row.
    """

    def __init__(self, folder: Path, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.width = folder, width
        self.data, self.index = folder / "features.bin", folder / "images.bin"
        self.lock = FileLock(folder / "lock")
        for file in (self.data, self.index):
            file.touch()
        os.utime(self.index)  # by which the least recently used are found

    def _read_keys(self) -> np.ndarray:
        """Keys (M,) of the rows that stand whole in both files."""
        rows = self.data.stat().st_size // (2 * self.width)
        raw = self.index.read_bytes()
        return np.frombuffer(raw, KEY, min(rows, len(raw) // KEY.itemsize))

    def find_rows(self, keys: np.ndarray) -> np.ndarray:
        """The row (N,) of each key, -1 where it is not known."""
        places = {key: i for i, key in enumerate(self._read_keys().tolist())}
        return np.array([places.get(key, -1) for key in keys.tolist()], np.int64)

    def add_rows(self, keys: np.ndarray, features: np.ndarray) -> None:
        """Append the features (N, width) of keys (N,); of those that are known already, nothing."""
        with self.lock:
            known = self._read_keys()
            new = ~np.isin(keys, known)
            # What a killed process left without the other half is written over.
            for file, array, size in (
                (self.data, features[new].astype(np.float16), 2 * self.width),
                (self.index, keys[new], KEY.itemsize),
            ):
                with file.open("r+b") as stream:
                    stream.truncate(len(known) * size)
                    stream.seek(0, os.SEEK_END)
                    stream.write(np.ascontiguousarray(array).tobytes())

    def map_rows(self) -> np.ndarray:
        """All rows (M, width) float16, mapped: they are read where they are used."""
        rows = len(self._read_keys())
        if not rows:
            return np.empty((0, self.width), np.float16)
        return np.memmap(self.data, np.float16, "r", shape=(rows, self.width))


def make_room(root: Path, limit: float, used: Collection[Path]) -> float:
    """Remove the least recently used stores until all are within the limit; bytes that they take.

    Args:
        root: the folder in which stores lie, at any depth.
        used: folders of stores that stay, whatever they take.
    """
    stores = sorted(
        root.rglob("features.bin"), key=lambda f: (f.parent / "images.bin").stat().st_mtime
    )
    sizes = {file.parent: file.stat().st_size for file in stores}
    total = sum(sizes.values())
    for folder, size in sizes.items():
        if total <= limit:
            break
        if folder not in used:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
    return float(total)
