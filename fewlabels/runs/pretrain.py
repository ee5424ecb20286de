"""Pretraining of the backbone in a separate run, on the same images without their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fewlabels.errors import FewLabelsError
from fewlabels.files import new_file
from fewlabels.models.tensor_file import read_tensors, write_tensors
from fewlabels.training.loop import Loop
from fewlabels.training.run_folder import Row, RunFolder


class NoEvaluation:
    """The evaluator of a pretraining, which scores nothing."""

    def score_models(self, when: str, discoveries: int) -> list[Row]:
        """Always an empty list."""
        return []

    def describe_row(self, row: Row) -> str:
        """Never called, since there are no rows."""
        return ""


class Pretraining:
    """Trains the student of a pretext strategy, and saves its backbone.

    A pretraining that was stopped is continued; a finished one is not run again.

    Args:
        make_loop: makes the training loop of the pretraining in its folder.
        folder: the pretraining's own, to which the backbone's weights are written.

    Raises:
        FewLabelsError: the processes cannot share the batch, or the whole backbone is frozen.
    """

    def __init__(self, make_loop: Callable[[], Loop], folder: RunFolder) -> None:
        self.folder, self.loop = folder, make_loop()
        student: Any = self.loop.modules.plain("student")
        self.backbone: nn.Module = student.backbone
        try:
            self.loop.make_first_optimizers()
            if not folder.backbone.is_file():
                self.loop.load_checkpoint()
        except FewLabelsError as error:
            raise FewLabelsError(f"pretrain: {error}") from error
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            raise FewLabelsError(
                "pretrain: optimizer.factors freeze the whole backbone, so nothing of it could "
                "learn; pretrain in a run without them, and give this one model.weights: "
                "RUN/pretrain/backbone.safetensors instead of pretrain"
            )

    def train_backbone(self) -> Path:
        """Train to the end, unless already done; returns the file of the backbone's weights."""
        if self.folder.backbone.is_file():
            return self.folder.backbone
        main, metrics = self.loop.accelerator.is_main_process, self.loop.metrics
        if main:
            self.folder.path.mkdir(exist_ok=True)
        if self.loop.begun_from is None:
            metrics.cut_back(0)  # of a run that was stopped before its first checkpoint
        self.loop.run()
        if main:
            rounds = [row for row in metrics.read_rows() if row["kind"] == "round"]
            minutes = sum(row["seconds"] for row in rounds) / 60
            metrics.write_rows(
                [{"kind": "end", "minutes": minutes, "steps": self.loop.progress.step}]
            )
            with new_file(self.folder.backbone) as draft:
                write_tensors(draft, self.backbone.state_dict())
        self.loop.accelerator.wait_for_everyone()
        return self.folder.backbone


def load_backbone(file: Path, backbone: nn.Module) -> None:
    """Fill a backbone; its classifier, which pretraining did not have, stays as it is.

    Raises:
        FewLabelsError: the file is damaged, or of another backbone.
    """
    fix = "remove it, and pretraining goes on from its last checkpoint"
    try:
        unknown = backbone.load_state_dict(read_tensors(file), strict=False).unexpected_keys
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise FewLabelsError(f"{file} cannot be used ({reason}); {fix}") from error
    if unknown:
        raise FewLabelsError(f"{file} is of another backbone ({unknown[0]}); {fix}")


def read_cost(folder: RunFolder) -> dict[str, float]:
    """Minutes and steps of a pretraining; both 0 if there was none."""
    end = folder.read_end() or {}
    return {key: end.get(key, 0) for key in ("minutes", "steps")}
