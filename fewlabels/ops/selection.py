"""Selection of samples by their scores."""

from __future__ import annotations

from typing import Literal

import numpy as np

Select = Literal["min", "max", "random"]


def select_samples(
    scores: np.ndarray,
    labels: np.ndarray,
    budget: int,
    select: Select,
    pool_factor: float | None,
    balance: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Select at most ``budget`` samples; give their positions, sorted.

    Args:
        scores: (N,) larger = surer. ``min`` takes the surest of the confident pool (the smallest
            distance), ``max`` its least sure.
        labels: (N,) labels that the samples would get.
        pool_factor: the confident pool holds the surest ``pool_factor * budget``; None: all.
        balance: share the budget equally between the labels, each with a confident pool of its own.
            The first labels get the remainder; what a label cannot use is not passed on.
    """
    if balance:
        present = np.unique(labels)
        shares = np.full(len(present), budget // max(1, len(present)))
        shares[: budget % max(1, len(present))] += 1
        parts = []
        for label, share in zip(present, shares, strict=True):
            own = np.flatnonzero(labels == label)
            taken = select_samples(
                scores[own], labels[own], int(share), select, pool_factor, False, rng
            )
            parts.append(own[taken])
        return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))
    order = np.argsort(-scores, kind="stable")
    budget = min(budget, len(order))
    size = len(order) if pool_factor is None else min(len(order), round(pool_factor * budget))
    pool = order[:size]
    if select == "random":
        taken = rng.choice(pool, budget, replace=False)
    else:
        taken = pool[:budget] if select == "min" else pool[len(pool) - budget :]
    return np.sort(taken)
