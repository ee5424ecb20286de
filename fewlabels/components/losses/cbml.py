"""CBML: the loss of contrastive Bayesian metric learning, in a batch or against a memory."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from fewlabels.contracts import Memory
from fewlabels.registry import losses


@losses.register("cbml")
class CBML(nn.Module):
    """Weights pairs by contrastive Bayesian analysis, and holds the spread of negatives small.

    With s the cosines of an anchor, P and N its positives and negatives that mining keeps, and N'
    all its negatives, the loss of an anchor is

        log(1 + sum_P exp((a_p - s) / b_p)) + log(1 + sum_N exp((s - a_n) / b_n))
        + variance_weight * mean_N' (s - m)^2,    m = (1 - h) mean s + h (min_P' s + max_N' s) / 2

    and that of a batch their sum divided by the number of labelled images. Mean s is over all
    labelled images, the anchor itself included, as in the authors' code. Anchors without a kept
    positive and a kept negative are left out. The authors sum the last term over the negatives of
    a batch; here it is a mean, so that a memory of any size can stand in for the batch, and
    ``variance_weight`` is their weight of 1 times the 95 negatives of their batches of 100.

    Args:
        positive_centre, positive_width: a_p and b_p, where a positive counts and how sharply.
        negative_centre, negative_width: a_n and b_n.
        margin: a positive is kept if its cosine is below that of the hardest negative plus this, a
            negative if its cosine is above that of the hardest positive minus this.
        variance_weight: of the variance of the negatives.
        mix: h, the share of the middle between hardest positive and hardest negative in m.
        form: ``log`` as above, or ``sqrt``, which takes the root of 1 + sum in place of its
            logarithm.
        use_memory: compare the batch with the memory alone, not with itself; before
            ``strategy.memory_start`` it is compared with itself.

    Source: Kan et al., "Contrastive Bayesian analysis for deep metric learning", TPAMI 2022, arXiv
    2210.04402; form and values: its authors' code.
    Recipe: `losses: [multi_similarity, {name: cbml, use_memory: true}]`
    """

    def __init__(
        self,
        *,
        positive_centre: float = 0.5,
        positive_width: Annotated[float, Gt(0)] = 0.5,
        negative_centre: float = 1.0,
        negative_width: Annotated[float, Gt(0)] = 0.01,
        margin: float = 0.1,
        variance_weight: Annotated[float, Ge(0)] = 95.0,
        mix: Annotated[float, Interval(ge=0, le=1)] = 0.1,
        form: Literal["log", "sqrt"] = "log",
        use_memory: bool = False,
    ) -> None:
        super().__init__()
        self.positive = (positive_centre, positive_width)
        self.negative = (negative_centre, negative_width)
        self.margin, self.variance_weight, self.mix = margin, variance_weight, mix
        self.root, self.use_memory = form == "sqrt", use_memory

    def forward(self, embeddings: Tensor, labels: Tensor, memory: Memory | None = None) -> Tensor:
        """The loss () of L2-normalised embeddings (B, D) with labels (B,)."""
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        others, other_labels = embeddings, labels
        writer = torch.arange(len(labels), device=labels.device)
        if memory is not None and self.use_memory:
            others, other_labels = memory.embeddings.to(embeddings.dtype), memory.labels
            writer = memory.writer
        rows = torch.arange(len(labels), device=labels.device)
        with torch.autocast(embeddings.device.type, enabled=False):
            similarity = embeddings @ others.T  # (B, M)
            if similarity.numel() == 0:
                return similarity.sum()
            usable = (labels >= 0)[:, None] & (other_labels >= 0)  # (B, M)
            same = labels[:, None] == other_labels
            # An image's own embedding is excluded by position; by value, duplicates would be too.
            positive = usable & same & (writer != rows[:, None])
            each = self._compare(similarity, positive, usable & ~same, usable)  # (B,)
        return each.sum() / (labels >= 0).sum().clamp(min=1)

    def _compare(
        self, similarity: Tensor, positive: Tensor, negative: Tensor, usable: Tensor
    ) -> Tensor:
        """The loss (B,) of each anchor, 0 where it has no kept positive or no kept negative.

        Args:
            positive, negative, usable: pairs (B, M); ``usable`` may hold an image with itself.
        """
        both = positive.any(1) & negative.any(1)
        least = similarity.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        most = similarity.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        # Rows without pairs would bring inf into gradients that are then multiplied by 0.
        least = torch.where(both[:, None], least, 0)
        most = torch.where(both[:, None], most, 0)
        kept_positive = positive & (similarity.detach() - self.margin < most.detach())
        kept_negative = negative & (similarity.detach() + self.margin > least.detach())
        anchors = both & kept_positive.any(1) & kept_negative.any(1)
        (a_p, b_p), (a_n, b_n) = self.positive, self.negative
        pull = self._compress((a_p - similarity) / b_p, kept_positive)
        push = self._compress((similarity - a_n) / b_n, kept_negative)
        mean = _masked_mean(similarity, usable)[:, None]
        middle = (1 - self.mix) * mean + self.mix * (least + most) / 2
        variance = _masked_mean((similarity - middle).square(), negative)
        return (pull + push + self.variance_weight * variance) * anchors

    def _compress(self, exponents: Tensor, keep: Tensor) -> Tensor:
        """``log(1 + sum(exp(x)))`` over the kept entries of each row, or ``sqrt`` of the same."""
        # Not -inf, with which a row that keeps no entry would have a NaN gradient.
        least = torch.finfo(exponents.dtype).min
        log = nn.functional.softplus(exponents.masked_fill(~keep, least).logsumexp(1))
        return (log / 2).exp() if self.root else log


def _masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """The mean (B,) over the kept entries of each row of (B, M); 0 where none is kept."""
    return (values * keep).sum(1) / keep.sum(1).clamp(min=1)
