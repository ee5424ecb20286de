"""Mean Teacher: the student follows the moving average of itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Count,
    SemiSupervised,
    Unlabelled,
    consistency_loss,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
)
from fewlabels.contracts import Average, Batch, Build, Clock, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies

EMA = Ramp(end=0.999, start=0.99, steps=40_000, shape="step")


@strategies.register("mean_teacher")
class MeanTeacher(SemiSupervised):
    """The student agrees with an average of its past weights (Tarvainen and Valpola, NIPS 2017).

    ``consistency`` is Eq. 2.5 as a mean over samples and classes, over labelled and unlabelled
    images, each network on a view of its own. No gradient flows into the teacher. A network with
    two heads answers the teacher with its second one, and ``logit_distance`` keeps the two close.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: ``all`` images with their labels hidden, or the ``rest`` that has no label.
        ema: decay of the teacher (Eq. 2.2): a ramp over optimiser steps; never above 1 - 1/(t+1).
        teacher_mode: ``train``: the teacher keeps running statistics of its own, from its own view,
            as the reference code does; ``eval``: they are copied from the student.
    """

    deploys = "teacher"
    terms: tuple[str, ...] = ("supervised", "consistency", "logit_distance")
    weights: Mapping[str, Ramp] = {"consistency": CONSISTENCY, "logit_distance": Ramp(end=0.01)}
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
        """An average in the mode of Mean Teacher's two implementations."""
        return Average(of, decay, buffers="own" if mode == "train" else "copy", **more)

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student and its averages, equal at the start."""
        modules = super().modules(build)
        for name in self.averages:
            modules[name] = copy.deepcopy(modules["student"]).requires_grad_(False)
        return modules

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, consistency with the teacher and, of two heads, their distance."""
        return self.answer(models, batch)[0]

    def answer(self, models: Models, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The losses, and the logits of the labelled images that answer to an average."""
        part, rest = batch["labelled"], batch["unlabelled"]
        whole = forward_batches(models["student"], get_images(part), get_images(rest))
        targets = predict_logits(models.plain("teacher"), get_images(part, 1), get_images(rest, 1))
        answers = [output.logits if output.logits2 is None else output.logits2 for output in whole]
        answer, target = torch.cat([require_output(a) for a in answers]), torch.cat(targets)
        losses = {
            "supervised": cross_entropy(require_output(whole[0].logits), part.labels),
            "consistency": consistency_loss(answer, target),
        }
        if whole[0].logits2 is not None:
            first = torch.cat([require_output(output.logits) for output in whole])
            losses["logit_distance"] = mse_loss(first, answer)
        return losses, require_output(answers[0])
