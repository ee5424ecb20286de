"""Contrastive clustering loss: near one cluster centre, and far from the next one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.errors import FewLabelsError
from fewlabels.registry import losses


@losses.register("contrastive_clustering")
class ContrastiveClustering(nn.Module):
    """Pulls an embedding to a cluster centre and away from the next (TAC-CCL, Eq. 4.3).

    The mean of d+ / d-, the distances to the centre C+ and to the nearest other centre C-. This is
    the equation as printed; the sentence beside it in the dissertation has the inverse fraction.
    Gradient flows into the embeddings only.

    Args:
        centre: what C+ is: the centre of the image's ``own`` cluster, or the ``nearest`` centre, as
            printed. As printed the loss is 0 if all embeddings are on one centre; at a high
            learning rate this happened within ten steps (docs/results/).

    Source: Li (2021), chapter 4, Eq. 4.3.
    Recipe: `losses: [multi_similarity, {name: contrastive_clustering, centre: own}]`
    """

    def __init__(self, *, centre: Literal["nearest", "own"] = "own") -> None:
        super().__init__()
        self.own = centre == "own"

    def forward(self, embeddings: Tensor, centres: Tensor | None, labels: Tensor) -> Tensor:
        """The loss () of embeddings (B, D) and centres (K, D); labels (B,) are cluster numbers.

        Raises:
            FewLabelsError: fewer than two centres.
        """
        if centres is None or len(centres) < 2:
            raise FewLabelsError(
                "contrastive_clustering compares the nearest centre with the second nearest, and "
                f"there are {0 if centres is None else len(centres)} centres; let discovery find "
                "two clusters or more"
            )
        if self.own:
            known = labels >= 0  # images without a cluster are left out
            embeddings, labels = embeddings[known], labels[known]
            if len(labels) == 0:
                return embeddings.sum()
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            centres = centres.detach().to(embeddings)
            with torch.no_grad():
                all_distances = torch.cdist(embeddings, centres)
                if self.own:
                    all_distances.scatter_(1, labels[:, None], -1.0)  # an own centre sorts first
                chosen = all_distances.topk(2, largest=False).indices  # (B, 2)
            # cdist may use a matrix product, which makes small distances inexact by cancellation;
            # vector_norm is exact, and its gradient at zero is zero.
            distances = torch.linalg.vector_norm(embeddings[:, None] - centres[chosen], dim=2)
            if not self.own:
                distances = distances.sort(dim=1).values
            near, far = distances.unbind(1)  # (B,) each
            return (near / far.clamp(min=1e-6)).mean()
