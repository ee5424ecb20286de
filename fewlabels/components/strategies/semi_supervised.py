"""What the semi-supervised strategies share: a student, two streams, and named loss terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Extract,
    LabelState,
    Models,
    Output,
    Part,
    Phase,
    Round,
    Stream,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError

CONSISTENCY = Ramp(end=100.0, steps=40_000, shape="sigmoid")
"""Mean Teacher's weight of a mean over classes, and its ramp; shorten it in shorter runs."""

Count = Annotated[int, Ge(1)]
Unlabelled = Literal["all", "rest"]


class SemiSupervised:
    """A student on labelled and unlabelled images; most methods add a term to :meth:`losses`.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step; an epoch is one pass over them.
        unlabelled: ``all`` images with their labels hidden, or the ``rest`` that has no label.
    """

    task: Literal["classification"] = "classification"
    deploys = "student"
    supplies = ()
    terms: tuple[str, ...] = ("supervised",)
    weights: Mapping[str, Ramp] = {}
    views = (1, 1)  # of a labelled and of an unlabelled image

    def __init__(
        self, *, labelled: Count = 50, batch: Count = 50, unlabelled: Unlabelled = "all"
    ) -> None:
        self.labelled, self.batch, self.unlabelled = labelled, batch, unlabelled
        self.averages: dict[str, Average] = {}

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student."""
        self.view, self.size, self.classes = build.view, build.size, build.classes
        student: Any = build.classifier()
        if getattr(student, "heads", 1) > 1 and "logit_distance" not in self.terms:
            raise DataError(
                "model.backbone_options: a second head learns with mean_teacher alone, and with "
                "snowball upon it; set heads: 1"
            )
        return {"student": student}

    def seen_through(self, model: str, discoveries: int) -> str:
        """Every model by its own name."""
        return model

    def start(self, models: Models, extract: Extract) -> None:
        """Nothing depends on the data."""

    def phases(self, round: Round) -> list[Phase]:
        """One phase over both streams; the first one listed is what an epoch counts."""
        of: Literal["all", "unlabelled"] = "all" if self.unlabelled == "all" else "unlabelled"
        streams = {
            "unlabelled": Stream(of, self.batch, (self.view,) * self.views[1]),
            "labelled": Stream("labelled", self.labelled, (self.view,) * self.views[0]),
        }
        return [Phase("train", ("student",), streams, self.averages, epochs=round.epochs)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Nothing is kept between rounds."""

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy on the labelled images alone."""
        part = batch["labelled"]
        logits = forward_batches(models["student"], part.views[0].images)[0].logits
        return {"supervised": cross_entropy(require_output(logits), part.labels)}


def forward_batches(model: nn.Module, *images: Tensor) -> list[Output]:
    """One forward of several batches together, so that norms see them as one; an Output each."""
    whole: Output = model(torch.cat(images))
    sizes = [len(batch) for batch in images]
    fields: list[Any] = [
        value.split(sizes) if isinstance(value, Tensor) else [value] * len(sizes) for value in whole
    ]
    return [Output(*values) for values in zip(*fields, strict=True)]


@torch.no_grad()
def predict_logits(model: nn.Module, *images: Tensor) -> list[Tensor]:
    """First-head logits of several batches, seen as one; without gradient."""
    return [require_output(output.logits) for output in forward_batches(model, *images)]


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over samples of the cross-entropy under probabilities (B, C)."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


def sample_beta(alpha: float, count: int, like: Tensor) -> Tensor:
    """``count`` draws of Beta(alpha, alpha), shaped to multiply images (B, C, H, W).

    Drawn by the global CPU generator, which the loop seeds at every step and in every process.
    """
    draws = torch.distributions.Beta(alpha, alpha).sample((count, 1, 1, 1))
    return draws.to(like.device)


def require_output(value: Tensor | None) -> Tensor:
    """A field of an Output that the model must have."""
    assert value is not None, "the model gives no such output"
    return value


def consistency_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and classes of (softmax - softmax)^2; no gradient into ``target``.

    Eq. 2.5 is the sum over classes: its weight is this one's divided by their number.
    """
    return (logits.softmax(1) - target.detach().softmax(1)).square().mean()


def get_images(part: Part, view: int = 0) -> Tensor:
    """One view of a part."""
    return part.views[view].images
