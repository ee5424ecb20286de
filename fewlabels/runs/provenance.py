"""Who offers the components of a recipe that are not built in; a run notes it of itself."""

from __future__ import annotations

from pathlib import Path

from fewlabels.errors import FewLabelsError
from fewlabels.recipe.recipe import Recipe
from fewlabels.training.run_folder import RunFolder

OWN = "its own program"
"""Who offers what no installed distribution does."""


def list_plugins(recipe: Recipe) -> dict[str, str]:
    """By component, as in ``discovery my_idea``, its distribution and version, or ``OWN``."""
    return {
        f"{registry.kind} {spec.name}": str(offer) if offer.entry else OWN
        for registry, spec in recipe.components
        if (offer := registry.find_plugin(spec.name))
    }


def refuse_other_plugins(recipe: Recipe, folder: Path, otherwise: str) -> None:
    """Refuse to go on with a run, or to take its result, where its plugins are others by now.

    Args:
        folder: the run's; one that notes no plugins, as older ones do, is taken as it is.
        otherwise: what else to do than to install what the run was made with.

    Raises:
        FewLabelsError: another version, or another distribution.
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
