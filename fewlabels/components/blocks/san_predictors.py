"""SAN's predictors: from tokens of a map to the logits of its weights.

Source: Li (2021), chapter 5, Section 5.3.3, which names the network Phi and leaves it open.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fewlabels.errors import ModelError


class ConvPredictor(nn.Module):
    """Predicts the destinations of each source from its feature and its eight neighbours.

    Args:
        hidden: channels of the tokens.
        height, width: size of the map, which is fixed.
    """

    def __init__(self, hidden: int, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        last = nn.Conv2d(hidden, height * width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            last,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, N, N) of tokens (B, hidden, H, W).

        Raises:
            ModelError: a map of another size than the predictor was made for.
        """
        height, width = tokens.shape[2:]
        if (height, width) != self.size:
            raise ModelError(
                f"SAN was made for maps of {self.size[0]} x {self.size[1]} positions and got "
                f"{height} x {width}; keep the image size, or use predictor: attention"
            )
        destinations: Tensor = self.layers(tokens)  # (B, N of destinations, H, W of sources)
        return destinations.flatten(2).transpose(1, 2)


class AttentionPredictor(nn.Module):
    """Compares queries of destinations with keys of sources; tokens get their positions' codes.

    Args:
        hidden: channels of the tokens.

    Raises:
        ValueError: ``hidden`` is no multiple of 4.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        if hidden % 4:
            raise ValueError(f"hidden {hidden} is no multiple of 4; a position takes four channels")
        self.key = nn.Conv2d(hidden, hidden, 1)
        self.query = nn.Conv2d(hidden, hidden, 1)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, N, N) of tokens (B, hidden, H, W)."""
        hidden, height, width = tokens.shape[1:]
        tokens = tokens + encode_positions(height, width, hidden).to(tokens)
        keys, queries = self.key(tokens).flatten(2), self.query(tokens).flatten(2)
        logits: Tensor = keys.transpose(1, 2) @ queries / math.sqrt(keys.shape[1])
        return logits


def encode_positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of the coordinates of each position, in [-1, 1]: (channels, H, W)."""
    waves = torch.logspace(-1, 3, channels // 4, base=2) * math.pi
    rows, columns = ((2 * torch.arange(n) + 1) / n - 1 for n in (height, width))
    down = (waves[:, None] * rows)[:, :, None].expand(-1, -1, width)
    across = (waves[:, None] * columns)[:, None, :].expand(-1, height, -1)
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()])
