"""Keypoints on disk, by the content of images; shared by runs and processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from fewlabels.components.discovery.keypoints import Keypoints
from fewlabels.files import replace_when_whole

ROW = 8 + 128  # bytes of a keypoint: two float32, and its descriptor


class KeypointStore:
    """A file of keypoints that is mapped into memory, and an index of it by key.

    Several runs may add to one store at the same time. A store that is open does not see what
    others add.

    Args:
        folder: the folder of both files; it is made if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.index = folder / "keypoints.bin", folder / "index.json"
        self.lock = FileLock(folder / "lock")
        self.data.touch()
        self.places = self._read_index()

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __getitem__(self, key: str) -> Keypoints:
        """The keypoints of a key, as views into the mapped file; data is read on use."""
        offset, count = self.places[key]
        raw = np.memmap(self.data, np.uint8, "r", offset, (count * ROW,)) if count else b""
        split = count * 8
        points = np.frombuffer(raw, np.float32, count * 2).reshape(-1, 2)
        return Keypoints(points, np.frombuffer(raw, np.uint8, -1, split).reshape(-1, 128))

    def add(self, described: Mapping[str, Keypoints]) -> None:
        """Append the keypoints of new keys; if the process is killed, only these can be lost."""
        with self.lock:
            self.places = self._read_index()
            with self.data.open("ab") as file:
                for key, (points, descriptors) in described.items():
                    if key not in self.places:
                        self.places[key] = (file.tell(), len(points))
                        file.write(points.astype(np.float32).tobytes())
                        file.write(descriptors.tobytes())
            draft = self.index.with_suffix(".part")
            draft.write_text(json.dumps(self.places))
            replace_when_whole(draft, self.index)

    def _read_index(self) -> dict[str, tuple[int, int]]:
        """By key, the offset in bytes and the number of keypoints."""
        if not self.index.exists():
            return {}
        return {key: (at, count) for key, (at, count) in json.loads(self.index.read_text()).items()}
