"""Pi-model: two views of an image have the same prediction."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    CONSISTENCY,
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


@strategies.register("pi_model")
class PiModel(SemiSupervised):
    """Keeps the predictions of two views consistent (Laine and Aila, ICLR 2017, Algorithm 1).

    The term ``consistency`` is the squared difference of the probabilities of two views, a mean
    over samples and classes. Its weight and ramp are those of the paper's comparison in Mean
    Teacher's code, 100 reached in 40,000 steps. The code of MixMatch, whose numbers the tables
    of chapter 3 copy, has ``gradient: one`` and rises linearly, in 40 % of the run, to 20 on
    CIFAR-10 and to 5 on SVHN.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step, each in two views.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, as in the paper, or
            the ``rest``.
        gradient: through ``both`` predictions, as in the paper, or through ``one`` of them.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place, as in the code of MixMatch; null: the student is, as in the paper.

    Source: Laine and Aila, "Temporal ensembling for semi-supervised learning", ICLR 2017, arXiv
    1610.02242.
    Recipe: `strategy: {name: pi_model, labelled: 50, batch: 50}`
    """

    terms = ("supervised", "consistency")
    weights = {"consistency": CONSISTENCY}
    weighs_labels = True
    views = (1, 2)

    def __init__(
        self,
        *,
        labelled: Count = 50,
        batch: Count = 50,
        unlabelled: Unlabelled = "all",
        gradient: Literal["both", "one"] = "both",
        average: Ramp | None = AVERAGE,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.gradient = gradient

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, and the consistency of the predictions of two views."""
        part, rest = batch["labelled"], batch["unlabelled"]
        known, one, two = (
            require_output(output.logits)
            for output in forward_batches(
                models["student"], get_images(part), get_images(rest), get_images(rest, 1)
            )
        )
        target = one if self.gradient == "both" else one.detach()
        return {
            "supervised": weigh_cross_entropy(known, part.labels, part.weights),
            "consistency": (target.softmax(1) - two.softmax(1)).square().mean(),
        }
