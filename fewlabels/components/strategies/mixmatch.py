"""MixMatch: guesses and sharpens labels, then mixes labelled and unlabelled images."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import one_hot

from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    SemiSupervised,
    Unlabelled,
    get_images,
    mix_labels,
    predict_logits,
    require_output,
    sample_beta,
    weigh_cross_entropy,
)
from fewlabels.contracts import Average, Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError
from fewlabels.registry import strategies


@strategies.register("mixmatch")
class MixMatch(SemiSupervised):
    """Trains on mixtures of labelled images and images with guessed labels (Eq. 3.1 to 3.3).

    The label of an unlabelled image is the mean prediction of two views, sharpened. The term
    ``unlabelled`` is the squared error of the mixed unlabelled images, a mean over samples and
    classes; its weight rises linearly to 75 in 16,384 steps, as in the paper's code for CIFAR-10.
    Batches are interleaved before the forward passes, and only the first of them, of which a third
    is labelled, updates the running statistics: with statistics of only labelled or only unlabelled
    batches the training collapses.

    Args:
        labelled: labelled images in a step, over all processes; the same as ``batch``.
        batch: unlabelled images in a step, each in two views.
        unlabelled: the unlabelled stream: the ``rest`` that has no label, as in the paper, or
            ``all`` images.
        temperature: T of sharpening, p^(1/T).
        alpha: of Beta(alpha, alpha), from which each image's share is drawn.
        ema: decay of the average that is evaluated and saved; its running statistics are copied
            from the student.

    Raises:
        DataError: ``labelled`` and ``batch`` differ.

    Source: Berthelot et al., "MixMatch: A holistic approach to semi-supervised learning", NeurIPS
    2019, arXiv 1905.02249; Li (2021), chapter 3, Eq. 3.1 to 3.3.
    Recipe: `strategy: {name: mixmatch, labelled: 64, batch: 64, temperature: 0.5}`
    """

    deploys = "teacher"
    terms: tuple[str, ...] = ("supervised", "unlabelled")
    weights = {"unlabelled": Ramp(end=75.0, steps=16_384)}
    weighs_labels = True
    views = (1, 2)

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        temperature: Annotated[float, Gt(0)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 0.75,
        ema: Ramp = AVERAGE,
    ) -> None:
        if labelled != batch:
            raise DataError(
                f"strategy: mixmatch mixes as many labelled images ({labelled}) as unlabelled ones "
                f"({batch}); set both to the same number"
            )
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
        self.temperature, self.alpha = temperature, alpha
        self.averages = {"teacher": Average("student", ema)}

    def guess(self, models: Models, *images: Tensor) -> Tensor:
        """The mean prediction (B, C) of several views, by the student itself in train mode.

        Each view has a forward pass of its own, as in the paper's code.
        """
        with models.freeze_statistics("student"):
            logits = [predict_logits(models.plain("student"), each)[0] for each in images]
        return average_predictions(logits)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of mixed labelled images, squared error of mixed unlabelled ones."""
        return self.answer(models, batch)[0]

    def answer(self, models: Models, batch: Batch) -> tuple[dict[str, Tensor], None]:
        """The losses, and None: there are no logits of unmixed labelled images to compare."""
        part, rest = batch["labelled"], batch["unlabelled"]
        guessed = sharpen(
            self.guess(models, get_images(rest), get_images(rest, 1)), self.temperature
        )
        given = one_hot(part.labels, guessed.shape[1]).to(guessed.dtype)
        images = torch.cat([get_images(part), get_images(rest), get_images(rest, 1)])
        targets = torch.cat([given, guessed, guessed])
        weights = part.weights
        if weights is not None:  # a guessed label counts as a given one
            weights = torch.cat([weights, weights.new_ones(2 * len(guessed))])
        images, targets, weights = mix_pairs(images, targets, self.alpha, weights)
        logits = forward_interleaved(models, images.chunk(3))
        known, others = logits[0], torch.cat(logits[1:])
        error = (others.softmax(1) - targets[len(known) :]).square()
        if weights is not None:
            error = weights[len(known) :, None] * error
            weights = weights[: len(known)]
        return {
            "supervised": weigh_cross_entropy(known, targets[: len(known)], weights),
            "unlabelled": error.mean(),
        }, None


def average_predictions(logits: list[Tensor]) -> Tensor:
    """Average the probabilities (B, C) of several views."""
    return torch.stack([each.softmax(1) for each in logits]).mean(0)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """Raise probabilities (B, C) to the power 1/T and divide by their sum."""
    raised = probabilities ** (1 / temperature)
    return raised / raised.sum(1, keepdim=True)


def mix_pairs(
    images: Tensor, targets: Tensor, alpha: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mix each image and label with those of a random partner, at a share of at least 1/2.

    Images are (B, C, H, W), targets (B, classes), and weights of targets (B,); None: each is 1.
    """
    share = sample_beta(alpha, len(images), images)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(len(images)).to(images.device)
    mixed = share * images + (1 - share) * images[partner]
    return mixed, *mix_labels(targets, weights, share[:, :, 0, 0], partner)


def interleave_batches(batches: list[Tensor]) -> list[Tensor]:
    """Swap the i-th part of batch 0 with the i-th part of batch i; twice gives the input again."""
    parts = [list(batch.tensor_split(len(batches))) for batch in batches]
    for i in range(1, len(batches)):
        parts[0][i], parts[i][i] = parts[i][i], parts[0][i]
    return [torch.cat(own) for own in parts]


def forward_interleaved(models: Models, batches: tuple[Tensor, ...]) -> list[Tensor]:
    """Logits of each batch, computed interleaved; only the first updates running statistics."""
    first, *others = interleave_batches(list(batches))
    outputs = [models["student"](first)]
    with models.freeze_statistics("student"):
        outputs += [models["student"](other) for other in others]
    return interleave_batches([require_output(output.logits) for output in outputs])
