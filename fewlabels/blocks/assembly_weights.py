"""Spatial assembly weights: made doubly stochastic, and the three ways to regularise them.

Weights are (B, N, N): of source position u (row) in destination v (column), N = height * width
positions row by row. Everything here takes logarithms of weights, in float32 or float64: near a
permutation the differences below would drown in half precision.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

NEIGHBOURS = [d for d in itertools.product((-1, 0, 1), repeat=2) if d != (0, 0)]


def sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Logarithms of doubly stochastic weights (Eq. 5.3), (B, N, N).

    Rows and columns are normalised in turn, ``iterations`` times; columns come last, so that every
    destination is a convex combination of sources however far rows have come.
    """
    for _ in range(iterations):
        logits = logits.log_softmax(2).log_softmax(1)
    return logits


def entropy(log_weights: Tensor) -> Tensor:
    """Entropy of rows and of columns in bits (Eq. 5.5), a position: () of (B, N, N)."""
    bits = torch.zeros((), dtype=log_weights.dtype, device=log_weights.device)
    for axis in (1, 2):
        own = log_weights.log_softmax(axis)
        bits = bits - (own.exp() * own).sum((1, 2)).mean() / math.log(2)
    return bits / log_weights.shape[1]


def correlation(weights: Tensor) -> Tensor:
    """Products of different rows and of different columns (Eq. 5.6), a position: () of (B, N, N).

    In closed form: the square of a sum less the sum of squares.
    """
    squares = 2 * weights.square().sum((1, 2))
    sums = weights.sum(1).square().sum(1) + weights.sum(2).square().sum(1)
    return (sums - squares).mean() / weights.shape[1]


def coherence(weights: Tensor, maps: Tensor) -> Tensor:
    """How far neighbours that look alike are taken apart (Eq. 5.8), a position: () of (B, N, N).

    Over each position (i, j) and its neighbours (i', j'), alpha times the distance between where
    (i, j) goes and where (i', j') goes moved by one step, such that the two agree where neighbours
    stay neighbours. Alpha is the cosine of their features in ``maps`` (B, C, H, W), Eq. 5.7: a
    constant, and not below 0.
    """
    (height, width), total = maps.shape[2:], weights.new_zeros(())
    where = weights.unflatten(2, (height, width)).unflatten(1, (height, width))  # (B, H, W, H, W)
    alike = normalize(maps.detach().to(weights), dim=1)
    for dy, dx in NEIGHBOURS:
        here, there = _overlap(height, dy), _overlap(width, dx)
        own, other = zip(here, there, strict=True)
        alpha = (alike[(..., *own)] * alike[(..., *other)]).sum(1).clamp(min=0)
        # Moved by one step back; what comes in from outside is 0.
        moved = where[(slice(None), *other)]
        moved = pad(moved, (max(0, -dx), max(0, dx), max(0, -dy), max(0, dy)))
        moved = moved[..., max(0, dy) : max(0, dy) + height, max(0, dx) : max(0, dx) + width]
        apart = torch.linalg.vector_norm(where[(slice(None), *own)] - moved, dim=(3, 4))
        total = total + (alpha * apart).sum((1, 2)).mean()
    return total / weights.shape[1]


def _overlap(size: int, step: int) -> tuple[slice, slice]:
    """Positions along an axis whose neighbour is inside, and these neighbours."""
    start, stop = max(0, -step), size - max(0, step)
    return slice(start, stop), slice(start + step, stop + step)
