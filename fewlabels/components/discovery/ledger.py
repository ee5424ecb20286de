"""Ledger: labels that an earlier run has discovered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fewlabels.contracts import Discovered, Needs, Pool
from fewlabels.errors import DataError, first_few
from fewlabels.files import find_path, looked_for
from fewlabels.registry import discovery


class Entry(NamedTuple):
    """What a ledger says last of an image."""

    label: int
    score: float
    weight: float


@discovery.register("ledger")
class Ledger:
    """Gives the labels that an earlier run has discovered, so that any recipe can start from them.

    Images are found by their names, or by their rows where they have none; classes by their names.
    What the later of two discoveries says counts. An image that a person has labelled by now keeps
    that label. With ``rounds: {growth: all}`` all of them come at once, else the surest first, by
    the scores that they had.

    Args:
        path: the ledger of that run, as in ``runs/classify/ledger``; ``{seed}`` in it is this run's
            seed.
        weigh: a label counts in the loss as much as it did in that run; false: as 1.

    Source: this project.
    Recipe: `discovery: {name: ledger, path: runs/classify/ledger}`
    """

    classes: int | None = None

    def __init__(self, *, path: str = "", weigh: bool = True) -> None:
        self.path, self.weigh = path, weigh

    def needs(self) -> Needs:
        """Nothing: it does not look at the images."""
        return Needs(features=False)

    def discover(self, pool: Pool, budget: int, rng: np.random.Generator) -> Discovered:
        """At most ``budget`` of the ledger's labels, of images that have none yet.

        Raises:
            DataError: no ledger, a damaged one, or one of other images or classes.
        """
        entries, classes = self._read_ledger()
        keys = list(pool.names) if len(pool.names) else pool.rows.tolist()
        known = np.array([key in entries for key in keys], bool)
        if entries and not known.any():
            raise DataError(
                f"{self.path}: none of its images, as {next(iter(entries))}, is among those that "
                "train; name the ledger of a run on the same images"
            )
        numbers = _match_classes(self.path, classes, pool)
        free = np.flatnonzero(known & (pool.labels < 0))
        found = [entries[keys[i]] for i in free.tolist()]
        scores = np.array([entry.score for entry in found], np.float32)
        surest = np.sort(np.argsort(-scores, kind="stable")[:budget])
        labels = numbers[np.array([entry.label for entry in found], np.int64)]
        weights = np.array([entry.weight for entry in found], np.float32)
        return Discovered(
            free[surest],
            labels[surest],
            scores[surest],
            weights=weights[surest] if self.weigh else None,
        )

    def _read_ledger(self) -> tuple[dict[str | int, Entry], list[str]]:
        """The last entry of each image, by its name and its row, and the names of the classes."""
        folder = find_path(self.path) if self.path else None
        files = sorted(folder.glob("round-*.parquet")) if folder else []
        if not files:
            where = looked_for(self.path) if self.path else "an empty path"
            raise DataError(
                f"discovery 'ledger': no round-*.parquet at {where}; set discovery.path to the "
                "folder ledger of a run that has discovered labels"
            )
        entries: dict[str | int, Entry] = {}
        classes: list[str] = []
        for file in files:
            anew, classes, table = _read_file(file)
            if anew:
                entries.clear()
            rows = zip(table["label"], table["score"], table["weight"], strict=True)
            for row, name, entry in zip(table["row"], table["name"], rows, strict=True):
                entries[row] = entries[name] = Entry(*entry)
        return entries, classes


def _read_file(file: Path) -> tuple[bool, list[str], dict[str, list]]:
    """Whether it begins anew, the names of the classes, and the columns.

    Raises:
        DataError: a damaged file, or of a version that did not note classes.
    """
    try:
        columns = ["row", "name", "label", "score", "weight"]
        table = pq.read_table(file, columns=columns)
        notes = table.schema.metadata or {}
        classes, anew = json.loads(notes[b"classes"]), json.loads(notes[b"anew"])
        if not isinstance(classes, list):
            raise ValueError("its classes are no list")
        return bool(anew), list(map(str, classes)), table.to_pydict()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{file}: no ledger that can be read ({type(error).__name__}: {error}); run again what "
            "wrote it"
        ) from error


def _match_classes(path: str, classes: list[str], pool: Pool) -> np.ndarray:
    """The pool's number of each of the ledger's classes.

    Raises:
        DataError: the pool lacks one.
    """
    if not pool.class_names:  # they have no names, and the numbers must do
        if pool.classes is not None and len(classes) > pool.classes:
            raise DataError(
                f"{path}: has {len(classes)} classes and these data {pool.classes}; name the "
                "ledger of a run with the same classes"
            )
        return np.arange(len(classes))
    lost = [name for name in classes if name not in pool.class_names]
    if lost:
        raise DataError(
            f"{path}: its classes {first_few(lost, 3)} are none of these data's; name the ledger "
            "of a run with the same classes, or label an image of each"
        )
    return np.array([pool.class_names.index(name) for name in classes], np.int64)
