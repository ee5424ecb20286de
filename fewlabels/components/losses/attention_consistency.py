"""Transformed attention consistency: attention follows the image when the image is transformed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.ops import geometry
from fewlabels.registry import losses


@losses.register("attention_consistency")
class AttentionConsistency(nn.Module):
    """Squared difference of transformed attention and attention of the transform (Eq. 4.2).

    The mean of (T[M] - M')^2 over valid positions; M and M' are the attention maps of an image x
    and of x' = T(x). Eq. 4.2 is a sum; the mean makes the weight independent of the map's size. On
    maps that are multiplied by the masks of :func:`keypoint_mask` this is Eq. 4.6. The strategy
    ``tac_ccl`` supplies the inputs.

    Source: Li (2021), chapter 4, Eq. 4.2 and 4.6.
    Recipe: `losses: [multi_similarity, {name: attention_consistency}]`
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, attention: Tensor, attention_pair: Tensor, matrix: Tensor, valid: Tensor
    ) -> Tensor:
        """The loss () of attention maps (B, 1, H, W) of both images of each pair.

        Args:
            attention, attention_pair: maps of the first and of the second images.
            matrix: (B, 3, 3) maps from first to second image, on coordinates in [-1, 1].
            valid: (B, H, W) bool, positions of the second map that are compared.
        """
        with torch.autocast(attention.device.type, enabled=False):
            first, second = attention.float(), attention_pair.float()
            moved = geometry.warp_images(first, matrix.float(), padding="border")
            error = (moved - second).square()[:, 0]
            return torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)
