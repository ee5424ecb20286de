"""Transformed attention consistency: attention moves with what it looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels import geometry
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
            moved = geometry.warp(first, matrix.float(), padding="border")
            error = (moved - second).square()[:, 0]
            return torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)


def keypoint_mask(
    points: Tensor, there: Tensor, size: tuple[int, int], sigma: float = 0.2
) -> Tensor:
    """G = min(1, sum of Gaussians about keypoints): where attention is compared (Eq. 4.4, 4.5).

    Args:
        points: (B, P, 2) as x, y in [-1, 1].
        there: (B, P) bool, false for rows that only fill up.
        size: height and width of the mask.
        sigma: of a Gaussian, in units of half a side.

    Returns:
        (B, 1, *size).
    """
    cells = geometry.centres(*size).to(points)  # (H * W, 2)
    squares = (points[:, :, None] - cells).square().sum(3)  # (B, P, H * W)
    bells = torch.exp(-squares / (2 * sigma**2)) * there[:, :, None]
    return bells.sum(1).clamp(max=1).view(-1, 1, *size)
