"""ICT: a mixture of images gets the mixture of their predictions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.mean_teacher import EMA, MeanTeacher
from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Count,
    Unlabelled,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    sample_beta,
)
from fewlabels.contracts import Batch, Clock, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("ict")
class InterpolationConsistency(MeanTeacher):
    """Interpolation consistency with a mean teacher (Verma et al., IJCAI 2019, Eq. 1).

    ``consistency`` is the mean over samples and classes of
    (S(lam u + (1 - lam) v) - lam T(u) - (1 - lam) T(v))^2, v another image of the batch.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: ``all`` images with their labels hidden, or the ``rest``.
        ema: decay of the teacher, a ramp over optimiser steps.
        teacher_mode: ``train``: the teacher keeps running statistics of its own.
        alpha: of Beta(alpha, alpha), one draw for each image.
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    views = (1, 1)

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        ema: Ramp = EMA,
        teacher_mode: Literal["train", "eval"] = "train",
        alpha: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(
            labelled=labelled,
            batch=batch,
            unlabelled=unlabelled,
            ema=ema,
            teacher_mode=teacher_mode,
        )
        self.alpha = alpha

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, and the distance of mixed images' predictions to mixed predictions."""
        part, images = batch["labelled"], get_images(batch["unlabelled"])
        share = sample_beta(self.alpha, len(images), images)
        partner = torch.randperm(len(images)).to(images.device)
        mixed = share * images + (1 - share) * images[partner]
        known, answer = (
            require_output(output.logits)
            for output in forward_batches(models["student"], get_images(part), mixed)
        )
        (logits,) = predict_logits(models.plain("teacher"), images)
        predicted, share = logits.softmax(1), share[:, :, 0, 0]
        target = share * predicted + (1 - share) * predicted[partner]
        return {
            "supervised": cross_entropy(known, part.labels),
            "consistency": (answer.softmax(1) - target).square().mean(),
        }
