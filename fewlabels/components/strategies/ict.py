"""ICT: the prediction of mixed images is the mixture of their predictions."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import one_hot

from fewlabels.components.strategies.mean_teacher import EMA, MeanTeacher
from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Unlabelled,
    forward_batches,
    get_images,
    mix_labels,
    predict_logits,
    require_output,
    sample_beta,
    weigh_cross_entropy,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("ict")
class InterpolationConsistency(MeanTeacher):
    """Interpolation consistency training with a mean teacher (Verma et al., IJCAI 2019).

    The term ``consistency`` is the mean over samples and classes of
    (S(l u + (1 - l) v) - l T(u) - (1 - l) T(v))^2, with S and T the probabilities of student and
    teacher, u and v two unlabelled images of a batch, and l drawn from Beta(alpha, alpha). The
    authors' code mixes the teacher's logits where the paper, and this, mix its probabilities; its
    weight rises to 100 in a quarter of the run. The code of MixMatch, with ICT for comparison, has
    ``mix_labelled: false, share: image``, an alpha of .75 and 1,000 on CIFAR-10, .5 and 20 on SVHN.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, or the ``rest``.
        ema: decay of the teacher, a number or a ramp over optimiser steps.
        teacher_mode: ``train``: the teacher keeps running statistics of its own; ``eval``: they are
            copied from the student.
        alpha: of Beta(alpha, alpha), from which l is drawn; 1 on CIFAR-10, .1 on SVHN.
        mix_labelled: learn from mixed labelled images, with a mixture of their labels, and not from
            the images themselves.
        share: l is drawn once for a ``batch``, as by the authors, or for each ``image``.

    Source: Verma et al., "Interpolation consistency training for semi-supervised learning", IJCAI
    2019, arXiv 1903.03825.
    Recipe: `strategy: {name: ict, labelled: 50, batch: 50, alpha: 1.0}`
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    weighs_labels = True
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
        mix_labelled: bool = True,
        share: Literal["batch", "image"] = "batch",
    ) -> None:
        super().__init__(
            labelled=labelled,
            batch=batch,
            unlabelled=unlabelled,
            ema=ema,
            teacher_mode=teacher_mode,
        )
        self.alpha, self.mix_labelled, self.share = alpha, mix_labelled, share

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, and the consistency of mixed images with mixed predictions."""
        part, images = batch["labelled"], get_images(batch["unlabelled"])
        (logits,) = predict_logits(models.plain("teacher"), images)
        mixed, target, _ = self.mix(images, logits.softmax(1))
        labelled, given = get_images(part), one_hot(part.labels, logits.shape[1]).to(logits.dtype)
        weights = part.weights
        if self.mix_labelled:
            labelled, given, weights = self.mix(labelled, given, weights)
        known, answer = (
            require_output(output.logits)
            for output in forward_batches(models["student"], labelled, mixed)
        )
        return {
            "supervised": weigh_cross_entropy(known, given, weights),
            "consistency": (answer.softmax(1) - target).square().mean(),
        }

    def mix(
        self, images: Tensor, targets: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mix images (B, C, H, W), targets (B, classes) and weights (B,) with a partner's."""
        count = 1 if self.share == "batch" else len(images)
        share = sample_beta(self.alpha, count, images)
        partner = torch.randperm(len(images)).to(images.device)
        mixed = share * images + (1 - share) * images[partner]
        return mixed, *mix_labels(targets, weights, share[:, :, 0, 0], partner)
