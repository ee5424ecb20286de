"""SAN: the spatial assembly network, which moves features to other positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from fewlabels.components.blocks.san_predictors import AttentionPredictor, ConvPredictor
from fewlabels.components.blocks.san_weights import (
    assembly_coherence,
    assembly_correlation,
    assembly_entropy,
    count_sources,
    image_correlation,
    normalise_by_sinkhorn,
)
from fewlabels.contracts import write_side, write_term
from fewlabels.contracts.ramp import Ramp
from fewlabels.registry import blocks

MARGIN = 3.0
"""The initial log-weight of a position's own feature, above that of all others together."""
INACTIVE = 0.01
"""Below this share of moved weight a run is reported as "SAN inactive"."""


@blocks.register("san")
class SAN(nn.Module):
    """Replaces each position's feature by a mixture of all features (SAN, Eq. 5.3, 5.4).

    A map (B, C, H, W) becomes one of the same shape. The weights of the mixtures are predicted from
    the map: ``predictor`` gives logits Phi, which are bounded and biased towards the identity,
    s tanh(Phi / s) + b I with b = log(N - 1) + 3 for N = H * W positions, and then normalised over
    the sources of each destination. That no source feeds many destinations, the other half of
    Eq. 5.3, is left to the terms of Eq. 5.5 and 5.6. Phi is 0 at first, so the block begins by
    keeping 95 % of the weight at its position. A model's output has the weights (B, N, N), source
    by destination, as ``side["san.weights"]``, and the assembled map as ``side["san.maps"]``.

    Doubly stochastic weights (``normalise: sinkhorn``) do not change the mean over positions, so
    with them the block has no effect just before global average pooling. Place it before a
    convolution, and where the layers behind it heed order: GoogLeNet's do after inception4e.

    Loss terms, each divided by N and by default weighted .0003: ``san.entropy`` (Eq. 5.5),
    ``san.correlation`` (Eq. 5.6) and ``san.coherence`` (Eq. 5.8). Terms of weight 0, which are
    logged only and tell whether the block is awake: ``san.residual`` (largest distance of a row
    sum from 1), ``san.off_diagonal`` (share of the weight that leaves its position), ``san.moved``
    (share of the destinations whose largest weight is another position's), ``san.spread`` (how
    many sources a destination takes from, 1 to N, as the exponential of its entropy) and
    ``san.likeness`` (correlation between images of the weights that leave their position; 1: every
    image is assembled alike).

    Args:
        channels, height, width: size of the map.
        predictor: ``attention`` compares destinations with sources, for any size; ``conv`` predicts
            the destinations of each source from its surroundings, for maps of this size only.
        hidden: channels of the predictor.
        normalise: ``softmax`` normalises each destination alone; ``sinkhorn`` gives doubly
            stochastic weights.
        iterations: turns of Sinkhorn's normalisation.
        scale: s, the bound of the predicted logits; at most 30, for float32. null: b, the least
            bound at which weights can leave the identity, and they hardly do.

    Raises:
        ValueError: a map of one position, or a ``scale`` below b.

    Source: Li (2021), chapter 5, Eq. 5.3 to 5.8.
    Recipe: `blocks: {name: san, after: inception4e}`
    """

    terms: ClassVar[tuple[str, ...]] = (
        "san.entropy",
        "san.correlation",
        "san.coherence",
        "san.residual",
        "san.off_diagonal",
        "san.moved",
        "san.spread",
        "san.likeness",
    )
    weights: ClassVar[Mapping[str, Ramp]] = {
        "san.entropy": Ramp(end=0.0003),
        "san.correlation": Ramp(end=0.0003),
        "san.coherence": Ramp(end=0.0003),
        "san.residual": Ramp(end=0.0),
        "san.off_diagonal": Ramp(end=0.0),
        "san.moved": Ramp(end=0.0),
        "san.spread": Ramp(end=0.0),
        "san.likeness": Ramp(end=0.0),
    }

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        predictor: Literal["conv", "attention"] = "attention",
        hidden: Annotated[int, Ge(4)] = 64,
        normalise: Literal["sinkhorn", "softmax"] = "softmax",
        iterations: Annotated[int, Ge(1)] = 20,
        scale: Annotated[float, Interval(gt=0, le=30)] | None = 15.0,
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
        """Whether the output always has the input's mean over positions."""
        return self.doubly

    def forward(self, maps: Tensor) -> Tensor:
        """The assembled map (B, C, H, W) of a map of this shape."""
        tokens = self.reduce(maps)
        # The root mean square of an image's tokens becomes 1, at any scale of the network's maps.
        length = torch.linalg.vector_norm(
            tokens, dim=(1, 2, 3), keepdim=True, dtype=_choose_wide_dtype(tokens)
        )
        gain = math.sqrt(tokens[0].numel()) / length.clamp(min=1e-6)
        logits = self.predict(tokens * gain.to(tokens))
        # Meta tensors, which are used to learn shapes, do not support autocast.
        with nullcontext() if maps.is_meta else torch.autocast(maps.device.type, enabled=False):
            log_weights = self.normalise_logits(logits)
            weights = log_weights.exp()
            write_side("san.weights", weights)
            if self.training and torch.is_grad_enabled():
                self._write_terms(log_weights, weights, maps)
        sources, weights = maps.flatten(2), weights.to(maps.dtype)
        if maps.is_contiguous(memory_format=torch.channels_last):  # keep this memory format
            assembled = (weights.mT @ sources.mT).mT
        else:
            assembled = sources @ weights
        assembled = assembled.unflatten(2, maps.shape[2:])
        write_side("san.maps", assembled)
        return assembled

    def normalise_logits(self, logits: Tensor) -> Tensor:
        """Logarithms of the weights (B, N, N), from predicted logits (B, N, N), in float32."""
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
        """Add the loss terms and the logged terms to the running training step."""
        write_term("san.entropy", assembly_entropy(log_weights))
        write_term("san.correlation", assembly_correlation(weights))
        write_term("san.coherence", assembly_coherence(weights, maps))
        known = weights.detach()
        own = torch.arange(known.shape[1], device=known.device)
        write_term("san.residual", (known.sum(2) - 1).abs().max())
        write_term("san.off_diagonal", 1 - known.diagonal(dim1=1, dim2=2).mean())
        write_term("san.moved", (known.argmax(1) != own).to(known).mean())
        write_term("san.spread", count_sources(log_weights.detach()))
        write_term("san.likeness", image_correlation(known))

    @staticmethod
    def remark(values: Mapping[str, float]) -> str | None:
        """A warning if the block moved next to nothing, from a phase's last logged terms."""
        moved, off = values["san.moved"], values["san.off_diagonal"]
        if min(moved, off) >= INACTIVE:
            return None
        return (
            f"SAN inactive: {100 * off:.1f} % of the weight leaves its position, and "
            f"{100 * moved:.1f} % of the destinations get most from another; raise the learning "
            "rate of the block (optimizer.factors), spare it weight decay (optimizer.no_decay) or "
            "lower weights.san.*"
        )


def _choose_wide_dtype(values: Tensor) -> torch.dtype:
    """The type of ``values``, or float32 where that is wider."""
    return torch.promote_types(values.dtype, torch.float32)


def compute_identity_bias(count: int) -> float:
    """b = log(N - 1) + 3: what is added to the identity's logits for N = ``count`` positions."""
    return math.log(count - 1) + MARGIN
