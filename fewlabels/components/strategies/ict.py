"""ICT: the prediction of mixed images is the mixture of their predictions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.mean_teacher import EMA, MeanTeacher
from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Unlabelled,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    sample_beta,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("ict")
class InterpolationConsistency(MeanTeacher):
    """Interpolation consistency training with a mean teacher (Verma et al., IJCAI 2019).

    The term ``consistency`` is the mean over samples and classes of
    (S(l u + (1 - l) v) - l T(u) - (1 - l) T(v))^2, with S and T the probabilities of student and
    teacher, u and v two unlabelled images of a batch, and l drawn from Beta(alpha, alpha).

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, or the ``rest``.
        ema: decay of the teacher, a number or a ramp over optimiser steps.
        teacher_mode: ``train``: the teacher keeps running statistics of its own; ``eval``: they are
            copied from the student.
        alpha: of Beta(alpha, alpha), from which each image's l is drawn.

    Source: Verma et al., "Interpolation consistency training for semi-supervised learning", IJCAI
    2019, arXiv 1903.03825.
    Recipe: `strategy: {name: ict, labelled: 50, batch: 50, alpha: 1.0}`
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
        """Cross-entropy, and the consistency of mixed images with mixed predictions."""
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
