"""Mean Teacher: the student is kept consistent with a moving average of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    SemiSupervised,
    Unlabelled,
    consistency_loss,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import Average, Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies

EMA = Ramp(end=0.999, start=0.99, steps=40_000, shape="step")


@strategies.register("mean_teacher")
class MeanTeacher(SemiSupervised):
    """Keeps a student consistent with the moving average of its weights (Tarvainen, Valpola 2017).

    The term ``consistency`` is the squared difference of the probabilities of student and teacher,
    a mean over samples and classes (Eq. 2.5 is a sum over classes), on labelled and unlabelled
    images. Each network sees a view of its own, and no gradient flows into the teacher. With a
    backbone of two heads the second one is compared with the teacher, and the term
    ``logit_distance`` keeps both close. The teacher is evaluated and saved.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, or the ``rest`` that
            has no label.
        ema: decay of the teacher (Eq. 2.2), a number or a ramp over optimiser steps; at step t it
            is at most 1 - 1/(t + 1).
        teacher_mode: ``train``: the teacher keeps running statistics of its own, as in the
            reference code; ``eval``: they are copied from the student.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NIPS 2017, arXiv
    1703.01780; Li (2021), chapter 2, Eq. 2.2 to 2.5.
    Recipe: `strategy: {name: mean_teacher, labelled: 1, batch: 99}`
    """

    deploys = "teacher"
    terms: tuple[str, ...] = ("supervised", "consistency", "logit_distance")
    weights: Mapping[str, Ramp] = {"consistency": CONSISTENCY, "logit_distance": Ramp(end=0.01)}
    weighs_labels = True
    views = (2, 2)

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        ema: Ramp = EMA,
        teacher_mode: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
        self.averages = {"teacher": self.average("student", ema, teacher_mode)}

    @staticmethod
    def average(of: str, decay: Ramp, mode: Literal["train", "eval"], **more: Any) -> Average:
        """Declare a moving average, with running statistics as ``teacher_mode`` says."""
        return Average(of, decay, buffers="own" if mode == "train" else "copy", **more)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, consistency with the teacher and, with two heads, their distance."""
        return self.answer(models, batch)[0]

    def answer(self, models: Models, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, and the labelled images' logits that are compared with an average."""
        part, rest = batch["labelled"], batch["unlabelled"]
        whole = forward_batches(models["student"], get_images(part), get_images(rest))
        targets = predict_logits(models.plain("teacher"), get_images(part, 1), get_images(rest, 1))
        answers = [output.logits if output.logits2 is None else output.logits2 for output in whole]
        answer, target = torch.cat([require_output(a) for a in answers]), torch.cat(targets)
        losses = {
            "supervised": weigh_cross_entropy(
                require_output(whole[0].logits), part.labels, part.weights
            ),
            "consistency": consistency_loss(answer, target),
        }
        if whole[0].logits2 is not None:
            first = torch.cat([require_output(output.logits) for output in whole])
            losses["logit_distance"] = mse_loss(first, answer)
        return losses, require_output(answers[0])
