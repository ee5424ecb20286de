"""Feature similarity: both images of a pair have the same embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.registry import losses


@losses.register("feature_similarity")
class FeatureSimilarity(nn.Module):
    """Mean distance between the embeddings of both images of a pair (TAC-CCL's L_F, Section 4.3.1).

    The strategy ``tac_ccl`` supplies the pairs: an image and its transform, and matched images.

    Source: Li (2021), chapter 4, Section 4.3.1.
    Recipe: `losses: [multi_similarity, {name: feature_similarity}]`
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, embeddings_pair: Tensor) -> Tensor:
        """The loss () of the embeddings (B, D) of first and of second images."""
        with torch.autocast(embeddings.device.type, enabled=False):
            difference = embeddings.float() - embeddings_pair.float()
            return torch.linalg.vector_norm(difference, dim=1).mean()
