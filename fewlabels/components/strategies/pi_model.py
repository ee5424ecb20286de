"""Pi-model: two views of an image get the same prediction."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from fewlabels.components.strategies.semi_supervised import (
    CONSISTENCY,
    Count,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    require_output,
)
from fewlabels.contracts import Batch, Clock, Models, Phase
from fewlabels.registry import strategies


@strategies.register("pi_model")
class PiModel(SemiSupervised):
    """Pulls the predictions of two views together (Laine and Aila, ICLR 2017, Algorithm 1).

    ``consistency`` is the mean over samples and classes of (z - z~)^2, gradients through both; the
    paper's is a mean over samples of the sum, divided by the classes, which is the same.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: ``all`` images with their labels hidden (the paper), or the ``rest``.
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    views = (1, 2)

    def __init__(
        self, *, labelled: Count = 50, batch: Count = 50, unlabelled: Unlabelled = "all"
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy and the distance of the two views' predictions."""
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
