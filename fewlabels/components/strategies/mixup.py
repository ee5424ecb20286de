"""Mixup: mixtures of images get mixtures of labels, guessed ones for unlabelled images."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import one_hot

from fewlabels.components.strategies.mixmatch import mix_pairs
from fewlabels.components.strategies.semi_supervised import (
    Count,
    SemiSupervised,
    Unlabelled,
    forward_batches,
    get_images,
    predict_logits,
    require_output,
    soft_cross_entropy,
)
from fewlabels.contracts import Batch, Clock, Models, Phase
from fewlabels.registry import strategies


@strategies.register("mixup")
class Mixup(SemiSupervised):
    """Mixup (Zhang et al., ICLR 2018), also of unlabelled images under the student's guesses.

    The baseline of MixMatch's tables: ``unlabelled`` is the cross-entropy of mixed unlabelled
    images under their mixed predictions, which are taken without gradient; weight 0 is plain mixup.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: the ``rest`` that has no label, or ``all`` images.
        alpha: of Beta(alpha, alpha), one draw for each image.
    """

    terms = ("supervised", "unlabelled")

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        alpha: Annotated[float, Gt(0)] = 0.5,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
        self.alpha = alpha

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of mixed labelled and of mixed unlabelled images."""
        part, rest = batch["labelled"], batch["unlabelled"]
        with models.freeze_statistics("student"):
            (logits,) = predict_logits(models.plain("student"), get_images(rest))
        given = one_hot(part.labels, logits.shape[1]).to(logits.dtype)
        known, target = mix_pairs(get_images(part), given, self.alpha)
        others, guessed = mix_pairs(get_images(rest), logits.softmax(1), self.alpha)
        ours, theirs = (
            require_output(o.logits) for o in forward_batches(models["student"], known, others)
        )
        return {
            "supervised": soft_cross_entropy(ours, target),
            "unlabelled": soft_cross_entropy(theirs, guessed),
        }
