"""A value that changes with the step: linear, sigmoid, cosine, step, reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Ramp:
    """From ``start`` to ``end`` over ``steps`` optimiser steps, and ``end`` from then on.

    ``sigmoid`` is Mean Teacher's exp(-5 (1 - t)^2) (Laine and Aila, ICLR 2017, Section 3); ``step``
    stays at ``start`` until ``steps`` is reached. ``reach`` is for the decay of a moving average:
    t / (t + 10), at most ``end``, averages over a tenth of the steps so far, in runs of any length
    (it has no ``start`` and no ``steps``). A recipe sets weights' ramps under ``weights:``.

    Raises:
        ValueError: a decay of shape ``reach`` that is not between 0 and 1, or with start or steps.
    """

    end: float
    start: float = 0.0
    steps: int = 0
    shape: Literal["linear", "sigmoid", "cosine", "step", "reach"] = "linear"

    def __post_init__(self) -> None:
        if self.shape == "reach" and (self.start or self.steps):
            raise ValueError("shape reach takes no start and no steps; leave them out")
        if self.shape == "reach" and not 0 <= self.end <= 1:
            raise ValueError("shape reach is for decays, whose end is between 0 and 1")

    def __call__(self, step: int) -> float:
        """The value at optimiser step ``step``, the first step being 0."""
        if self.shape == "reach":
            return min(self.end, step / (step + 10))
        if step >= self.steps:
            return self.end
        t = step / self.steps
        rise = {
            "linear": t,
            "sigmoid": math.exp(-5.0 * (1.0 - t) ** 2),
            "cosine": (1.0 - math.cos(math.pi * t)) / 2.0,
            "step": 0.0,
        }[self.shape]
        return self.start + (self.end - self.start) * rise
