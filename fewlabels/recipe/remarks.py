"""What of a recipe is no mistake, and may be another run than a person expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fewlabels.recipe.messages import Mistakes
from fewlabels.recipe.overrides import COMMAND_LINE, Overrides
from fewlabels.recipe.yaml_file import format_inline, format_key_path


def make_remarks(check: Mistakes, data: dict[str, Any], overrides: Overrides) -> Iterator[str]:
    """Sentences about a recipe without mistakes.

    Args:
        data: of the recipe.
        overrides: what the command line has set.
    """
    for path, override in overrides.items():
        shared = find_shared_options(check, data, path, override.dropped)
        if shared:
            place = format_key_path(path[:-1])
            again = " ".join(
                f"{place}.{key}={format_inline(value)}" for key, value in shared.items()
            )
            yield (
                f"{COMMAND_LINE}: {format_key_path(path)}={override.value} takes away all options "
                f"that the recipe gave there; to keep those that it has too: {again}"
            )
    rounds = data.get("rounds") or {}
    if rounds.get("first_epochs") and not data["discovery"]:
        yield (
            f"rounds.first_epochs: {rounds['first_epochs']} counts for nothing without a "
            "discovery, before which alone there are rounds on the given labels; to train as long "
            "as with one, raise rounds.rounds or rounds.epochs_per_round"
        )


def find_shared_options(
    check: Mistakes, data: dict[str, Any], path: tuple[Any, ...], dropped: Any
) -> dict[str, Any]:
    """Of the options that went with a component, those that its successor has and nobody set."""
    place = path[:-1]
    schema = check.schemas.get(place, ("", {}))[1]
    now: Any = data
    for key in place:
        now = now[key]
    return {k: v for k, v in dropped.items() if k in schema.get("properties", {}) and k not in now}
