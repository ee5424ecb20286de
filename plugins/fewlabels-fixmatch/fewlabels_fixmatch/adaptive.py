"""A threshold for each class that follows how sure the network has been of late (FreeMatch)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.components.strategies.semi_supervised import AVERAGE


class AdaptiveThreshold(nn.Module):
    """Moving averages of predictions on weak views, and the thresholds that follow from them.

    Averages begin at 1/C, as in the paper. Their decay is ours: .999, the paper's, but they reach
    back over a tenth of the steps so far at most. With .999 from the first step a run of 300 steps
    would end at a threshold that is three quarters 1/C, which nearly every image passes.

    Source: Wang et al., "FreeMatch: Self-adaptive thresholding for semi-supervised learning", ICLR
    2023, arXiv 2205.07246: tau_t, p_t(c), tau_t(c) and L_f.
    """

    confidence: Tensor  # (), tau_t: the average of the largest probability
    probability: Tensor  # (C,), p_t(c): the average of the probabilities
    share: Tensor  # (C,), h_t(c): the average of the share of images whose likeliest class is c

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("confidence", torch.tensor(1 / classes))
        self.register_buffer("probability", torch.full((classes,), 1 / classes))
        self.register_buffer("share", torch.full((classes,), 1 / classes))

    @torch.no_grad()
    def update(self, probabilities: Tensor, step: int) -> None:
        """Take a step's probabilities (B, C) into the averages: a <- d a + (1 - d) mean.

        Args:
            probabilities: of the weak views of all processes, so that all have the same averages.
            step: optimiser steps since the weights were initialised; it sets the decay d.
        """
        largest, likeliest = probabilities.float().max(1)
        new = 1 - AVERAGE(step)
        self.confidence.lerp_(largest.mean(), new)
        self.probability.lerp_(probabilities.float().mean(0), new)
        self.share.lerp_(share_by_class(likeliest, len(self.share)), new)

    def by_class(self) -> Tensor:
        """tau_t(c) (C,): tau_t p_t(c) / max p_t, so the likeliest class has tau_t itself."""
        return self.confidence * self.probability / self.probability.max()

    def fairness(self, strong: Tensor, sure: Tensor) -> Tensor:
        """L_f = -H(a, b) = sum of a log b over classes; 0 where no image is sure.

        a is p_t / h_t and b is p / h, each divided by its sum; p (C,) is the mean of ``strong``
        over the images that are sure, and h (C,) the share of these whose likeliest class in the
        strong view is c. A quotient by 0 counts 0, and a class that b lacks adds nothing: in the
        authors' code it adds a constant.

        Args:
            strong: probabilities (B, C) of the strong views of all processes.
            sure: (B,) bool.
        """
        if not sure.any():
            return strong.sum() * 0
        kept = strong[sure].float()
        own = share_by_class(kept.detach().argmax(1), len(self.share))
        there = own > 0
        wanted = torch.where(self.share > 0, self.probability / self.share, 0)
        wanted = wanted / wanted.sum()
        found = kept.mean(0)[there] / own[there]
        return (wanted[there] * (found / found.sum()).log()).sum()


def share_by_class(labels: Tensor, classes: int) -> Tensor:
    """The share (C,) of labels (B,) that each class has."""
    return torch.bincount(labels, minlength=classes) / len(labels)
