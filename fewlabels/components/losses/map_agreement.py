"""Canonicalisation: the maps of two views of an image agree position by position."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewlabels.errors import ComponentError
from fewlabels.registry import losses


@losses.register("map_agreement")
class MapAgreement(nn.Module):
    """Wants a block's maps of x and of T(x) to be the same at each position.

    SAN's three terms are smallest at the identity, and a metric loss can do without SAN. This one
    cannot: views of an image show its parts at other positions, so maps that agree have been
    assembled in one order. It is the mean over pairs of views of

        1 - r,    r the Pearson correlation of both maps over all channels and positions,

    each channel less its mean over positions. Maps that are the same everywhere, which agree too,
    have no correlation and a loss of 1. A batch without two views of one image costs nothing, so
    set ``strategy.views`` to 2 or more.

    Args:
        side: name of the block's side output that is the map (B, C, H, W).

    Raises:
        ComponentError: no block hands over that map.

    Source: this project, after the aim of Li (2021), chapter 5, Section 5.1 and Fig. 5.1.
    Recipe: `losses: [multi_similarity, {name: map_agreement, side: san.maps}]`
    """

    def __init__(self, *, side: str = "san.maps") -> None:
        super().__init__()
        self.side = side

    def forward(self, side: dict[str, Tensor], indices: Tensor) -> Tensor:
        """The loss () of side outputs of B views, of the images with these indices (B,)."""
        if self.side not in side:
            known = f"blocks hand over {', '.join(side)}" if side else "there is no block"
            raise ComponentError(
                f"loss 'map_agreement' needs the map {self.side!r}, and {known}; "
                "write blocks: {name: san, after: MODULE}"
            )
        maps = side[self.side].flatten(2)  # (B, C, N)
        one, two = torch.triu(indices[:, None] == indices, 1).nonzero(as_tuple=True)
        if len(one) == 0:
            return maps.float().sum() * 0
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps if maps.dtype == torch.float64 else maps.float()
            centred = (maps - maps.mean(2, keepdim=True)).flatten(1)
            unit = nn.functional.normalize(centred, dim=1, eps=1e-6)
            return (1 - (unit[one] * unit[two]).sum(1)).mean()
