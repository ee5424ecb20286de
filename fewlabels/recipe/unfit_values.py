"""What no recipe can hold: it may be a stranger's, and must not cost a reader time or memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fewlabels.recipe.yaml_file import (
    DEEPEST,
    LARGEST_NUMBER,
    MERGE,
    MOST_BYTES,
    MOST_VALUES,
    NO_MERGE,
    TOO_DEEP,
    TOO_LARGE,
    TOO_MANY_LETTERS,
    TOO_MANY_VALUES,
    KeyPath,
    show_value,
)


def find_unfit_values(data: Any) -> Iterator[tuple[KeyPath, str]]:
    """Where plain data hold what a recipe cannot, and a sentence for each.

    That is too many values or letters, lists or mappings nested too deeply or in themselves, keys
    that cannot be printed or read again, text that is no Unicode, and numbers that are none or that
    no computer counts to.
    """
    waiting: list[tuple[KeyPath, Any]] = [((), data)]
    seen = letters = 0
    while waiting:
        path, value = waiting.pop()
        seen += 1
        if seen + len(waiting) > MOST_VALUES:
            yield (), TOO_MANY_VALUES
            return
        texts = [text for text in (value, *path[-1:]) if isinstance(text, str)]
        letters += sum(map(len, texts))
        if letters > MOST_BYTES:
            yield (), TOO_MANY_LETTERS
            return
        if isinstance(value, (dict, list, tuple)):
            if len(path) >= DEEPEST and value:
                yield path, TOO_DEEP
                continue
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*path, key), each) for key, each in inner][::-1]
        elif isinstance(value, float) and not math.isfinite(value):
            yield path, f"expected a number, got {value}"
        elif isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            yield path, TOO_LARGE
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            yield path, f"{show_value(value)} is no Unicode text; write it otherwise"
        if path and isinstance(path[-1], str) and not path[-1].isprintable():
            yield path, "this key cannot be printed; rename it"
        if path and path[-1] == MERGE:
            yield path, NO_MERGE
