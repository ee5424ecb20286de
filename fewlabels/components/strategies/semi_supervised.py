"""Base of the semi-supervised strategies, and functions that they share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Count,
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
"""Mean Teacher's weight of the consistency term and its ramp; shorten the ramp in short runs."""

AVERAGE = Ramp(end=0.999, shape="reach")
"""Decay of the average that MixMatch's code scores, for every method of its tables: .999 from step
9,990 of its 2^20 on, and over a tenth of a shorter run, where .999 would average over all of it."""

Unlabelled = Literal["all", "rest"]


class SemiSupervised:
    """Base: a student, a labelled and an unlabelled stream; subclasses write :meth:`losses`.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step; an epoch is one pass over this stream.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, or the ``rest`` that
            has no label.
        average: decay of a moving average of the student, the ``teacher``, which is evaluated and
            saved in its place; its running statistics are copied. None: there is none.
    """

    task: Literal["classification"] = "classification"
    deploys = "student"
    supplies = ()
    terms: tuple[str, ...] = ("supervised",)
    weights: Mapping[str, Ramp] = {}
    weighs_labels = True
    views = (1, 1)  # number of views of a labelled and of an unlabelled image

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        average: Ramp | None = None,
    ) -> None:
        self.labelled, self.batch, self.unlabelled = labelled, batch, unlabelled
        self.averages: dict[str, Average] = {}
        if average is not None:
            self.averages, self.deploys = {"teacher": Average("student", average)}, "teacher"

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student and its averages, which begin as copies of it.

        Raises:
            DataError: a backbone with two heads, which this strategy would not train.
        """
        self.view, self.size, self.classes = build.view, build.size, build.classes
        student: Any = build.classifier()
        if getattr(student, "heads", 1) > 1 and "logit_distance" not in self.terms:
            raise DataError(
                "model.backbone_options: a second head learns with mean_teacher alone, and with "
                "snowball upon it; set heads: 1"
            )
        modules: dict[str, nn.Module] = {"student": student}
        for name in self.averages:
            modules[name] = copy.deepcopy(student).requires_grad_(False)
        return modules

    def seen_through(self, model: str, discoveries: int) -> str:
        """The name of the model through which a discovery sees images: here the same."""
        return model

    def start(self, models: Models, extract: Extract) -> None:
        """Nothing to prepare."""

    def phases(self, round: Round) -> list[Phase]:
        """One phase over both streams; an epoch is one pass over the first one listed."""
        of: Literal["all", "unlabelled"] = "all" if self.unlabelled == "all" else "unlabelled"
        streams = {
            "unlabelled": Stream(of, self.batch, (self.view,) * self.views[1]),
            "labelled": Stream("labelled", self.labelled, (self.view,) * self.views[0]),
        }
        return [Phase("train", ("student",), streams, self.averages, epochs=round.epochs)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of the labelled images."""
        part = batch["labelled"]
        logits = forward_batches(models["student"], part.views[0].images)[0].logits
        return {
            "supervised": weigh_cross_entropy(require_output(logits), part.labels, part.weights)
        }


def forward_batches(model: nn.Module, *images: Tensor) -> list[Output]:
    """Run one forward pass over several batches together; an Output for each batch.

    Batch norms see all batches as one.
    """
    whole: Output = model(torch.cat(images))
    sizes = [len(batch) for batch in images]
    fields: list[Any] = [
        value.split(sizes) if isinstance(value, Tensor) else [value] * len(sizes) for value in whole
    ]
    return [Output(*values) for values in zip(*fields, strict=True)]


@torch.no_grad()
def predict_logits(model: nn.Module, *images: Tensor) -> list[Tensor]:
    """Logits (B, C) of the first head for several batches in one forward pass, without gradient."""
    return [require_output(output.logits) for output in forward_batches(model, *images)]


def weigh_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over a batch of w * cross-entropy, so that w = .1 counts a tenth of a given label.

    Args:
        logits: (B, C).
        target: (B,) classes, or (B, C) probabilities.
        weights: (B,) in [0, 1], ``Part.weights`` or those of :func:`mix_labels`; None: each is 1.
    """
    if weights is None:
        soft = target.ndim == 2
        return soft_cross_entropy(logits, target) if soft else cross_entropy(logits, target)
    if target.ndim == 2:
        return -(weights[:, None] * target * logits.log_softmax(1)).sum(1).mean()
    return (weights * cross_entropy(logits, target, reduction="none")).mean()


def mix_labels(
    targets: Tensor, weights: Tensor | None, share: Tensor, partner: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Mix each target and its weight with those of a partner.

    The mixed weight is l w_i + (1 - l) w_j, and the mixed target the mean of both targets by l w_i
    and (1 - l) w_j. So w * cross-entropy with the mixture is what both labels cost, each at its own
    weight: l w_i CE(y_i) + (1 - l) w_j CE(y_j). The gradient of w * squared error is, too.

    Args:
        targets: (B, C) probabilities.
        weights: (B,) in [0, 1]; None: each is 1, and so are those of the mixtures.
        share: l, (B, 1) or (1, 1).
        partner: (B,) j of each i.
    """
    if weights is None:
        return share * targets + (1 - share) * targets[partner], None
    own, other = share * weights[:, None], (1 - share) * weights[partner, None]
    total = own + other
    mixed = own * targets + other * targets[partner]
    return mixed / total.clamp_min(torch.finfo(total.dtype).tiny), total[:, 0]


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, C) with target probabilities (B, C)."""
    return -(target * logits.log_softmax(1)).sum(1).mean()


def sample_beta(alpha: float, count: int, like: Tensor) -> Tensor:
    """Draw ``count`` numbers from Beta(alpha, alpha), as (count, 1, 1, 1) to multiply images.

    They come from torch's global CPU generator, which the training loop seeds at each step and in
    each process.
    """
    draws = torch.distributions.Beta(alpha, alpha).sample((count, 1, 1, 1))
    return draws.to(like.device)


def require_output(value: Tensor | None) -> Tensor:
    """Return a field of an Output that this model must have."""
    assert value is not None, "the model gives no such output"
    return value


def consistency_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over samples and classes of (softmax - softmax)^2; no gradient into ``target``.

    Both are logits (B, C). Eq. 2.5 of Li (2021) is a sum over classes, so its weight is this one's
    divided by the number of classes.
    """
    return (logits.softmax(1) - target.detach().softmax(1)).square().mean()


def get_images(part: Part, view: int = 0) -> Tensor:
    """The images (B, C, H, W) of one view of a part."""
    return part.views[view].images
