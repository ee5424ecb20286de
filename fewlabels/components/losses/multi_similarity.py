"""Multi-similarity loss, within the batch and between the batch and a memory."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import softplus

from fewlabels.contracts import Memory
from fewlabels.registry import losses


@losses.register("multi_similarity")
class MultiSimilarity(nn.Module):
    """Weights positive and negative pairs by their similarities (Wang et al., CVPR 2019).

    With a memory of past embeddings, the same loss between batch and memory is added. An image is
    an anchor only if a positive and a negative of it are kept by mining. The loss is the sum over
    anchors divided by the number of labelled images. Images and entries labelled -1 are left out.

    Args:
        alpha: sharpness over positives.
        beta: sharpness over negatives; 50 in the paper, 40 in its authors' code.
        base: cosine that separates easy pairs from hard ones.
        epsilon: a positive is kept if its cosine is below that of the hardest negative plus this, a
            negative if its cosine is above that of the hardest positive minus this; null keeps all.
        memory_weight: weight of the loss between batch and memory.

    Source: Wang et al., "Multi-similarity loss with general pair weighting for deep metric
    learning", CVPR 2019, arXiv 1904.06627; memory: Wang et al., "Cross-batch memory for embedding
    learning", CVPR 2020, arXiv 1912.06798.
    Recipe: `losses: [{name: multi_similarity, beta: 40}]`
    """

    def __init__(
        self,
        *,
        alpha: Annotated[float, Gt(0)] = 2.0,
        beta: Annotated[float, Gt(0)] = 50.0,
        base: float = 0.5,
        epsilon: float | None = 0.1,
        memory_weight: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.base, self.epsilon = alpha, beta, base, epsilon
        self.memory_weight = memory_weight

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        memory: Memory | None = None,
        second_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss () of L2-normalised embeddings (B, D) with labels (B,).

        Args:
            second_labels: (B,) a further label of some images, -1 for none. Two images that share
                either are positives; so is an entry of the memory, of which the second label is
                known only if it comes from this batch.
        """
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        rows = torch.arange(len(labels), device=labels.device)
        more = torch.full_like(labels, -1) if second_labels is None else second_labels
        same = _share_label(labels, more, labels) | (_share_label(labels, more, more) & (more >= 0))
        # exp(beta * similarity) needs float32.
        with torch.autocast(embeddings.device.type, enabled=False):
            loss = self._compute_term(embeddings, embeddings, labels, labels, same, rows)
            if memory is not None and self.memory_weight:
                past = memory.embeddings.to(embeddings.dtype)
                # Of entries from this batch the second label is known; older ones have their own.
                second = torch.cat([more, more.new_full((1,), -1)])[memory.writer]
                same = _share_label(labels, more, memory.labels)
                same = same | (_share_label(labels, more, second) & (second >= 0))
                term = self._compute_term(
                    embeddings, past, labels, memory.labels, same, memory.writer
                )
                loss = loss + self.memory_weight * term
        return loss

    def _compute_term(
        self,
        anchors: Tensor,
        others: Tensor,
        labels: Tensor,
        other_labels: Tensor,
        same: Tensor,
        writer: Tensor,
    ) -> Tensor:
        """The loss of anchors (B, D) against others (M, D).

        Args:
            same: (B, M) bool, whether two are of one label.
            writer: (M,) the position in the batch from which an entry comes, -1 for older ones.
        """
        similarity = anchors @ others.T  # (B, M)
        if similarity.numel() == 0:
            return similarity.sum()
        rows = torch.arange(len(labels), device=labels.device)
        labelled = labels >= 0
        usable = labelled[:, None] & (other_labels >= 0)  # (B, M)
        # An image's own embedding is excluded by position; by value, duplicates would be too.
        positive = usable & same & (writer != rows[:, None])
        negative = usable & ~same
        if self.epsilon is not None:
            known = similarity.detach()
            hardest_positive = known.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
            hardest_negative = known.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
            positive = positive & (known - self.epsilon < hardest_negative)
            negative = negative & (known + self.epsilon > hardest_positive)
        is_anchor = positive.any(1) & negative.any(1)
        pull = _log_one_plus_sum(-self.alpha * (similarity - self.base), positive) / self.alpha
        push = _log_one_plus_sum(self.beta * (similarity - self.base), negative) / self.beta
        return ((pull + push) * is_anchor).sum() / labelled.sum().clamp(min=1)


def _share_label(labels: Tensor, second_labels: Tensor, others: Tensor) -> Tensor:
    """(B, M) bool: whether either label of an image, (B,) each, is that of another, (M,)."""
    return (labels[:, None] == others) | (second_labels[:, None] == others)


def _log_one_plus_sum(exponents: Tensor, keep: Tensor) -> Tensor:
    """``log(1 + sum(exp(x)))`` over the kept entries of each row."""
    # Not -inf, with which a row that keeps no entry would have a NaN gradient.
    least = torch.finfo(exponents.dtype).min
    return softplus(exponents.masked_fill(~keep, least).logsumexp(1))
