"""Rotation: pretraining without labels, by telling how an image was rotated."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import get_images
from fewlabels.contracts import (
    Batch,
    Build,
    Clock,
    Count,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
    Stream,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("rotation")
class Rotation:
    """Pretrains a backbone to tell which of four rotations an image has, for ``pretrain:``.

    Every training image is shown at 0, 90, 180 and 270 degrees, and a linear head tells these apart
    (Table 3.9). The head is thrown away, and the run starts from the backbone. Views, optimiser,
    schedule and ``train`` are those of the run; of the learning-rate factors only those for
    ``student.backbone`` are used.

    Args:
        epochs: passes over all images, or epochs of ``rounds.steps_per_epoch`` steps.
        batch: images in a step, over all processes, before they are rotated.

    Source: Gidaris et al., "Unsupervised representation learning by predicting image rotations",
    ICLR 2018, arXiv 1803.07728; Li (2021), chapter 3, Table 3.9.
    Recipe: `pretrain: {name: rotation, epochs: 30, batch: 32}`
    """

    task = "pretext"
    deploys = "student"
    supplies = ()
    terms = ("rotation",)
    weights: dict[str, Ramp] = {}

    def __init__(self, *, epochs: Count = 10, batch: Count = 64) -> None:
        self.epochs, self.batch = epochs, batch

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student, an embedder without a head, and a head for four rotations."""
        self.view = build.view
        return {"student": build.embedder(), "head": nn.Linear(build.embedding_size, 4)}

    def seen_through(self, model: str, discoveries: int) -> str:
        """The name of the model through which a discovery sees images: here the same."""
        return model

    def start(self, models: Models, extract: Extract) -> None:
        """Nothing to prepare."""

    def phases(self, round: Round) -> list[Phase]:
        """One phase over all images."""
        stream = Stream("all", self.batch, (self.view,))
        return [Phase("rotation", ("student", "head"), {"images": stream}, epochs=round.epochs)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of the four rotations."""
        images, turns = rotate_images(get_images(batch["images"]))
        logits = models["head"](models["student"](images).features.float())
        return {"rotation": cross_entropy(logits, turns)}


def rotate_images(images: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate images (B, C, S, S) by 0 to 3 quarter turns: (4B, C, S, S), and the turns (4B,)."""
    views = torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)])
    return views, torch.arange(4, device=images.device).repeat_interleave(len(images))
