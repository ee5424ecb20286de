"""Mixup: mixed images with mixed labels, which are predicted for unlabelled images."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import one_hot

from fewlabels.components.strategies.mixmatch import mix_pairs
from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    soft_cross_entropy,
    weigh_cross_entropy,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("mixup")
class Mixup(SemiSupervised):
    """Mixup of labelled images and of unlabelled ones with predicted labels (Zhang et al., 2018).

    The term ``unlabelled`` is the cross-entropy of mixed unlabelled images with the mixture of
    their predictions, which have no gradient. This is the baseline of MixMatch's tables, with an
    alpha of .75 on CIFAR-10 and of .25 on SVHN; with ``weights: {unlabelled: 0}`` it is plain
    mixup.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: the ``rest`` that has no label, or ``all`` images.
        alpha: of Beta(alpha, alpha), from which each image's share is drawn.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place, as in the code of MixMatch; null: the student is, as in the paper.

    Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, arXiv 1710.09412.
    Recipe: `strategy: {name: mixup, labelled: 64, batch: 64, alpha: 0.5}`
    """

    terms = ("supervised", "unlabelled")
    weighs_labels = True

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        alpha: Annotated[float, Gt(0)] = 0.5,
        average: Ramp | None = AVERAGE,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.alpha = alpha

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of mixed labelled images and of mixed unlabelled images."""
        part, rest = batch["labelled"], batch["unlabelled"]
        with models.freeze_statistics("student"):
            (logits,) = predict_logits(models.plain("student"), get_images(rest))
        given = one_hot(part.labels, logits.shape[1]).to(logits.dtype)
        known, target, weights = mix_pairs(get_images(part), given, self.alpha, part.weights)
        others, guessed, _ = mix_pairs(get_images(rest), logits.softmax(1), self.alpha)
        ours, theirs = (
            require_output(o.logits) for o in forward_batches(models["student"], known, others)
        )
        return {
            "supervised": weigh_cross_entropy(ours, target, weights),
            "unlabelled": soft_cross_entropy(theirs, guessed),
        }
