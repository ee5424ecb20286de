"""Ranges of whole numbers as a person writes them: ``0-4,9``."""

from __future__ import annotations

import re

MOST_NUMBERS = 1_000_000


def parse_number_ranges(text: str) -> list[int]:
    """``"0-4,9"`` as [0, 1, 2, 3, 4, 9]; a number that is named twice counts once.

    Raises:
        ValueError: text of another form, a range that ends before it starts, a number of more than
            18 digits, or more than ``MOST_NUMBERS`` numbers. The message does not repeat the text.
    """
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise ValueError("expected numbers such as 0-9 or 100-104,7")
    if re.search(r"\d{19}", text):  # Python itself reads no more than 4,300 digits
        raise ValueError("expected numbers of at most 18 digits")
    ends = [[int(number) for number in part.split("-")] for part in text.split(",")]
    ranges = [range(end[0], end[-1] + 1) for end in ends]
    if any(one.stop <= one.start for one in ranges):
        raise ValueError("write the smaller number of a range first")
    if sum(one.stop - one.start for one in ranges) > MOST_NUMBERS:
        raise ValueError(f"expected at most {MOST_NUMBERS:,} numbers")
    return list(dict.fromkeys(number for one in ranges for number in one))
