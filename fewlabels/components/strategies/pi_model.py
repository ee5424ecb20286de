"""Pi-model: two views of an image have the same prediction."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.registry import strategies


@strategies.register("pi_model")
class PiModel(SemiSupervised):
    """Keeps the predictions of two views consistent (Laine and Aila, ICLR 2017, Algorithm 1).

    The term ``consistency`` is the squared difference of the probabilities of two views, a mean
    over samples and classes as in the paper, with gradients through both.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step, each in two views.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, as in the paper, or
            the ``rest``.

    Source: Laine and Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017, arXiv
    1610.02242.
    Recipe: `strategy: {name: pi_model, labelled: 50, batch: 50}`
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    views = (1, 2)

    def __init__(
        self, *, labelled: Count = 50, batch: Count = 50, unlabelled: Unlabelled = "all"
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, and the consistency of the predictions of two views."""
        part, rest = batch["labelled"], batch["unlabelled"]
        known, one, two = (
            require_output(output.logits)
            for output in forward_batches(
                models["student"], get_images(part), get_images(rest), get_images(rest, 1)
            )
        )
        return {
            "supervised": cross_entropy(known, part.labels),
            "consistency": (one.softmax(1) - two.softmax(1)).square().mean(),
        }
