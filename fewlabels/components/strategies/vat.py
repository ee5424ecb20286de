"""VAT: predictions stay where the image moves to where they would change most."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from fewlabels.components.strategies.semi_supervised import (
    Count,
    SemiSupervised,
    Unlabelled,
    get_images,
    predict_logits,
    require_output,
)
from fewlabels.contracts import Batch, Clock, Models, Phase
from fewlabels.registry import strategies


@strategies.register("vat")
class VirtualAdversarial(SemiSupervised):
    """Virtual adversarial training (Miyato et al., TPAMI 2018, Algorithm 1).

    ``adversarial`` is the mean over samples of KL(p(x) || p(x + r)), r the direction of largest
    change, found by power iteration; running statistics stand still meanwhile. ``entropy`` is the
    mean entropy of predictions (VATEnt), weight 0 by default in recipes that want plain VAT.

    Args:
        labelled: labelled images a step, over all processes.
        batch: images of the unlabelled stream a step.
        unlabelled: ``all`` images with their labels hidden, or the ``rest``.
        epsilon: length of r, of pixels in [0, 1].
        xi: length of the step by which a direction is tried.
        iterations: of the power method.
    """

    terms = ("supervised", "adversarial", "entropy")

    def __init__(
        self,
        *,
        labelled: Count = 32,
        batch: Count = 128,
        unlabelled: Unlabelled = "all",
        epsilon: Annotated[float, Gt(0)] = 1.5,
        xi: Annotated[float, Gt(0)] = 1e-3,
        iterations: Annotated[int, Ge(1)] = 1,
    ) -> None:
        super().__init__(labelled=labelled, batch=batch, unlabelled=unlabelled)
        self.epsilon, self.xi, self.iterations = epsilon, xi, iterations

    def losses(self, phase: Phase, models: Models, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """Cross-entropy, the divergence under attack, and the entropy of predictions."""
        part, images = batch["labelled"], get_images(batch["unlabelled"])
        known = require_output(models["student"](get_images(part)).logits)
        with models.freeze_statistics("student"):
            plain = models.plain("student")
            (logits,) = predict_logits(plain, images)
            attack = self.find_perturbation(plain, images, logits)
            both = models["student"](torch.cat([images + attack, images]))
        attacked, clean = require_output(both.logits).chunk(2)
        entropy = -(clean.softmax(1) * clean.log_softmax(1)).sum(1).mean()
        return {
            "supervised": cross_entropy(known, part.labels),
            "adversarial": kl_divergence(logits, attacked),
            "entropy": entropy,
        }

    def find_perturbation(self, model: nn.Module, images: Tensor, logits: Tensor) -> Tensor:
        """r, of length epsilon for each image."""
        direction = normalise_perturbation(torch.randn(images.shape).to(images))
        for _ in range(self.iterations):
            direction = direction.detach().requires_grad_()
            moved = require_output(model(images + self.xi * direction).logits)
            (gradient,) = torch.autograd.grad(kl_divergence(logits, moved), direction)
            direction = normalise_perturbation(gradient)
        return self.epsilon * direction.detach()


def normalise_perturbation(directions: Tensor) -> Tensor:
    """Each (C, H, W) of length 1."""
    lengths = torch.linalg.vector_norm(directions, dim=(1, 2, 3), keepdim=True)
    return directions / lengths.clamp(min=1e-12)


def kl_divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Mean over samples of KL(softmax(logits) || softmax(moved)); no gradient into the first."""
    return kl_div(
        moved.log_softmax(1), logits.detach().log_softmax(1), reduction="batchmean", log_target=True
    )
