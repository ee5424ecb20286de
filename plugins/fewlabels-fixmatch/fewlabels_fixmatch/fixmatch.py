"""FixMatch: what the student is sure of in a weak view, it learns to see in a strong one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewlabels import strategies
from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import Average, Batch, Build, Clock, Count, Models, Phase, Round
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError
from fewlabels.ops.draws import Share
from fewlabels_fixmatch.randaugment import Operations, RandAugment

fewlabels_api = 1  # the version of the contracts that this is written for


THRESHOLD = Ramp(start=0.6, end=0.95, steps=10_000)
"""The paper's .95 from step 10,000 of its 2^20 on; before that, and so in a run of a few hundred
steps, less, since a young network is hardly ever that sure."""


@strategies.register("fixmatch")
class FixMatch(SemiSupervised):
    """Learns its own confident labels on strongly changed images (Sohn et al., NeurIPS 2020).

    The recipe's views are the weak view, of labelled and unlabelled images; the strong view is
    these and then ``randaugment``. ``unlabelled`` is the cross-entropy of the strong view against
    the class of the weak one, where that is sure enough; a mean over all images, sure or not. All
    images pass the student together. ``sure`` counts nothing: it tells how many images take part.

    Args:
        labelled: labelled images a step, over all processes.
        mu: unlabelled images a step for each labelled one.
        unlabelled: ``all`` images with their labels hidden, or the ``rest`` that has no label.
        threshold: the probability from which a label is learnt; a number, or a ramp over steps.
        ema: decay of the average that is evaluated; by default .999, and it reaches back over a
            tenth of the steps so far at most. Its running statistics are the student's.
        operations, count, magnitude, cutout: of ``randaugment``.

    Raises:
        DataError: a threshold that is no probability, or a ramp of shape ``reach``.
    """

    deploys = "teacher"
    terms: tuple[str, ...] = ("supervised", "unlabelled", "sure")
    weights: Mapping[str, Ramp] = {"sure": Ramp(end=0.0)}
    weighs_labels = True
    views = (1, 2)

    def __init__(
        self,
        *,
        labelled: Count = 64,
        mu: Count = 7,
        unlabelled: Unlabelled = "all",
        threshold: Share | Ramp = THRESHOLD,
        ema: Ramp = AVERAGE,
        operations: Operations | None = None,
        count: Count = 2,
        magnitude: Share = 1.0,
        cutout: Share = 0.5,
    ) -> None:
        super().__init__(labelled=labelled, batch=mu * labelled, unlabelled=unlabelled)
        ramp = threshold if isinstance(threshold, Ramp) else Ramp(end=threshold)
        if ramp.shape == "reach" or not (0 <= ramp.start <= 1 and 0 <= ramp.end <= 1):
            raise DataError(
                "strategy.threshold: a probability is between 0 and 1, also at the start and the "
                "end of a ramp, which is linear, sigmoid, cosine or step"
            )
        self.threshold = ramp
        self.averages = {"teacher": Average("student", ema)}
        self.augment = RandAugment(
            operations=operations, count=count, magnitude=magnitude, cutout=cutout
        )

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student and its average."""
        modules = super().modules(build)
        modules["teacher"] = copy.deepcopy(modules["student"]).requires_grad_(False)
        self.strong = build.view_with(self.augment)
        return modules

    def phases(self, round: Round) -> list[Phase]:
        """One phase over both streams; an unlabelled image is seen weakly and strongly."""
        (phase,) = super().phases(round)
        both = replace(phase.streams["unlabelled"], views=(self.view, self.strong))
        return [replace(phase, streams={**phase.streams, "unlabelled": both})]

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of the labelled images, and of strong views against sure labels."""
        part, rest = batch["labelled"], batch["unlabelled"]
        outputs = forward_batches(
            models["student"], get_images(part), get_images(rest), get_images(rest, 1)
        )
        known, weak, strong = (require_output(output.logits) for output in outputs)
        probability, label = weak.detach().softmax(1).max(1)
        sure = (probability >= self.threshold(clock.step)).to(strong.dtype)
        return {
            "supervised": weigh_cross_entropy(known, part.labels, part.weights),
            "unlabelled": (sure * cross_entropy(strong, label, reduction="none")).mean(),
            "sure": sure.mean(),
        }
