"""Rotation: a network learns by how much an image was turned, from no label at all."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import get_images
from fewlabels.contracts import (
    Batch,
    Build,
    Clock,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
    Stream,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies

Count = Annotated[int, Ge(1)]


@strategies.register("rotation")
class Rotation:
    """Which of four turns an image got (Gidaris et al., ICLR 2018; Table 3.9), for ``pretrain:``.

    Every training image is shown at 0, 90, 180 and 270 degrees; a linear head, thrown away
    afterwards, tells them apart. The backbone then starts the run. Views, optimiser, schedule and
    ``train`` are the run's; of the learning-rate factors those for ``student.backbone`` count.

    Args:
        epochs: as ``rounds.steps_per_epoch`` has them, or passes over all images.
        batch: images a step, over all processes, before they are turned.
    """

    task = "pretext"
    deploys = "student"
    supplies = ()
    terms = ("rotation",)
    weights: dict[str, Ramp] = {}

    def __init__(self, *, epochs: Count = 10, batch: Count = 64) -> None:
        self.epochs, self.batch = epochs, batch

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student, an embedder without a head, and a head of four turns."""
        self.view = build.view
        return {"student": build.embedder(), "head": nn.Linear(build.embedding_size, 4)}

    def seen_through(self, model: str, discoveries: int) -> str:
        """Every model by its own name."""
        return model

    def start(self, models: Models, extract: Extract) -> None:
        """Nothing depends on the data."""

    def phases(self, round: Round) -> list[Phase]:
        """One phase over all images."""
        stream = Stream("all", self.batch, (self.view,))
        return [Phase("rotation", ("student", "head"), {"images": stream}, epochs=round.epochs)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Nothing is kept."""

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of the four turns."""
        images, turns = rotate_images(get_images(batch["images"]))
        logits = models["head"](models["student"](images).features.float())
        return {"rotation": cross_entropy(logits, turns)}


def rotate_images(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) at each of four turns, (4B, C, S, S), and the turns (4B,)."""
    views = torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)])
    return views, torch.arange(4, device=images.device).repeat_interleave(len(images))
