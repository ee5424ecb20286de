"""The names of the files in a run folder, and how these files are read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fewlabels.errors import FewLabelsError
from fewlabels.files import hold_file, open_regular
from fewlabels.training.metric_log import MetricLog, Row, parse_rows

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunFolder:
    """One run's folder; the only place that knows what is called how in it.

    Attributes:
        recipe: the resolved recipe, ready to be run again.
        metrics: every loss and score, a JSON object a line, headed by versions and seed.
        checkpoints: a folder each, from which a stopped run goes on.
        ledger: which image got which label in which round, a parquet file a discovery.
        initial: the weights that a restart goes back to.
        best: those of the smallest validation error.
        labelled: which images a person is taken to have labelled, where a number was drawn.
        left_out: which images were left out, and why, where some were.
        class_scores: an embedder's Recall@1 by class.
        pictures: of test queries and what they find.
        model: what the run deploys.
        answers: what it says of each image, and label_next: which images a person should label
            next; of ``classify``.
        lock: held by the process that writes here.
        pretrain: the folder of a pretraining, a run of its own.
        backbone: of a pretraining: the weights that it ends with.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.ledger = self.path / "ledger"
        self.initial = self.path / "initial"
        self.best = self.path / "best"
        self.labelled = self.path / "labelled.csv"
        self.left_out = self.path / "left_out.csv"
        self.class_scores = self.path / "class_scores.csv"
        self.pictures = self.path / "pictures"
        self.model = self.path / "model"
        self.answers = self.path / "answers.csv"
        self.label_next = self.path / "label_next.csv"
        self.lock = self.path / ".lock"
        self.backbone = self.path / "backbone.safetensors"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def pretrain(self) -> RunFolder:
        """The folder of this run's pretraining; it need not exist."""
        return RunFolder(self.path / "pretrain")

    def list_checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return list_checkpoints(self.checkpoints)

    def read_metrics(self) -> list[Row]:
        """All rows of the metrics; none if the file is missing or a line of it is damaged."""
        try:
            return MetricLog(self.metrics).read_rows()
        except FewLabelsError:
            return []

    def read_first_row(self) -> Row:
        """The row with versions, plugins, seed and device; empty if the run stopped before it."""
        try:
            with open_regular(self.metrics) as file:
                line = file.readline()
        except FileNotFoundError:
            return {}
        try:
            return parse_rows(line, self.metrics)[0] if line else {}
        except FewLabelsError:
            return {}

    def read_end(self) -> Row | None:
        """The last row of a finished run; None for any other."""
        rows = self.read_metrics()
        return rows[-1] if rows and rows[-1]["kind"] == "end" else None


CHECKPOINT = re.compile(r"(?:\.old-)?step-(\d+)", re.ASCII)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder of them, oldest first; nothing else that lies there.

    One that was about to be replaced when its run was killed stands under ``.old-`` and its name.
    """
    found: dict[int, Path] = {}
    for place in sorted(folder.glob("*step-*")):  # .old- before its successor
        if CHECKPOINT.fullmatch(place.name) and place.is_dir():
            found[read_step(place)] = place
    return [found[step] for step in sorted(found)]


def read_step(place: Path) -> int:
    """The optimiser steps after which a checkpoint was written."""
    return int(place.name.rpartition("-")[2])


@contextmanager
def hold_run_folder(folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Keep other runs out of a folder while its processes work in it.

    Raises:
        FewLabelsError: another run works there.
    """
    refused: list[FewLabelsError | None] = [None]
    with ExitStack() as stack:
        if accelerator.is_main_process:
            try:
                stack.enter_context(hold_file(folder.lock, str(folder)))
                remove_drafts(folder.path)
            except FewLabelsError as error:  # raised in every process, so that none waits
                refused = [error]
        if accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(refused)
        if refused[0] is not None:
            raise refused[0]
        yield


def remove_drafts(folder: Path) -> None:
    """Remove what was being written when a run was killed; nobody else may be writing there."""
    for pattern in (".part-*", ".draft-*"):
        for draft in list(folder.rglob(pattern)):
            shutil.rmtree(draft, ignore_errors=True)


def is_oracle(row: Row) -> bool:
    """Whether a run, by its first or last row, gave discovered samples their true labels."""
    return bool(row.get("oracle")) or "ORACLE" in row  # as runs of before 0.2 say it


def create_run_folder(out: Path, name: str, accelerator: Accelerator) -> RunFolder:
    """Make a new folder ``out/name``, or ``out/name-2`` and so on: nothing is overwritten.

    Raises:
        FewLabelsError: it cannot be made there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter: a NUL in its name
        raise FewLabelsError(f"run folders cannot be made in {out}: {error}") from error
    folder = [out / name]
    if accelerator.is_main_process:
        number = 1
        while True:
            try:
                folder[0].mkdir()
                break
            except FileExistsError:
                number += 1
                folder[0] = out / f"{name}-{number}"
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(folder)
    return RunFolder(folder[0])
