"""Which distributions provide a recipe's plugin components; a run records them."""

from __future__ import annotations

from pathlib import Path

from fewlabels.errors import FewLabelsError
from fewlabels.recipe.recipe import Recipe
from fewlabels.training.run_folder import RunFolder

OWN = "its own program"
"""Recorded for a component that comes from user code, not from an installed distribution."""


def list_plugins(recipe: Recipe) -> dict[str, str]:
    """Map each plugin, as ``discovery my_idea``, to its distribution and version, or to ``OWN``."""
    return {
        f"{registry.kind} {spec.name}": str(offer) if offer.entry else OWN
        for registry, spec in recipe.components
        if (offer := registry.find_plugin(spec.name))
    }


def refuse_other_plugins(recipe: Recipe, folder: Path, otherwise: str) -> None:
    """Raise if the plugins installed now are not those that a run was made with.

    Args:
        folder: the run's; older runs record no plugins and are accepted.
        otherwise: the advice that ends the error message.

    Raises:
        FewLabelsError: a plugin has another version, or is from another distribution.
    """
    noted = RunFolder(folder).read_first_row().get("plugins")
    if not isinstance(noted, dict):  # older runs note none
        return
    now = list_plugins(recipe)
    for component, then in noted.items():
        if (here := now.get(component, then)) != then:
            raise FewLabelsError(
                f"{folder}: {component} was of {then}, and is of {here} now; {otherwise}"
            )
