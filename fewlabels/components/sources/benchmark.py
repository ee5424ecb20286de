"""Benchmark: base of the benchmark sources, which read a local copy or one of the Hub."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.hf_dataset import (
    from_dataset,
    list_own_folders,
    local_copy,
    open_dataset,
)
from fewlabels.errors import DataError, FewLabelsError
from fewlabels.files import find_path, looked_for

Counts = Mapping[str, tuple[int, int]]  # for each part: number of images, number of classes


class Benchmark(ABC):
    """Base of the benchmarks; a subclass gives folder names, Hub id, layout and counts.

    Args:
        root: folder of a local copy; null: a folder of the usual name under the data roots.
        id: data set of the Hub to read instead; ``default``: the copy that this project knows.
        revision: revision of the Hub's copy; name a commit if results have to be reproducible.
        check_counts: refuse a copy without the published numbers of images and classes.
    """

    default_split: Literal["official", "zero_shot", "all"] = "official"
    title: ClassVar[str]
    home: ClassVar[str]  # where to download it
    folders: ClassVar[tuple[str, ...]]
    hub: ClassVar[str]
    config: ClassVar[str | None] = None
    columns: ClassVar[tuple[str, str]] = ("image", "label")
    splits: tuple[str, ...] = ("train", "test")
    counts: Counts
    disjoint: ClassVar[bool] = False  # classes of training images are not those of test images
    # Whether images have many sizes; a copy of such a data set with equal sizes was resized.
    photographs: ClassVar[bool] = True

    def __init__(
        self,
        *,
        root: str | None = None,
        id: str | None = None,
        revision: str | None = None,
        check_counts: bool = True,
    ) -> None:
        self.root, self.id, self.revision = root, id, revision
        self.check_counts = check_counts

    def load(self) -> Records:
        """Records with a column ``split`` that holds the split of publications.

        Raises:
            DataError: no copy found, an unknown layout, wrong counts, or options that contradict
                each other.
        """
        if self.id is not None and self.root is not None:
            raise DataError("data.root and data.id name two copies; set one of them")
        if self.id is None and self.revision is not None:
            raise DataError("data.revision is that of a Hub's copy; set data.id: default with it")
        records = self.read_from_hub() if self.id is not None else self._read_copy()
        split = np.asarray(self.official(records))
        records = replace(records, columns={**records.columns, "split": split})
        if self.check_counts:
            self.count(records)
        return records

    def _read_copy(self) -> Records:
        place = self.place()
        try:
            return self.read(place)
        except FewLabelsError:
            raise
        except Exception as error:  # a file that is cut short or damaged fails in any way
            raise DataError(
                f"{place}: not read as {self.title} ({type(error).__name__}: {error}); a file is "
                "missing or damaged, so download it again"
            ) from error

    def place(self) -> Path:
        """The folder of the local copy."""
        wanted = [self.root] if self.root is not None else list(self.folders)
        for folder in wanted:
            found = find_path(folder)
            if found is not None:
                return found
        raise DataError(
            f"{self.title} is not here: download it ({self.home}) to "
            f"{looked_for(wanted[0])}, {self.otherwise()}"
        )

    def otherwise(self) -> str:
        """What the error message offers to those who have no local copy."""
        return f"or set data.id: default to read {self.hub} from the Hub"

    @abstractmethod
    def read(self, root: Path) -> Records:
        """Read the records of a local copy."""

    def official(self, records: Records) -> Sequence[str] | np.ndarray:
        """The split (N,) of each image, as publications have it."""
        return records.columns["split"]

    def read_from_hub(self) -> Records:
        """Read the records of the Hub's copy."""
        name = self.hub if self.id == "default" else str(self.id)
        copy = local_copy(name)
        data = open_dataset(copy, self.config, revision=self.revision)
        missing = [split for split in self.splits if split not in data]
        if missing:
            raise DataError(f"{name} has no split {missing[0]!r} (it has: {', '.join(data)})")
        parts = {split: data[split] for split in self.splits}
        # Columns of another copy may have other names. They are then guessed, and the counts show
        # whether the guess is right.
        known = parts[self.splits[0]].column_names
        image, label = (column if column in known else None for column in self.columns)
        records = from_dataset(parts, image, label, inside=list_own_folders(copy))
        if not records.classes:
            raise DataError(f"{name} has no column of classes (all: {', '.join(known)})")
        sizes = {records.images[i].size for i in range(0, len(records), max(1, len(records) // 20))}
        if self.photographs and len(records) > 1 and len(sizes) == 1:
            warnings.warn(
                f"{name}: every image looked at has the size {sizes.pop()}; they were resized, "
                "so figures do not compare with those of the original photographs",
                stacklevel=2,
            )
        return records

    def count(self, records: Records) -> None:
        """Check the numbers of images and classes of each part.

        Raises:
            DataError: other numbers than the published ones.
        """
        split = records.columns["split"]
        for part, (images, classes) in self.counts.items():
            chosen = split == part
            found = int(chosen.sum()), len(np.unique(records.truth[chosen]))
            if found != (images, classes):
                raise DataError(
                    f"{self.title}: {part} has {found[0]:,} images of {found[1]:,} classes, not "
                    f"{images:,} of {classes:,}; the download is incomplete or of another "
                    "version (data.check_counts: false lets it through)"
                )
