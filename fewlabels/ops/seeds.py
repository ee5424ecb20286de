"""Every random draw has a seed derived from its purpose, so no RNG state is stored.

A run that is killed and resumed, or that uses more processes, draws the same numbers.
"""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from, say, ``(seed, "view", round, epoch, step)``."""
    words = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in parts]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(*parts: int | str) -> np.random.Generator:
    """A numpy generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(*parts))
