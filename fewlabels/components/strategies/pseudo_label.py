"""Pseudo-label: the student is trained on its own most likely classes."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("pseudo_label")
class PseudoLabel(SemiSupervised):
    """Trains on the student's own most likely classes (Lee, ICML workshop 2013, Eq. 15).

    The term ``pseudo`` is the cross-entropy of unlabelled images with their most likely class, 0
    for images whose probability is not above ``threshold``; a mean over all of them. Its weight is
    alpha(t) in the paper, which has no threshold and rises to 3. The code of MixMatch, whose
    numbers the tables of chapter 3 copy, has the threshold and rises linearly, in 40 % of the run,
    to 1 on CIFAR-10 and to 2 on SVHN: ``weights: {pseudo: {end: 1, steps: ...}}``.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: the ``rest`` that has no label, as in the paper, or
            ``all`` images.
        threshold: a probability below all that are learnt; .95 as in Oliver et al. (NeurIPS 2018)
            and in the code of MixMatch, 0 as in the paper.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place, as in the code of MixMatch; null: the student is, as in the paper.

    Source: Lee, "Pseudo-label: The simple and efficient semi-supervised learning method for deep
    neural networks", ICML workshop, 2013.
    Recipe: `strategy: {name: pseudo_label, threshold: 0.95}`
    """

    terms = ("supervised", "pseudo")
    weighs_labels = True

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "rest",
        threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.95,
        average: Ramp | None = AVERAGE,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.threshold = threshold

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy with given labels, and with predicted labels."""
        part, rest = batch["labelled"], batch["unlabelled"]
        known, unknown = (
            require_output(output.logits)
            for output in forward_batches(models["student"], get_images(part), get_images(rest))
        )
        certain, guess = unknown.detach().softmax(1).max(1)
        each = cross_entropy(unknown, guess, reduction="none")
        return {
            "supervised": weigh_cross_entropy(known, part.labels, part.weights),
            "pseudo": (each * (certain > self.threshold)).mean(),
        }
