"""Pretraining: a run of its own before the run, on the same images and without their labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from fewlabels.contracts import Strategy
from fewlabels.errors import FewLabelsError
from fewlabels.files import replace_when_whole
from fewlabels.training.checkpoint import checkpoints
from fewlabels.training.loop import Loop
from fewlabels.training.metric_log import Metrics
from fewlabels.training.modules import Running
from fewlabels.training.round_schedule import Plan


class Pretraining:
    """Trains the student of a pretext strategy, and keeps its backbone.

    One that was stopped goes on; one that has ended is not run again.

    Args:
        folder: of this run: its checkpoints and metrics, and ``backbone.safetensors``.
        make_loop: makes a Loop; what the two runs have in common is set.
        plan: how steps are carried out.

    Raises:
        FewLabelsError: a batch that the processes cannot share, or a backbone that is frozen.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        strategy: Strategy,
        running: Running,
        folder: Path,
        make_loop: Callable[..., Loop],
        say: Callable[[str], None],
        seed: int,
        **plan: Any,
    ) -> None:
        self.accelerator, self.folder = accelerator, folder
        self.place = folder / "backbone.safetensors"
        student: Any = running.plain("student")
        self.backbone: nn.Module = student.backbone
        main = accelerator.is_main_process
        self.metrics = Metrics(folder / "metrics.jsonl" if main else None)
        self.loop = make_loop(
            strategy=strategy,
            running=running,
            plan=Plan(
                epochs_per_round=strategy.epochs,  # type: ignore[attr-defined]
                evaluate_every=0,
                **plan,
            ),
            seed=seed,
            weights=strategy.weights,
            evaluate=lambda when, discoveries: [],
            embed=lambda name, what: None,
            folder=folder,
            metrics=self.metrics,
            say=lambda told: say(f"pretraining: {told}"),
        )
        try:
            self.loop.prepare()
        except FewLabelsError as error:
            raise FewLabelsError(f"pretrain: {error}") from error
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            raise FewLabelsError(
                "pretrain: optimizer.factors freeze the whole backbone, so nothing of it could "
                "learn; pretrain in a run without them, and give this one model.weights: "
                "RUN/pretrain/backbone.safetensors instead of pretrain"
            )

    def __call__(self) -> Path:
        """The file of the backbone's weights."""
        if self.place.is_file():
            return self.place
        if self.accelerator.is_main_process:
            self.folder.mkdir(exist_ok=True)
        if not checkpoints(self.folder / "checkpoints"):
            self.metrics.cut(0)  # of a run that was stopped before its first checkpoint
        self.loop.run()
        if self.accelerator.is_main_process:
            rounds = [row for row in self.metrics.rows() if row["kind"] == "round"]
            minutes = sum(row["seconds"] for row in rounds) / 60
            self.metrics.write([{"kind": "end", "minutes": minutes, "steps": self.loop.at.step}])
            state = self.backbone.state_dict()
            tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
            half = self.place.with_suffix(".half")
            save_file(tensors, half)
            replace_when_whole(half, self.place)
        self.accelerator.wait_for_everyone()
        return self.place


def start_from(place: Path, backbone: nn.Module) -> None:
    """Fill a backbone; its classifier, which pretraining did not have, stays as it is."""
    unknown = backbone.load_state_dict(load_file(place), strict=False).unexpected_keys
    assert not unknown, f"{place} is of another backbone: {unknown[:3]}"


def cost(folder: Path) -> dict[str, float]:
    """Minutes and steps of a pretraining; nothing where there was none."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    ends = [row for row in map(json.loads, lines) if row["kind"] == "end"]
    return {key: ends[-1][key] if ends else 0 for key in ("minutes", "steps")}
