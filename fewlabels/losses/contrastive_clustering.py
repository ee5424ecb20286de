"""Contrastive clustering loss: an embedding near its cluster's centre, far from the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.errors import FewLabelsError
from fewlabels.registry import losses


@losses.register("contrastive_clustering")
class ContrastiveClustering(nn.Module):
    """Moves an embedding to its nearest centre and away from the second nearest (Eq. 4.3).

    The mean of d+/d-, as the formula is printed; the sentence beside it in the text has the
    fraction upside down. Gradient flows into the embeddings only.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, centres: Tensor | None) -> Tensor:
        """The loss of embeddings (B, D) among centres (K, D).

        Raises:
            FewLabelsError: fewer than two centres.
        """
        if centres is None or len(centres) < 2:
            raise FewLabelsError(
                "contrastive_clustering compares the nearest centre with the second nearest, and "
                f"there are {0 if centres is None else len(centres)} centres; let discovery find "
                "two clusters or more"
            )
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            centres = centres.detach().to(embeddings)
            with torch.no_grad():
                nearest = torch.cdist(embeddings, centres).topk(2, largest=False).indices  # (B, 2)
            # cdist may go through a matrix product, whose cancellation spoils small distances;
            # vector_norm is exact, and its gradient at zero is zero.
            distances = torch.linalg.vector_norm(embeddings[:, None] - centres[nearest], dim=2)
            near, far = distances.sort(dim=1).values.unbind(1)  # (B,) each
            return (near / far.clamp(min=1e-6)).mean()
