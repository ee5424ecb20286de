"""SAN: the spatial assembly network (chapter 5), which moves features to other positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from fewlabels.components.blocks.san_weights import (
    assembly_coherence,
    assembly_correlation,
    assembly_entropy,
    normalise_by_sinkhorn,
)
from fewlabels.contracts import write_side, write_term
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ModelError
from fewlabels.registry import blocks

MARGIN = 3.0
"""The identity begins with this much more log-weight than all other positions together."""
INACTIVE = 0.01
"""A SAN that moves less than this is no evidence for or against SAN."""


@blocks.register("san")
class SAN(nn.Module):
    """Assembles the feature at each position from those at all others (Eq. 5.3, 5.4).

    The weights are a function of the map: logits by ``predictor``, bounded and biased towards the
    identity, s tanh(Phi / s) + b I with b = log(N - 1) + 3 for N positions, then normalised. Phi
    begins at 0, so the block passes 95 % of its input on as it is. ``side["san.weights"]`` are the
    weights (B, N, N): of the source (row) in the destination (column).

    An average over positions sees nothing of a doubly stochastic assembly, so the block belongs
    before a stage that looks at neighbours.

    A training step gets, with weights of its own: ``san.entropy`` (Eq. 5.5), ``san.correlation``
    (5.6) and ``san.coherence`` (5.8), each of a position; and at weight 0, to be looked at:
    ``san.residual`` (how far row sums are from 1 at most), ``san.off_diagonal`` (the share of
    weight that leaves its position) and ``san.moved`` (the share of destinations that get most from
    another position).

    Args:
        channels, height, width: of the map.
        predictor: ``conv`` predicts a source's destinations from its surroundings, for this map
            size alone; ``attention`` compares sources with destinations, for any size.
        hidden: channels of the predictor.
        normalise: ``sinkhorn`` is doubly stochastic; ``softmax`` normalises destinations alone.
        iterations: of Sinkhorn's normalisation.
        scale: s, the bound of the predicted logits, which float32 holds up to 30; null: b, the
            least that can leave the identity.
    """

    terms: ClassVar[tuple[str, ...]] = (
        "san.entropy",
        "san.correlation",
        "san.coherence",
        "san.residual",
        "san.off_diagonal",
        "san.moved",
    )
    weights: ClassVar[Mapping[str, Ramp]] = {
        "san.entropy": Ramp(end=0.0003),
        "san.correlation": Ramp(end=0.0003),
        "san.coherence": Ramp(end=0.0003),
        "san.residual": Ramp(end=0.0),
        "san.off_diagonal": Ramp(end=0.0),
        "san.moved": Ramp(end=0.0),
    }

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        predictor: Literal["conv", "attention"] = "conv",
        hidden: Annotated[int, Ge(4)] = 64,
        normalise: Literal["sinkhorn", "softmax"] = "sinkhorn",
        iterations: Annotated[int, Ge(1)] = 20,
        scale: Annotated[float, Interval(gt=0, le=30)] | None = None,
    ) -> None:
        super().__init__()
        if height * width < 2:
            raise ValueError("a map of one position has nothing to assemble; choose an earlier one")
        bias = compute_identity_bias(height * width)
        if scale is not None and scale < bias:
            raise ValueError(
                f"scale {scale} is below the identity's bias of {bias:.2f}, which it could never "
                "overcome; raise it, or leave it out"
            )
        self.doubly, self.iterations, self.scale = normalise == "sinkhorn", iterations, scale
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.predict: nn.Module = (
            ConvPredictor(hidden, height, width)
            if predictor == "conv"
            else AttentionPredictor(hidden)
        )

    @property
    def keeps_mean(self) -> bool:
        """Whether the mean over positions is that of the input, whatever the weights are."""
        return self.doubly

    def forward(self, maps: Tensor) -> Tensor:
        """A map of the same shape (B, C, H, W)."""
        tokens = self.reduce(maps)
        # Each image's have a root mean square of 1, whatever the scale of the network's maps is.
        length = torch.linalg.vector_norm(
            tokens, dim=(1, 2, 3), keepdim=True, dtype=_choose_wide_dtype(tokens)
        )
        gain = math.sqrt(tokens[0].numel()) / length.clamp(min=1e-6)
        logits = self.predict(tokens * gain.to(tokens))
        # Of meta tensors only the shapes are wanted, and they have no autocast.
        with nullcontext() if maps.is_meta else torch.autocast(maps.device.type, enabled=False):
            log_weights = self.normalise_logits(logits)
            weights = log_weights.exp()
            write_side("san.weights", weights)
            if self.training and torch.is_grad_enabled():
                self._write_terms(log_weights, weights, maps)
        sources, weights = maps.flatten(2), weights.to(maps.dtype)
        if maps.is_contiguous(memory_format=torch.channels_last):  # then so is what comes out
            assembled = (weights.mT @ sources.mT).mT
        else:
            assembled = sources @ weights
        return assembled.unflatten(2, maps.shape[2:])

    def normalise_logits(self, logits: Tensor) -> Tensor:
        """Logarithms of the weights from what the predictor gives (B, N, N), in float32."""
        logits = logits.to(_choose_wide_dtype(logits))
        count = logits.shape[1]
        bias = compute_identity_bias(count)
        scale = max(self.scale or bias, bias)  # a larger image than that of training has more
        identity = torch.eye(count, dtype=logits.dtype, device=logits.device)
        bounded = scale * (logits / scale).tanh() + bias * identity
        return (
            normalise_by_sinkhorn(bounded, self.iterations)
            if self.doubly
            else bounded.log_softmax(1)
        )

    @staticmethod
    def _write_terms(log_weights: Tensor, weights: Tensor, maps: Tensor) -> None:
        write_term("san.entropy", assembly_entropy(log_weights))
        write_term("san.correlation", assembly_correlation(weights))
        write_term("san.coherence", assembly_coherence(weights, maps))
        known = weights.detach()
        own = torch.arange(known.shape[1], device=known.device)
        write_term("san.residual", (known.sum(2) - 1).abs().max())
        write_term("san.off_diagonal", 1 - known.diagonal(dim1=1, dim2=2).mean())
        write_term("san.moved", (known.argmax(1) != own).to(known).mean())

    @staticmethod
    def remark(values: Mapping[str, float]) -> str | None:
        """What a person should know of a training phase, from the terms of its last logged step."""
        moved, off = values["san.moved"], values["san.off_diagonal"]
        if min(moved, off) >= INACTIVE:
            return None
        return (
            f"SAN inactive: {100 * off:.1f} % of the weight leaves its position, and "
            f"{100 * moved:.1f} % of the destinations get most from another; raise the learning "
            "rate of the block (optimizer.factors) or lower weights.san.*"
        )


def _choose_wide_dtype(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def compute_identity_bias(count: int) -> float:
    """What the identity's logit has beyond the others among ``count`` positions."""
    return math.log(count - 1) + MARGIN


class ConvPredictor(nn.Module):
    """Each source predicts its destinations, from itself and its eight neighbours."""

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
            ModelError: a map of another size.
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
    """Queries of destinations meet keys of sources; both know where they are."""

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
    """Sines and cosines of the places on a map whose sides span [-1, 1]: (channels, H, W)."""
    waves = torch.logspace(-1, 3, channels // 4, base=2) * math.pi
    rows, columns = ((2 * torch.arange(n) + 1) / n - 1 for n in (height, width))
    down = (waves[:, None] * rows)[:, :, None].expand(-1, -1, width)
    across = (waves[:, None] * columns)[:, None, :].expand(-1, height, -1)
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()])
