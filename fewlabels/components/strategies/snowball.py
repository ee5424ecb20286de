"""Snowball: a master network guides teacher and student on discovered samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Gt, Interval
from torch import Tensor, nn

from fewlabels.components.strategies.mean_teacher import MeanTeacher
from fewlabels.components.strategies.mixmatch import MixMatch
from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Unlabelled,
    consistency_loss,
    get_images,
    predict_logits,
    require_output,
)
from fewlabels.contracts import (
    Average,
    Batch,
    Build,
    Clock,
    Count,
    Extract,
    LabelState,
    Models,
    Phase,
    Round,
)
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("snowball")
class Snowball:
    """Guides Mean Teacher or MixMatch by a master, the moving average of the teacher (Eq. 2.7).

    The term ``master`` is the master's part of Eq. 2.7: the squared difference of the probabilities
    of student and master on labelled and discovered images, a mean over samples and classes, with
    the default weight of ``consistency``. The master begins as a copy of the teacher at the first
    discovery that finds samples; until then discoveries use the teacher. If all images are labelled
    nothing is discovered, and the training is that of the base.

    Args:
        base: ``mean_teacher``, or ``mixmatch`` (Section 2.4.1), for which the student sees the
            labelled images unmixed to be compared with the master.
        labelled, batch, unlabelled, ema: as for the base; null: the base's default.
        teacher_mode: as for ``mean_teacher``.
        temperature, alpha: as for ``mixmatch``.
        master_ema: decay of the master, beta in Eq. 2.6; choose a lower one in runs of under 2,000
            steps.

    Source: Li (2021), chapter 2, Eq. 2.1 to 2.7.
    Recipe: `strategy: {name: snowball, base: mean_teacher, labelled: 1, batch: 99}`
    """

    task: Literal["classification"] = "classification"
    deploys = "teacher"
    supplies = ()
    terms = (*dict.fromkeys((*MeanTeacher.terms, *MixMatch.terms)), "master")
    weighs_labels = True

    def __init__(
        self,
        *,
        base: Literal["mean_teacher", "mixmatch"] = "mean_teacher",
        labelled: Count | None = None,
        batch: Count | None = None,
        unlabelled: Unlabelled | None = None,
        ema: Ramp | None = None,
        teacher_mode: Literal["train", "eval"] = "train",
        temperature: Annotated[float, Gt(0)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 0.75,
        master_ema: Annotated[float, Interval(ge=0, lt=1)] = 0.999,
    ) -> None:
        shared = {"labelled": labelled, "batch": batch, "unlabelled": unlabelled, "ema": ema}
        given: dict[str, Any] = {k: v for k, v in shared.items() if v is not None}
        self.base: MeanTeacher | MixMatch
        if base == "mean_teacher":
            self.base = MeanTeacher(**given, teacher_mode=teacher_mode)
        else:
            self.base = MixMatch(**given, temperature=temperature, alpha=alpha)
        self.weights: Mapping[str, Ramp] = {**self.base.weights, "master": CONSISTENCY}
        self.views = self.base.views
        self.master = Average("teacher", Ramp(end=master_ema), starts="first_discovery")
        self.discoveries = 0

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The modules of the base, and the master."""
        modules = self.base.modules(build)
        return {**modules, "master": copy.deepcopy(modules["teacher"])}

    def seen_through(self, model: str, discoveries: int) -> str:
        """The name of the model through which a discovery sees images.

        The teacher replaces the master until there is one.
        """
        return "teacher" if model == "master" and not discoveries else model

    def start(self, models: Models, extract: Extract) -> None:
        """Nothing to prepare."""

    def phases(self, round: Round) -> list[Phase]:
        """The base's phase; after each step the teacher is updated, then the master."""
        self.discoveries = round.discoveries
        averages = {**self.base.averages, "master": self.master}
        return [replace(phase, averages=averages) for phase in self.base.phases(round)]

    def begin(self, phase: Phase, models: Models, found: LabelState, extract: Extract) -> None:
        """Nothing to prepare: the training loop makes the master at the first discovery."""

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The base's losses, and consistency with the master on labelled images."""
        losses, answer = self.base.answer(models, batch)
        if self.discoveries:
            if answer is None:  # the base has logits of mixed images only
                with models.freeze_statistics("student"):
                    output = models["student"](get_images(batch["labelled"]))
                answer = require_output(output.logits)
            other = get_images(batch["labelled"], self.views[0] - 1)
            (target,) = predict_logits(models.plain("master"), other)
            losses["master"] = consistency_loss(answer, target)
        return losses
