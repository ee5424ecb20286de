"""Mappings of keys that a recipe chooses, from which null takes a key away."""

from __future__ import annotations

from typing import Any

FREE_KEYS = (("weights",), ("optimizer", "factors"), ("optimizer", "frozen_epochs"))
"""Mappings of keys that a recipe chooses; null takes one away that ``extends`` brought, or all."""


def drop_null_keys(data: dict[str, Any]) -> None:
    """Take away what is null of the mappings of ``FREE_KEYS``, and the keys in them that are.

    Args:
        data: of a recipe, not yet checked; changed in place, the mappings themselves are not.
    """
    for *outer, key in FREE_KEYS:
        holder = data.get(outer[0]) if outer else data
        if not isinstance(holder, dict) or key not in holder:
            continue
        if outer:
            data[outer[0]] = holder = dict(holder)
        if holder[key] is None:
            del holder[key]
        elif isinstance(holder[key], dict):
            holder[key] = {k: v for k, v in holder[key].items() if v is not None}
