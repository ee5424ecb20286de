"""Snowball: a master above teacher and student, fed by discovered samples."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval
from torch import Tensor

from fewlabels.contracts import Average, Batch, Clock, Extract, Found, Models, Phase, Round
from fewlabels.ramps import Ramp
from fewlabels.registry import strategies
from fewlabels.strategies.mean_teacher import EMA, MeanTeacher
from fewlabels.strategies.semi import Count, Unlabelled, images_of, mean_squared, predict


@strategies.register("snowball")
class Snowball(MeanTeacher):
    """Mean Teacher guided by a master, the average of the teacher (Section 2.3.2, Eq. 2.7).

    ``master`` is the master's part of Eq. 2.7, on labelled and discovered images; give it the
    weight of ``consistency``. The master is copied from the teacher at the first discovery that
    finds anything; before that discoveries look through the teacher. With everything labelled
    nothing is discovered, and the training is Mean Teacher's.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: ``all`` images with their labels hidden, or the ``rest`` that has no label.
        ema: decay of the teacher (Eq. 2.2): a ramp over optimiser steps.
        teacher_mode: ``train``: the teacher keeps running statistics of its own.
        master_ema: decay of the master, beta of Eq. 2.6; lower it in runs of under 2,000 steps.
    """

    terms = (*MeanTeacher.terms, "master")

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        ema: Ramp = EMA,
        teacher_mode: Literal["train", "eval"] = "train",
        master_ema: Annotated[float, Interval(ge=0, lt=1)] = 0.999,
    ) -> None:
        super().__init__(
            labelled=labelled,
            batch=batch,
            unlabelled=unlabelled,
            ema=ema,
            teacher_mode=teacher_mode,
        )
        decay = Ramp(end=master_ema)
        self.averages["master"] = Average("teacher", decay, starts="first_discovery")
        self.discoveries = 0

    def seen_through(self, model: str, discoveries: int) -> str:
        """The teacher stands in for the master until there is one."""
        return "teacher" if model == "master" and not discoveries else model

    def phases(self, round: Round) -> list[Phase]:
        """Mean Teacher's phase."""
        self.discoveries = round.discoveries
        return super().phases(round)

    def begin(self, phase: Phase, models: Models, found: Found, extract: Extract) -> None:
        """Make the master at the first discovery."""
        if self.discoveries == 1 and found.fresh:
            state = models.plain("teacher").state_dict()
            models.plain("master").load_state_dict(state)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Mean Teacher's losses, and the student's distance to the master where labels are."""
        losses, answer = self.follow(models, batch)
        if self.discoveries:
            (target,) = predict(models.plain("master"), images_of(batch["labelled"], 1))
            losses["master"] = mean_squared(answer, target)
        return losses
