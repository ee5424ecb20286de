"""The order in which people count: 2 before 10."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DIGITS = re.compile(r"([0-9]{1,4000})")  # Python reads no longer number


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Names by their text, and by the value of the numbers in it: ``a2`` before ``a10``."""
    return sorted(names, key=_make_key)


def _make_key(name: str) -> tuple[list[tuple[int, str]], str]:
    # Text and numbers take turns, so numbers meet numbers; "1" and "01" differ by their text.
    pieces = _DIGITS.split(name)
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(pieces)], name
