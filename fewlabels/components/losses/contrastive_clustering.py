"""Contrastive clustering loss: an embedding near its cluster's centre, far from the next."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.errors import FewLabelsError
from fewlabels.registry import losses


@losses.register("contrastive_clustering")
class ContrastiveClustering(nn.Module):
    """Moves an embedding to its cluster's centre and away from the next (Eq. 4.3).

    The mean of d+/d-, as the formula is printed; the sentence beside it in the text has the
    fraction upside down. Gradient flows into the embeddings only.

    Args:
        centre: of d+: the ``nearest``, as printed, or that of an image's ``own`` cluster; d- is to
            the nearest of the others. As printed the loss is 0 where all embeddings sit on one
            centre; at a high learning rate it went there in ten steps (docs/results/).
    """

    def __init__(self, *, centre: Literal["nearest", "own"] = "nearest") -> None:
        super().__init__()
        self.own = centre == "own"

    def forward(self, embeddings: Tensor, centres: Tensor | None, labels: Tensor) -> Tensor:
        """The loss of embeddings (B, D) among centres (K, D), with the clusters (B,) as labels.

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
            known = labels >= 0  # an image without a cluster has no centre of its own
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
                    all_distances.scatter_(1, labels[:, None], -1.0)  # before all others
                chosen = all_distances.topk(2, largest=False).indices  # (B, 2)
            # cdist may go through a matrix product, whose cancellation spoils small distances;
            # vector_norm is exact, and its gradient at zero is zero.
            distances = torch.linalg.vector_norm(embeddings[:, None] - centres[chosen], dim=2)
            if not self.own:
                distances = distances.sort(dim=1).values
            near, far = distances.unbind(1)  # (B,) each
            return (near / far.clamp(min=1e-6)).mean()
