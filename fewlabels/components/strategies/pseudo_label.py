"""Pseudo-label: the student is trained on its own most likely classes."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import (
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.registry import strategies


@strategies.register("pseudo_label")
class PseudoLabel(SemiSupervised):
    """Trains on the student's own most likely classes (Lee, ICML workshop 2013, Eq. 15).

    The term ``pseudo`` is the cross-entropy of unlabelled images with their most likely class, 0
    for images whose probability is below ``threshold``. Its weight, alpha(t) in the paper, is set
    by ``weights: {pseudo: ...}``.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: the ``rest`` that has no label, as in the paper, or
            ``all`` images.
        threshold: smallest probability; 0 in the paper, .95 in Oliver et al. (NeurIPS 2018).

    Source: Lee, "Pseudo-label: The simple and efficient semi-supervised learning method for deep
    neural networks", ICML workshop, 2013.
    Recipe: `strategy: {name: pseudo_label, threshold: 0.95}`
    """

    terms = ("supervised", "pseudo")

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "rest",
        threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
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
            "supervised": cross_entropy(known, part.labels),
            "pseudo": (each * (certain >= self.threshold)).mean(),
        }
