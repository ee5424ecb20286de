"""Transformed attention consistency: attention moves with what it looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.ops import geometry
from fewlabels.registry import losses


@losses.register("attention_consistency")
class AttentionConsistency(nn.Module):
    """The attention of an image, moved as the image was, is the attention of the moved image.

    Eq. 4.2 as a mean over valid positions, (T[M] - M')^2, so that its weight does not depend on the
    map's size. With maps under the masks of :func:`keypoint_mask` it is Eq. 4.6.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, attention: Tensor, attention_pair: Tensor, matrix: Tensor, valid: Tensor
    ) -> Tensor:
        """The loss of maps (B, 1, H, W) of the first and the second image of each pair.

        Args:
            matrix: (B, 3, 3) maps, first image -> second, in [-1, 1].
            valid: (B, H, W) bool, the positions of the second map that count.
        """
        with torch.autocast(attention.device.type, enabled=False):
            first, second = attention.float(), attention_pair.float()
            moved = geometry.warp_images(first, matrix.float(), padding="border")
            error = (moved - second).square()[:, 0]
            return torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)
