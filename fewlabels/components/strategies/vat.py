"""VAT: predictions stay the same under the small change of an image that affects them most."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import kl_div

from fewlabels.components.strategies.semi_supervised import (
    AVERAGE,
    SemiSupervised,
    Unlabelled,
    get_images,
    require_output,
    weigh_cross_entropy,
)
from fewlabels.contracts import Batch, Clock, Count, Models, Phase
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import strategies


@strategies.register("vat")
class VirtualAdversarial(SemiSupervised):
    """Virtual adversarial training (Miyato et al., TPAMI 2018, Algorithm 1).

    The term ``adversarial`` is the mean over samples of KL(p(x) || p(x + r)), where r is the
    perturbation that changes the prediction most, found by power iteration. The term ``entropy`` is
    the mean entropy of predictions p(x). Labelled, clean and perturbed images have a forward pass
    each, with batch statistics of their own, and only labelled images update running statistics.

    Weights (.3 and .06) and epsilon are those of the code of MixMatch, whose numbers the tables of
    chapter 3 copy; it raises the first linearly in 40 % of the run. The paper has 1 for both
    (VATEnt), or ``weights: {entropy: 0}``, for whitened images.

    Args:
        labelled: labelled images in a step, over all processes.
        batch: images of the unlabelled stream in a step.
        unlabelled: the unlabelled stream: ``all`` images with labels hidden, or the ``rest``.
        epsilon: length of r, for pixels in [0, 1]; 3 is MixMatch's 6 for pixels in [-1, 1], for
            images (3, 32, 32). It goes with the square root of the number of pixels.
        xi: length of the perturbation by which a direction is tried, for pixels in [0, 1].
        iterations: iterations of the power method.
        average: decay of a moving average of the student, which is evaluated and saved in its
            place, as in the code of MixMatch; null: the student is, as in the paper.

    Source: Miyato et al., "Virtual adversarial training: A regularization method for supervised and
    semi-supervised learning", TPAMI 2018, arXiv 1704.03976.
    Recipe: `strategy: {name: vat, batch: 128, epsilon: 3.0}`
    """

    terms = ("supervised", "adversarial", "entropy")
    weights = {"adversarial": Ramp(end=0.3), "entropy": Ramp(end=0.06)}
    weighs_labels = True

    def __init__(
        self,
        *,
        labelled: Count = 32,
        batch: Count = 128,
        unlabelled: Unlabelled = "all",
        epsilon: Annotated[float, Gt(0)] = 3.0,
        xi: Annotated[float, Gt(0)] = 1e-3,
        iterations: Annotated[int, Ge(1)] = 1,
        average: Ramp | None = AVERAGE,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled, average=average)
        self.epsilon, self.xi, self.iterations = epsilon, xi, iterations

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, the divergence under the perturbation, and the entropy."""
        part, images = batch["labelled"], get_images(batch["unlabelled"])
        known = require_output(models["student"](get_images(part)).logits)
        with models.freeze_statistics("student"):
            clean = require_output(models["student"](images).logits)
            attack = self.find_perturbation(models.plain("student"), images, clean.detach())
            attacked = require_output(models["student"](images + attack).logits)
        entropy = -(clean.softmax(1) * clean.log_softmax(1)).sum(1).mean()
        return {
            "supervised": weigh_cross_entropy(known, part.labels, part.weights),
            "adversarial": kl_divergence(clean, attacked),
            "entropy": entropy,
        }

    def find_perturbation(self, model: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
        """Find r (B, C, H, W), of length epsilon for each image, by power iteration."""
        direction = normalise_perturbation(torch.randn(images.shape).to(images))
        for _ in range(self.iterations):
            direction = direction.detach().requires_grad_()
            moved = require_output(model(images + self.xi * direction).logits)
            (gradient,) = torch.autograd.grad(kl_divergence(logits, moved), direction)
            direction = normalise_perturbation(gradient)
        return self.epsilon * direction.detach()


def normalise_perturbation(directions: Tensor) -> Tensor:
    """Scale each (C, H, W) of a batch to length 1."""
    lengths = torch.linalg.vector_norm(directions, dim=(1, 2, 3), keepdim=True)
    return directions / lengths.clamp(min=1e-12)


def kl_divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Mean over samples of KL(softmax(logits) || softmax(moved)); no gradient into the first."""
    return kl_div(
        moved.log_softmax(1), logits.detach().log_softmax(1), reduction="batchmean", log_target=True
    )
