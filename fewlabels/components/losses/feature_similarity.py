"""Feature similarity: the two images of a pair have one embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.registry import losses


@losses.register("feature_similarity")
class FeatureSimilarity(nn.Module):
    """L_F: the mean distance of an image's embedding to that of its pair (Section 4.3.1)."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Tensor, embeddings_pair: Tensor) -> Tensor:
        """The loss of embeddings (B, D) and those of their pairs (B, D)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            difference = embeddings.float() - embeddings_pair.float()
            return torch.linalg.vector_norm(difference, dim=1).mean()
