"""Spatial assembly weights: made doubly stochastic, and the three ways to regularise them.

Weights are (B, N, N): of source position u (row) in destination v (column), N = height * width
positions row by row. Everything here takes logarithms of weights, in float32 or float64: near a
permutation the differences below would drown in half precision.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbours: seen from there, a position is one of the other half."""


def normalise_by_sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Logarithms of doubly stochastic weights (Eq. 5.3), (B, N, N).

    Rows and columns are normalised in turn, ``iterations`` times; columns come last, so that every
    destination is a convex combination of sources however far rows have come. The first time is in
    logarithms; what is left is a factor for each row and column, which float32 holds for logits
    that span up to 80.
    """
    logs = logits.log_softmax(2).log_softmax(1)
    scaled: Tensor = _SinkhornScaling.apply(logs, iterations - 1)
    return scaled


class _SinkhornScaling(torch.autograd.Function):
    """Factors for rows and columns, found in turn.

    The gradient goes back through each turn, with products of a matrix and a vector alone; left to
    autograd, two matrices of each turn would be kept.
    """

    @staticmethod
    def forward(ctx: Any, logs: Tensor, turns: int) -> Tensor:
        kernel = logs.exp()
        columns = [torch.ones_like(kernel[:, :1])]  # (B, 1, N)
        rows = []  # (B, N, 1)
        for _ in range(turns):
            rows.append(_invert_sums(kernel @ columns[-1].mT))
            columns.append(_invert_sums(rows[-1].mT @ kernel))
        ctx.save_for_backward(kernel, *rows, *columns)
        return logs + rows[-1].log() + columns[-1].log() if rows else logs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        kernel, *factors = ctx.saved_tensors
        turns = len(factors) // 2
        if not turns:
            return gradient, None
        rows, columns = factors[:turns], factors[turns:]
        of_row, of_column = gradient.sum(2, keepdim=True), gradient.sum(1, keepdim=True)
        left, right = [], []  # (B, N, 1), (B, 1, N): the kernel's gradient is of their products
        with torch.autocast(gradient.device.type, enabled=False):
            for turn in reversed(range(turns)):
                # log c = -log(r K), and r is in the result itself after the last turn alone.
                across = columns[turn + 1] * of_column
                of_row = of_row - rows[turn] * (kernel @ across.mT)
                # log r = -log(K c), of the columns before.
                down = rows[turn] * of_row
                of_column = -columns[turn] * (down.mT @ kernel)
                of_row = torch.zeros_like(of_row)
                left += [rows[turn], down]
                right += [across, columns[turn]]
            return gradient - kernel * (torch.cat(left, 2) @ torch.cat(right, 1)), None


def _invert_sums(sums: Tensor) -> Tensor:
    return 1 / sums.clamp(min=torch.finfo(sums.dtype).tiny)


def assembly_entropy(log_weights: Tensor) -> Tensor:
    """Entropy of rows and of columns in bits (Eq. 5.5), a position: () of (B, N, N)."""
    bits = torch.zeros((), dtype=log_weights.dtype, device=log_weights.device)
    for axis in (1, 2):
        own = log_weights.log_softmax(axis)
        bits = bits - (own.exp() * own).sum((1, 2)).mean() / math.log(2)
    return bits / log_weights.shape[1]


def assembly_correlation(weights: Tensor) -> Tensor:
    """Products of different rows and of different columns (Eq. 5.6), a position: () of (B, N, N).

    In closed form: the square of a sum less the sum of squares.
    """
    squares = 2 * weights.square().sum((1, 2))
    sums = weights.sum(1).square().sum(1) + weights.sum(2).square().sum(1)
    return (sums - squares).mean() / weights.shape[1]


def assembly_coherence(weights: Tensor, maps: Tensor) -> Tensor:
    """How far neighbours that look alike are taken apart (Eq. 5.8), a position: () of (B, N, N).

    Over each position (i, j) and its neighbours (i', j'), alpha times the distance between where
    (i, j) goes and where (i', j') goes moved by one step, such that the two agree where neighbours
    stay neighbours. Alpha is the cosine of their features in ``maps`` (B, C, H, W), Eq. 5.7: a
    constant, and not below 0.
    """
    (height, width), total = maps.shape[2:], weights.new_zeros(())
    where = weights.unflatten(2, (height, width)).unflatten(1, (height, width))  # (B, H, W, H, W)
    features = maps.detach().to(weights)
    lengths = torch.linalg.vector_norm(features, dim=1).clamp(min=1e-12)
    for dy, dx in NEIGHBOURS:
        own, other = zip(_slice_neighbours(height, dy), _slice_neighbours(width, dx), strict=True)
        alike = (features[(..., *own)] * features[(..., *other)]).sum(1).clamp(min=0)
        alpha = alike / lengths[(..., *own)] / lengths[(..., *other)]
        one, two = where[(slice(None), *own)], where[(slice(None), *other)]
        # Where both could be, and the rest, which a step would take off the map, in three norms.
        both = one[(..., *own)] - two[(..., *other)]
        for goes, inside in ((one, own), (two, other)):
            rows, columns = (
                _slice_remainder(s, n) for s, n in zip(inside, (height, width), strict=True)
            )
            parts = (both, goes[..., rows, :], goes[..., inside[0], columns])
            norms = torch.stack([torch.linalg.vector_norm(p, dim=(3, 4)) for p in parts])
            total = total + (alpha * torch.linalg.vector_norm(norms, dim=0)).sum((1, 2)).mean()
    return total / weights.shape[1]


def _slice_neighbours(size: int, step: int) -> tuple[slice, slice]:
    """Positions along an axis whose neighbour is inside, and these neighbours."""
    start, stop = max(0, -step), size - max(0, step)
    return slice(start, stop), slice(start + step, stop + step)


def _slice_remainder(inside: slice, size: int) -> slice:
    """Positions along an axis beside a stretch that begins or ends with it."""
    return slice(0, inside.start) if inside.start else slice(inside.stop, size)
