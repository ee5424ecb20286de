"""What a component says of itself: where it comes from, and a recipe line that works."""

import inspect
import re

import pytest
import yaml

from fewlabels.components.losses.pml import list_pml_losses
from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import recipe_from
from fewlabels.registry import REGISTRIES
from fewlabels.registry.signature import list_options

CLASSIFIER = {
    "data": {"source": "digits", "split": "official", "labels": 50},
    "model": {"backbone": "convnet3", "image_size": 24},
    "strategy": "mean_teacher",
}
EMBEDDER = {
    "data": {"source": "digits", "labels": "all"},
    "model": {"backbone": "convnet3", "image_size": 24},
    "strategy": "metric",
    "losses": ["multi_similarity"],
}
ON_CLUSTERS = {
    **EMBEDDER,
    "data": {"source": "digits", "labels": "none"},
    "blocks": {"name": "cbam", "after": "conv3"},
    "strategy": "tac_ccl",
    "discovery": ["kmeans", "matching"],
}
BUILT_IN = [
    (plural, name)
    for plural, registry in REGISTRIES.items()
    for name, offers in registry.list_offers().items()
    if [offer.distribution for offer in offers] == ["fewlabels"]
]
PML = [("losses", f"pml:{name}") for name in list_pml_losses()]


def recipe_line(plural, name):
    """The YAML of the line ``Recipe: `...` `` in a component's docstring."""
    doc = inspect.getdoc(REGISTRIES[plural].get(name))
    (line,) = re.findall(r"^Recipe: `(.+)`$", doc, re.MULTILINE)
    return line


def options_named(plural, name, line):
    """The options that a recipe line sets on a component; fails if it does not name it."""
    if plural == "backbones":
        assert line["model"]["backbone"] == name
        return line["model"].get("backbone_options", {})
    if plural == "sources":
        assert line["data"]["source"] == name
        of_section = {"source", "split", "labels"}
        return {key: value for key, value in line["data"].items() if key not in of_section}
    (written,) = line.values()
    slots = written if isinstance(written, list) else [written]
    (own,) = [slot for slot in slots if isinstance(slot, dict) and slot["name"] == name]
    of_section = {"name", "after"} if plural == "blocks" else {"name"}
    return {key: value for key, value in own.items() if key not in of_section}


@pytest.mark.parametrize(("plural", "name"), [*BUILT_IN, *PML])
def test_a_component_shows_a_recipe_line_that_is_accepted(plural, name):
    line = yaml.safe_load(recipe_line(plural, name))
    component = REGISTRIES[plural].get(name)
    assert options_named(plural, name, line).keys() <= list_options(component).keys()
    refusals = []
    for base in (CLASSIFIER, EMBEDDER, ON_CLUSTERS):
        try:
            recipe_from({**base, **line})
        except RecipeError as error:
            refusals.append(str(error))
        else:
            return
    raise AssertionError("\n".join(refusals))


@pytest.mark.parametrize(("plural", "name"), BUILT_IN)
def test_a_component_names_its_source(plural, name):
    """An equation's number says nothing without the work that has it."""
    doc = inspect.getdoc(REGISTRIES[plural].get(name))
    _, source = doc.split("\nSource: ")
    if re.search(r"\b(Eq\.|Fig\.|Table|Section)", doc):
        assert re.search(r"Li \(2021\), chapter \d|, (19|20)\d\d", source)


def test_the_registries_hold_components():
    assert len(BUILT_IN) > 45
