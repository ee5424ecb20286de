"""MixMatch: guessed labels, sharpened, and everything mixed with everything."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fewlabels.components.strategies.semi_supervised import (
    Count,
    SemiSupervised,
    Unlabelled,
    get_images,
    predict_logits,
    require_output,
    sample_beta,
    soft_cross_entropy,
)
from fewlabels.contracts import Average, Batch, Build, Clock, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import DataError
from fewlabels.registry import strategies


@strategies.register("mixmatch")
class MixMatch(SemiSupervised):
    """Mixes labelled images and guessed ones (Berthelot et al., NeurIPS 2019; Eq. 3.1-3.3).

    ``unlabelled`` is the mean over samples and classes of the squared error; its default weight
    is 75, reached linearly over 16,384 steps, as in the paper's code (CIFAR-10). The batches are
    interleaved before the forward passes, and only the first of them, a third labelled, moves the
    running statistics: with statistics of labelled or of unlabelled batches alone it collapses.

    Args:
        labelled: labelled images a step, over all processes; the same as ``batch``.
        batch: unlabelled images a step, each in two views.
        unlabelled: the ``rest`` that has no label (the paper), or ``all`` images.
        temperature: of sharpening, T.
        alpha: of Beta(alpha, alpha), one draw for each image.
        ema: decay of the average that is evaluated; its running statistics are the student's.
    """

    deploys = "teacher"
    terms: tuple[str, ...] = ("supervised", "unlabelled")
    weights = {"unlabelled": Ramp(end=75.0, steps=16_384)}
    views = (1, 2)

    def __init__(
        self,
        *,
        labelled: Count = 64,
        batch: Count = 64,
        unlabelled: Unlabelled = "rest",
        temperature: Annotated[float, Gt(0)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 0.75,
        ema: Ramp = Ramp(end=0.999),  # noqa: B008
    ) -> None:
        if labelled != batch:
            raise DataError(
                f"strategy: mixmatch mixes as many labelled images ({labelled}) as unlabelled ones "
                f"({batch}); set both to the same number"
            )
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
        self.temperature, self.alpha = temperature, alpha
        self.averages = {"teacher": Average("student", ema)}

    def modules(self, build: Build) -> dict[str, nn.Module]:
        """The student and its average."""
        modules = super().modules(build)
        modules["teacher"] = copy.deepcopy(modules["student"]).requires_grad_(False)
        return modules

    def guess(self, models: Models, *images: Tensor) -> Tensor:
        """The mean prediction (B, C) of several views, by the raw student in train mode.

        Norms see each view by itself, as in the paper's code.
        """
        with models.freeze_statistics("student"):
            logits = [predict_logits(models.plain("student"), each)[0] for each in images]
        return average_predictions(logits)

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy of the mixed labelled, squared error of the mixed unlabelled images."""
        return self.answer(models, batch)[0]

    def answer(self, models: Models, batch: Batch) -> tuple[dict[str, Tensor], None]:
        """The losses; the student is shown no unmixed image whose answer could be used."""
        part, rest = batch["labelled"], batch["unlabelled"]
        guessed = sharpen(
            self.guess(models, get_images(rest), get_images(rest, 1)), self.temperature
        )
        given = one_hot(part.labels, guessed.shape[1]).to(guessed.dtype)
        images = torch.cat([get_images(part), get_images(rest), get_images(rest, 1)])
        targets = torch.cat([given, guessed, guessed])
        images, targets = mix_pairs(images, targets, self.alpha)
        logits = forward_interleaved(models, images.chunk(3))
        known, others = logits[0], torch.cat(logits[1:])
        wanted = targets[len(known) :]
        return {
            "supervised": soft_cross_entropy(known, targets[: len(known)]),
            "unlabelled": (others.softmax(1) - wanted).square().mean(),
        }, None


def average_predictions(logits: list[Tensor]) -> Tensor:
    """The mean of the probabilities (B, C) of several views."""
    return torch.stack([each.softmax(1) for each in logits]).mean(0)


def sharpen(probabilities: Tensor, temperature: float) -> Tensor:
    """p^(1/T), made to sum to 1."""
    raised = probabilities ** (1 / temperature)
    return raised / raised.sum(1, keepdim=True)


def mix_pairs(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each image and target with those of a random partner, nearer to its own."""
    share = sample_beta(alpha, len(images), images)
    share = torch.maximum(share, 1 - share)
    partner = torch.randperm(len(images)).to(images.device)
    mixed = share * images + (1 - share) * images[partner]
    share = share[:, :, 0, 0]
    return mixed, share * targets + (1 - share) * targets[partner]


def interleave_batches(batches: list[Tensor]) -> list[Tensor]:
    """Swap the i-th part of batch 0 with the i-th part of batch i; done twice, it undoes itself."""
    parts = [list(batch.tensor_split(len(batches))) for batch in batches]
    for i in range(1, len(batches)):
        parts[0][i], parts[i][i] = parts[i][i], parts[0][i]
    return [torch.cat(own) for own in parts]


def forward_interleaved(models: Models, batches: tuple[Tensor, ...]) -> list[Tensor]:
    """Logits of each batch; passed interleaved, the first alone moves running statistics."""
    first, *others = interleave_batches(list(batches))
    outputs = [models["student"](first)]
    with models.freeze_statistics("student"):
        outputs += [models["student"](other) for other in others]
    return interleave_batches([require_output(output.logits) for output in outputs])
