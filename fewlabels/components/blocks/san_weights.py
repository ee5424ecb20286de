"""SAN's weights: Sinkhorn's normalisation, and the three terms that regularise the weights.

Weights are (B, N, N): the share of source position u (row) in destination v (column), where the
N = height * width positions are numbered row by row. Inputs are float32 or float64, since half
precision is too coarse for the small differences near a permutation.

Source: Li (2021), chapter 5, Eq. 5.3 to 5.8.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

NEIGHBOURS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Steps (dy, dx) to half of the eight neighbours; the other half are the same pairs reversed."""


def normalise_by_sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """Logarithms of doubly stochastic weights (Eq. 5.3), (B, N, N).

    Rows and columns are normalised in turn, ``iterations`` times. Columns come last, so that each
    destination is a convex combination of sources even if rows have not converged. The first turn
    works on logarithms. Later turns only change a factor for each row and each column, which
    float32 can hold for logits that span up to 80.
    """
    logs = logits.log_softmax(2).log_softmax(1)
    scaled: Tensor = _SinkhornScaling.apply(logs, iterations - 1)
    return scaled


class _SinkhornScaling(torch.autograd.Function):
    """Normalises rows and columns in turn by a factor for each row and each column.

    The backward pass goes through each turn with matrix-vector products only. Autograd would keep
    two matrices (B, N, N) for each turn.
    """

    @staticmethod
    def forward(ctx: Any, logs: Tensor, turns: int) -> Tensor:
        """Logarithms of the weights (B, N, N) after ``turns`` more turns."""
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
        """The gradient of the logarithms (B, N, N)."""
        kernel, *factors = ctx.saved_tensors
        turns = len(factors) // 2
        if not turns:
            return gradient, None
        rows, columns = factors[:turns], factors[turns:]
        of_row, of_column = gradient.sum(2, keepdim=True), gradient.sum(1, keepdim=True)
        left, right = [], []  # (B, N, 1), (B, 1, N): products of these make the kernel's gradient
        with torch.autocast(gradient.device.type, enabled=False):
            for turn in reversed(range(turns)):
                # log c = -log(r K). The result contains the r of the last turn only.
                across = columns[turn + 1] * of_column
                of_row = of_row - rows[turn] * (kernel @ across.mT)
                # log r = -log(K c), where c is that of the turn before.
                down = rows[turn] * of_row
                of_column = -columns[turn] * (down.mT @ kernel)
                of_row = torch.zeros_like(of_row)
                left += [rows[turn], down]
                right += [across, columns[turn]]
            return gradient - kernel * (torch.cat(left, 2) @ torch.cat(right, 1)), None


def _invert_sums(sums: Tensor) -> Tensor:
    """1 / sums, finite where a sum is 0."""
    return 1 / sums.clamp(min=torch.finfo(sums.dtype).tiny)


def assembly_entropy(log_weights: Tensor) -> Tensor:
    """Entropy of the normalised rows and columns in bits (Eq. 5.5), divided by N.

    Takes logarithms of weights (B, N, N) and gives a scalar, the mean over the batch.
    """
    bits = torch.zeros((), dtype=log_weights.dtype, device=log_weights.device)
    for axis in (1, 2):
        own = log_weights.log_softmax(axis)
        bits = bits - (own.exp() * own).sum((1, 2)).mean() / math.log(2)
    return bits / log_weights.shape[1]


def assembly_correlation(weights: Tensor) -> Tensor:
    """Products of different rows and of different columns (Eq. 5.6), divided by N.

    Takes weights (B, N, N) and gives a scalar, the mean over the batch. The sum over all pairs is
    computed in closed form, as the square of a sum minus the sum of squares.
    """
    squares = 2 * weights.square().sum((1, 2))
    sums = weights.sum(1).square().sum(1) + weights.sum(2).square().sum(1)
    return (sums - squares).mean() / weights.shape[1]


def assembly_coherence(weights: Tensor, maps: Tensor) -> Tensor:
    """How far similar neighbours are moved apart (Eq. 5.8), divided by N.

    Takes weights (B, N, N) and the map (B, C, H, W) that they move; gives a scalar, the mean over
    the batch. For each position and each of its neighbours, the weights of both are compared after
    those of the neighbour are shifted back by the step between the two; they are equal where
    neighbours stay neighbours. The distance is multiplied by alpha, the cosine of the two features
    in the map (Eq. 5.7), at least 0 and without gradient.
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
        # The norm of the difference, in three parts: where both overlap after the shift, and the
        # rows and columns that the shift takes off the map.
        both = one[(..., *own)] - two[(..., *other)]
        for goes, inside in ((one, own), (two, other)):
            rows, columns = (
                _slice_remainder(s, n) for s, n in zip(inside, (height, width), strict=True)
            )
            parts = (both, goes[..., rows, :], goes[..., inside[0], columns])
            norms = torch.stack([torch.linalg.vector_norm(p, dim=(3, 4)) for p in parts])
            total = total + (alpha * torch.linalg.vector_norm(norms, dim=0)).sum((1, 2)).mean()
    return total / weights.shape[1]


def count_sources(log_weights: Tensor) -> Tensor:
    """How many sources a destination takes from: exp of its entropy, 1 to N.

    Takes logarithms of weights (B, N, N) and gives a scalar, the mean over batch and destinations.
    """
    own = log_weights.log_softmax(1)
    return (-(own.exp() * own).sum(1)).exp().mean()


def image_correlation(weights: Tensor) -> Tensor:
    """Pearson correlation of the weights off the diagonal, mean over pairs of different images.

    Takes weights (B, N, N) and gives a scalar: 1 where each image is assembled alike, 0 where
    nothing is predicted yet and where there is one image.
    """
    images, count = weights.shape[:2]
    if images < 2:
        return weights.new_zeros(())
    off = ~torch.eye(count, dtype=torch.bool, device=weights.device)
    moved = weights[:, off]  # (B, N * (N - 1))
    moved = moved - moved.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
    # Rounding alone makes equal weights differ by some 1e-7 of themselves.
    known = length > 1e-5 * torch.linalg.vector_norm(weights[:, off], dim=1, keepdim=True)
    moved = torch.where(known, moved / length.clamp(min=1e-30), 0)
    squares = moved.square().sum()
    return (moved.sum(0).square().sum() - squares) / (images * (images - 1))


def _slice_neighbours(size: int, step: int) -> tuple[slice, slice]:
    """Positions along an axis whose neighbour is on the map, and those neighbours."""
    start, stop = max(0, -step), size - max(0, step)
    return slice(start, stop), slice(start + step, stop + step)


def _slice_remainder(inside: slice, size: int) -> slice:
    """Positions along an axis that ``inside`` leaves out, at one of the two ends."""
    return slice(0, inside.start) if inside.start else slice(inside.stop, size)
