"""Temporal ensembling: predictions are kept consistent with their average over epochs."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Interval
from torch import Tensor, nn

from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import Batch, Build, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


class Ensemble(nn.Module):
    """The averaged prediction of each training image, and how often it was updated."""

    sums: Tensor  # (N, C)
    counts: Tensor  # (N,)

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(size, classes))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.int64))

    @torch.no_grad()
    def get_targets(self, indices: Tensor, alpha: float) -> Tensor:
        """Z / (1 - alpha^t) (B, C) of the images ``indices``; zeros for one not seen yet."""
        seen = self.counts[indices]
        scale = torch.where(seen > 0, 1 - alpha ** seen.float(), 1.0)
        return self.sums[indices] / scale[:, None]

    @torch.no_grad()
    def add(self, indices: Tensor, predictions: Tensor, alpha: float) -> None:
        """Z <- alpha Z + (1 - alpha) z; if an image is in a batch twice, the last z is used."""
        last = torch.full_like(self.counts, -1)
        last.scatter_reduce_(0, indices, torch.arange(len(indices), device=last.device), "amax")
        rows = (last >= 0).nonzero()[:, 0]
        self.sums[rows] = alpha * self.sums[rows] + (1 - alpha) * predictions[last[rows]].float()
        self.counts[rows] += 1


@strategies.register("temporal_ensembling")
class TemporalEnsembling(SemiSupervised):
    """Keeps predictions consistent with their average over epochs (Laine and Aila, ICLR 2017).

    The term ``consistency`` is the squared difference of an image's probabilities and their average
    so far, a mean over samples and classes (Algorithm 2). The average is updated when the image is
    seen and not at the end of the epoch, which is the same if each image is seen once in an epoch.
    An image that was not seen yet adds 0.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, as in the paper, or
            the ``rest``.
        alpha: decay of the average of an image's predictions.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place; null: the student is.

    Source: Laine and Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017, arXiv
    1610.02242.
    Recipe: `strategy: {name: temporal_ensembling, alpha: 0.6}`
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    weighs_labels = True

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        alpha: Annotated[float, Interval(ge=0, lt=1)] = 0.6,
        average: Ramp | None = None,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.alpha = alpha

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student, its average if any, and the averaged predictions of all images."""
        modules = super().modules(build)
        return {**modules, "ensemble": Ensemble(build.size, len(modules["student"].classes))}  # type: ignore[arg-type]

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, and the consistency of predictions with their averages."""
        part, rest = batch["labelled"], batch["unlabelled"]
        known, unknown = (
            require_output(output.logits)
            for output in forward_batches(models["student"], get_images(part), get_images(rest))
        )
        ensemble: Any = models.plain("ensemble")
        predicted = unknown.softmax(1)
        target = ensemble.get_targets(rest.indices, self.alpha)
        seen = (ensemble.counts[rest.indices] > 0)[:, None]
        losses = {
            "supervised": weigh_cross_entropy(known, part.labels, part.weights),
            "consistency": ((predicted - target).square() * seen).mean(),
        }
        everywhere = models.gather(predicted.detach())
        ensemble.add(models.gather(rest.indices), everywhere, self.alpha)
        return losses
