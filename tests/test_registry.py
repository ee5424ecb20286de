import re
from importlib.metadata import EntryPoint

import pytest

from fewlabels.errors import ComponentError
from fewlabels.registry import REGISTRIES, Offer, Registry


def test_every_built_in_entry_point_loads_and_every_decorator_has_one():
    for registry in REGISTRIES.values():
        declared = {n for n, o in registry.offers().items() if o[0].distribution == "fewlabels"}
        for name in declared:
            assert registry.get(name) is registry._registered[name]
        ours = {n for n, c in registry._registered.items() if c.__module__.startswith("fewlabels.")}
        assert ours == declared


def test_unknown_name_gives_the_nearest_and_all_names():
    with pytest.raises(ComponentError, match=r"no loss is called 'multi_similarty'; did you mean"):
        REGISTRIES["losses"].get("multi_similarty")


def test_a_second_component_of_one_name_is_refused():
    registry = Registry("thing", "things")
    registry.register("a")(type("A", (), {"__init__": lambda self: None}))
    with pytest.raises(ComponentError, match="two things are called 'a'"):
        registry.register("a")(type("B", (), {"__init__": lambda self: None}))


def test_an_option_without_annotation_is_refused_when_registered():
    def bare(*, size=3):
        return size

    def greedy(**rest):
        return rest

    with pytest.raises(ComponentError, match="option 'size' needs an annotation and a default"):
        Registry("thing", "things").register("bare")(bare)
    with pytest.raises(ComponentError, match=re.escape("takes **rest")):
        Registry("thing", "things").register("greedy")(greedy)


def offers_of(*entries: tuple[str, str]):
    """A registry whose names come from entry points of invented distributions."""
    registry = Registry("thing", "things")
    found = {
        "it": [
            Offer("it", dist, "1.0", EntryPoint("it", value, registry.group))
            for dist, value in entries
        ]
    }
    registry.offers = lambda: found
    return registry


def test_two_distributions_with_one_name_are_told_apart_by_a_prefix():
    registry = offers_of(("one", "collections:OrderedDict"), ("two", "json:JSONDecodeError"))
    with pytest.raises(ComponentError, match="offered by one 1.0 and two 1.0; write 'one:it'"):
        registry.get("it")
    assert registry.get("two:it").__name__ == "JSONDecodeError"


def test_a_plugin_that_fails_to_import_is_named_when_asked_for():
    registry = offers_of(("broken", "no_such_module_here:Thing"))
    with pytest.raises(
        ComponentError, match="'it' of broken 1.0 cannot be imported: ModuleNotFound"
    ):
        registry.get("it")
