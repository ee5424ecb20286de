"""What of a recipe is no mistake, and may be another run than a person expects."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from fewlabels.recipe.cross_checks import list_weighing
from fewlabels.recipe.messages import Mistakes
from fewlabels.recipe.overrides import COMMAND_LINE, Overrides
from fewlabels.recipe.sections import Optimizer, Rounds
from fewlabels.recipe.yaml_file import NAMING, KeyPath, format_inline, format_key_path

SHARED: dict[KeyPath, tuple[str, ...]] = {
    ("optimizer",): tuple(key for key in Optimizer.model_fields if key not in ("name", "options")),
    ("schedule",): ("warmup_epochs", "min_lr"),
}
"""Options that any optimiser and any schedule has."""


def make_remarks(check: Mistakes, data: dict[str, Any], overrides: Overrides) -> Iterator[str]:
    """Sentences about a recipe without mistakes.

    Args:
        data: of the recipe.
        overrides: what the command line has set.
    """
    for path, override in overrides.items():
        shared = find_shared_options(check, data, path, override.dropped)
        if shared:
            place = format_key_path(path[:-1] if path[-1] in NAMING else path)
            again = " ".join(
                shlex.quote(f"{place}.{key}={format_inline(value)}")
                for key, value in shared.items()
            )
            given = f"{format_key_path(path)}={format_inline(override.value)}"
            yield (
                f"{COMMAND_LINE}: {given} takes away all "
                f"options that the recipe gave there; to keep those that it has too: {again}"
            )
    strategy, schema = check.schemas["strategy",]
    if "x-weighs-labels" not in schema and list_weighing(check, data):
        yield (
            f"discovery.weigh: {strategy} does not say whether it counts labels by their weights, "
            "so they may count for nothing; if you wrote it, multiply its losses by Part.weights "
            "and give its class weighs_labels = True"
        )
    rounds = data.get("rounds") or {}
    if rounds.get("first_epochs") and not data["discovery"]:
        yield (
            f"rounds.first_epochs: {rounds['first_epochs']} counts for nothing without a "
            "discovery, before which alone there are rounds on the given labels; to train as long "
            "as with one, raise rounds.rounds or rounds.epochs_per_round"
        )
    final = (data.get("schedule") or {}).get("final_epochs") or 0
    after = Rounds(**rounds).count_epochs_after_discovery()
    if data["discovery"] and rounds.get("restart") != "round" and final > after:
        yield (
            f"schedule.final_epochs: {final} is more than the {after} epochs after the last "
            f"discovery, so labels arrive while the rate falls; set {after} or less"
        )


def find_shared_options(
    check: Mistakes, data: dict[str, Any], path: tuple[Any, ...], dropped: Any
) -> dict[str, Any]:
    """Of the options that went with a component, those that its successor has and nobody set."""
    if not dropped:
        return {}
    place = path[:-1] if path[-1] in NAMING else path
    if place and place[0] in check.single:
        place = (place[0], 0, *place[1:])
    known = SHARED.get(place) or check.schemas.get(place, ("", {}))[1].get("properties", {})
    now: Any = data
    for key in place:
        now = now[key]
    return {k: v for k, v in dropped.items() if k in known and k not in now}
