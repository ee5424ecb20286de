"""A file of embeddings is first written in parts, so that a killed process loses at most one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fewlabels.errors import DataError
from fewlabels.files import hold_file, replace_when_whole
from fewlabels.search.embeddings_file import (
    Stamp,
    add_stamp,
    read_stamp,
    read_table,
    write_embeddings,
)


@dataclass(frozen=True)
class Parts:
    """The parts of a file of embeddings, in the folder ``OUT.parts`` beside it.

    Args:
        out: the file into which the parts are joined at the end.
        names: of all images, in order; each part has ``stamp.shard`` of them.
        stamp: model, files and shard that every part's own stamp must have.
    """

    out: Path
    names: list[str]
    stamp: Stamp

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def joined_draft(self) -> Path:
        return self.folder / "joined.part"

    def __len__(self) -> int:
        return math.ceil(len(self.names) / self.stamp.shard)

    def path_of(self, number: int) -> Path:
        return self.folder / f"{number:05}.parquet"

    def names_of(self, number: int) -> list[str]:
        """The names of a part's images."""
        return self.names[number * self.stamp.shard : (number + 1) * self.stamp.shard]

    @contextmanager
    def lock_output(self) -> Iterator[None]:
        """Keep other commands from writing the same file.

        Raises:
            FewLabelsError: one writes it, or it cannot be written.
        """
        lock = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be written: {error}") from error
        with hold_file(lock, str(self.out)):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # something else is in it
                    self.folder.rmdir()

    def read_joined_stamp(self) -> Stamp | None:
        """The stamp of ``out`` if that has the embeddings of this model and these files, else None.

        Raises:
            DataError: ``out`` exists but has no embeddings; writing it would destroy that file.
        """
        stamp = read_stamp(self.out)
        if stamp is None and self.out.exists():
            raise DataError(
                f"{self.out} is there, and not a file of embeddings; name another with -o"
            )
        same = stamp and (stamp.model, stamp.files) == (self.stamp.model, self.stamp.files)
        return stamp if same else None

    def read_finished_stamps(self) -> dict[int, Stamp]:
        """The stamps of the parts that exist, by number; damaged parts are left out.

        Raises:
            DataError: a part is of another model or folder, or has another number of images.
        """
        found = {}
        for file in sorted(self.folder.glob("*.parquet")):
            stamp = read_stamp(file) if re.fullmatch("[0-9]+", file.stem) else None
            if stamp:
                self._check_stamp(stamp)
                found[int(file.stem)] = stamp
        return found

    def write_part(
        self, number: int, names: Sequence[str], vectors: np.ndarray, unreadable: list[str]
    ) -> None:
        """Write part ``number``: names and vectors (N, D) float32 of the images that could be read.

        Raises:
            DataError: the part cannot be written.
        """
        stamp, file = self.stamp.model_copy(update={"unreadable": unreadable}), self.path_of(number)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_embeddings(file, file.with_suffix(".part"), names, vectors, stamp)
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error}") from error

    def join_parts(self) -> None:
        """Join all parts into ``out``, with one part at a time in memory.

        Raises:
            DataError: a part is missing, damaged or of another model.
        """
        found = self.read_finished_stamps()
        lost = next((n for n in range(len(self)) if n not in found), None)
        if lost is not None:
            raise DataError(
                f"{self.path_of(lost)} is missing; every process must write to the same folder, "
                "and nothing may remove it: run the same command again"
            )
        unreadable = [name for n in range(len(self)) for name in found[n].unreadable]
        stamp = self.stamp.model_copy(update={"unreadable": unreadable})
        schema = add_stamp(pq.read_schema(self.path_of(0)).empty_table(), stamp).schema
        try:
            with pq.ParquetWriter(self.joined_draft, schema, use_dictionary=False) as writer:
                for number in range(len(self)):
                    writer.write_table(add_stamp(read_table(self.path_of(number)), stamp))
            replace_when_whole(self.joined_draft, self.out)
        except (OSError, ValueError) as error:  # the latter: parts of several widths
            raise DataError(f"{self.out} cannot be written: {error}") from error

    def remove_parts(self) -> None:
        """Delete the parts, and their folder if nothing else is in it."""
        if self.folder.is_dir():
            for file in map(self.path_of, range(len(self))):
                file.unlink(missing_ok=True)
                file.with_suffix(".part").unlink(missing_ok=True)
            self.joined_draft.unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()

    def _check_stamp(self, stamp: Stamp) -> None:
        """Raise a DataError if a part's stamp has another model, files or shard."""
        if stamp.model != self.stamp.model:
            strange = "are of another model (its weights or preprocessing changed since)"
            remedy = "give that model again"
        elif stamp.files != self.stamp.files:
            strange = "are of another folder, or its images changed since"
            remedy = "give that folder again"
        elif stamp.shard != self.stamp.shard:
            strange = f"hold {stamp.shard} images each"
            remedy = f"go on with --shard {stamp.shard}"
        else:
            return
        raise DataError(
            f"the parts in {self.folder} {strange}; {remedy}, or remove that folder to start anew"
        )
