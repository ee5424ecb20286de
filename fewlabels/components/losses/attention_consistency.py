"""Transformed attention consistency: attention follows the image when the image is transformed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fewlabels.ops import geometry
from fewlabels.ops.correlation import correlate_maps
from fewlabels.registry import losses

FEWEST = 4
"""Positions at least of a pair whose correlation counts."""


@losses.register("attention_consistency")
class AttentionConsistency(nn.Module):
    """Compares transformed attention with the attention of the transform (Eq. 4.2, 4.6).

    M and M' are the attention maps of an image x and of x' = T(x), or of two matched images with
    the affine map T between them. The strategy ``tac_ccl`` supplies the inputs.

    Args:
        form: ``printed``: the mean of (G' (T[M] - M'))^2 over valid positions. Eq. 4.2 and 4.6 are
            sums; the mean makes the weight independent of the map's size. G' is 1 for x and x'
            (Eq. 4.2). Its only minimum that training reaches is a flat map (docs/methods.md).
            ``correlation``: the mean over pairs of 1 - r, r being Pearson's correlation of T[M] and
            M' over valid positions weighted by G'. It asks for Eq. 4.1 up to scale and offset, so a
            flat map costs 1 and maps that follow the image cost 0.

    Source: Li (2021), chapter 4, Eq. 4.2 and 4.6.
    Recipe: `losses: [multi_similarity, {name: attention_consistency, form: correlation}]`
    """

    def __init__(self, *, form: Literal["printed", "correlation"] = "printed") -> None:
        super().__init__()
        self.correlation = form == "correlation"

    def forward(
        self,
        attention: Tensor,
        attention_pair: Tensor,
        matrix: Tensor,
        valid: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss () of attention maps (B, 1, H, W) of both images of each pair.

        Args:
            attention, attention_pair: maps of the first and of the second images.
            matrix: (B, 3, 3) maps from first to second image, on coordinates in [-1, 1].
            valid: (B, H, W) bool, positions of the second map that are compared.
            mask: (B, 1, H, W) G', which weighs the second map's positions; None: all alike.
        """
        with torch.autocast(attention.device.type, enabled=False):
            first, second = attention.float(), attention_pair.float()
            moved = geometry.warp_images(first, matrix.float(), padding="border")[:, 0]
            focus = valid.float() if mask is None else valid * mask[:, 0].float()
            if not self.correlation:
                error = (focus * (moved - second[:, 0])).square()
                return torch.where(valid, error, 0).sum() / valid.sum().clamp(min=1)
            second = torch.where(valid, second[:, 0], 0)
            enough = (valid.sum((1, 2)) >= FEWEST).float()
            apart = 1 - correlate_maps(moved, second, focus)
            return (enough * apart).sum() / enough.sum().clamp(min=1)
