import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import DIGITS

import fewlabels
from fewlabels.cli.main import main
from fewlabels.contracts import API_VERSION
from fewlabels.errors import ComponentError, RecipeError
from fewlabels.recipe.recipe import recipe_from
from fewlabels.registry import REGISTRIES, Registry


def test_every_built_in_entry_point_loads_and_every_decorator_has_one():
    for registry in REGISTRIES.values():
        declared = {
            n for n, o in registry.list_offers().items() if o[0].distribution == "fewlabels"
        }
        for name in declared:
            assert [registry.get(name)] == list(registry._registered[name].values())
        ours = {
            name
            for name, modules in registry._registered.items()
            if any(module.startswith("fewlabels.") for module in modules)
        }
        assert ours == declared


def test_unknown_name_gives_the_nearest_and_all_names():
    with pytest.raises(ComponentError, match=r"no loss is called 'multi_similarty'; did you mean"):
        REGISTRIES["losses"].get("multi_similarty")


def test_a_name_of_a_missing_plugin_says_what_to_install(monkeypatch):
    registry = Registry("discovery", "discovery", {"pml": "json:loads"})
    registry.offers = dict  # as where nothing is installed
    monkeypatch.setattr("fewlabels.registry.registry._is_installed", lambda distribution: False)
    path = "plugins/fewlabels-label-propagation"
    sentence = f"'label_propagation' is of {path[8:]}, which is not installed; pip install {path},"
    with pytest.raises(ComponentError, match=sentence):
        registry.get("label_propagation")
    with pytest.raises(ComponentError, match="'label_propa'; did you mean 'label_propagation'"):
        registry.get("label_propa")
    with pytest.raises(
        ComponentError, match="'x-y:walk': no distribution 'x-y' is installed; install it, if"
    ):
        registry.get("x-y:walk")
    with pytest.raises(
        ComponentError, match="'plm:it': no distribution 'plm' .* did you mean 'pml'"
    ):
        registry.get("plm:it")


def test_a_distribution_that_is_installed_is_not_to_be_installed_again():
    with pytest.raises(ComponentError, match="no loss is called 'numpy:margin'"):
        REGISTRIES["losses"].get("numpy:margin")


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


@pytest.mark.parametrize("name", ["../out", "a b", "one:it", ""])
def test_a_name_that_no_recipe_can_write_is_refused(name):
    with pytest.raises(ComponentError, match="a name has letters, digits"):
        Registry("thing", "things").register(name)


CODE = """
from fewlabels import discovery


@discovery.register("it")
class It:
    def __init__(self, *, size: int = 1) -> None: ...
"""
BROKEN = "import no_such_module_here\n"


@pytest.fixture
def registry(built_in, monkeypatch):
    """The registry of discoveries, which forgets afterwards what a test has registered."""
    monkeypatch.setattr(REGISTRIES["discovery"], "_registered", {})
    return REGISTRIES["discovery"]


def test_two_distributions_with_one_name_are_told_apart_by_a_prefix(registry, install, capsys):
    install("lab-one", {"lab_one": CODE}, it="lab_one:It")
    install("lab-two", {"lab_two": CODE}, it="lab_two:It")
    for _ in range(2):  # also when the decorators have run
        with pytest.raises(ComponentError) as error:
            registry.get("it")
        assert str(error.value) in (
            "discovery 'it' is offered by lab-one 0.3 and lab-two 0.3; write 'lab-one:it' or 'lab-two:it'",
            "discovery 'it' is offered by lab-two 0.3 and lab-one 0.3; write 'lab-two:it' or 'lab-one:it'",
        )
        assert registry.get("lab-one:it").__module__ == "lab_one"
        assert registry.get("lab-two:it").__module__ == "lab_two"
    assert main(["list", "discovery"]) == 0
    assert "! offered more than once; write 'lab-" in capsys.readouterr().out


def test_a_plugin_that_fails_to_import_is_named_when_asked_for_and_marked_in_the_list(
    registry, install, capsys
):
    install("lab-one", {"lab_one": CODE}, it="lab_one:It")
    install("broken", {"broken_of_lab": BROKEN}, other="broken_of_lab:It", gone="lab_one:Gone")
    install("leaves", {"leaves_of_lab": "raise SystemExit(3)"}, third="leaves_of_lab:It")
    sentence = "discovery 'other' of broken 0.3 cannot be imported: ModuleNotFoundError: No module"
    with pytest.raises(ComponentError, match=sentence):
        registry.get("other")
    assert registry.get("it").__module__ == "lab_one"
    assert main(["list", "discovery"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("  other "))
    assert lines[at].split() == ["other", "broken", "0.3"]
    assert lines[at + 1].startswith(f"    ! {sentence}")
    assert sum("    ! discovery" in line for line in lines) == 3


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        (API_VERSION + 1, f"is for version {API_VERSION + 1} of the plugin interface, and this fewlabels has version {API_VERSION}; pip install --upgrade fewlabels"),
        ("'two'", "says fewlabels_api = 'two'; its authors have to write a whole number"),
        (0, "says fewlabels_api = 0; its authors"),
        (True, "says fewlabels_api = True; its authors"),
        (API_VERSION, None),
    ],
)  # fmt: skip
def test_a_plugin_for_another_interface_says_what_to_upgrade(registry, install, version, sentence):
    name = f"lab_of_{str(version).strip(chr(39))}"
    install("lab", {name: f"{CODE}\nfewlabels_api = {version}\n"}, it=f"{name}:It")
    if sentence is None:
        assert registry.get("it").__module__ == name
        return
    with pytest.raises(ComponentError, match=re.escape(f"discovery 'it' of lab 0.3 {sentence}")):
        registry.get("it")


def test_a_newer_interface_is_told_before_what_it_lacks_here(registry, install):
    newer = f"from fewlabels.contracts import Explained\n\nfewlabels_api = {API_VERSION + 1}\n"
    install("lab", {"lab_of_names": newer}, it="lab_of_names:It")
    with pytest.raises(ComponentError, match="pip install --upgrade fewlabels$"):
        registry.get("it")


def test_code_beside_a_recipe_says_its_interface_too(registry, monkeypatch):
    module = type(sys)("lab_beside")
    monkeypatch.setitem(sys.modules, "lab_beside", module)
    exec(CODE + f"\nfewlabels_api = {API_VERSION + 1}", module.__dict__)
    with pytest.raises(ComponentError, match="'it' of lab_beside is for version"):
        registry.get("it")


def test_a_module_that_hands_on_the_component_of_another_is_no_clash(registry, install):
    install("lab-core", {"lab_core": CODE})
    install("lab-split", {"lab_split": "from lab_core import It"}, it="lab_split:It")
    for _ in range(2):
        assert registry.get("it").__module__ == "lab_core"


def test_a_backbones_clash_is_not_solved_by_a_prefix(install):
    for name in ("lab-one", "lab-two"):
        module = name.replace("-", "_") + "_net"
        code = "def net(pretrained=False, **more): ..."
        install(name, {module: code}, kind="backbones", lab_net=f"{module}:net")
    with pytest.raises(RecipeError, match="offered by lab-... 0.3 and lab-... 0.3; uninstall one"):
        recipe_from({**DIGITS, "losses": "multi_similarity", "model": {"backbone": "lab_net"}})


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (Path, "Path"),
        (tuple[int, ...], "tuple"),
        (set[int], "set"),
        (np.ndarray, "ndarray"),
        (Callable[[int], int], "Callable"),
        ("Missing", "name 'Missing' is not defined; import what its options' types name outside"),
    ],
)
def test_an_option_that_no_recipe_can_hold_is_refused_in_words(registry, hint, told):
    def make(*, size=None):
        """One."""

    make.__annotations__ = {"size": hint}
    registry.register("it")(make)
    with pytest.raises(RecipeError, match=told):
        recipe_from({**DIGITS, "losses": "multi_similarity", "discovery": "it"})


def test_a_plugin_older_than_the_interface_is_the_one_to_upgrade(registry, install, monkeypatch):
    monkeypatch.setattr("fewlabels.registry.registry.API_VERSION", API_VERSION + 1)
    install("lab", {"lab_of_old": CODE}, it="lab_of_old:It")
    with pytest.raises(ComponentError, match="pip install --upgrade lab$"):
        registry.get("it")


def test_a_name_of_ours_is_not_taken_silently(registry):
    registry.register("confident")(type("Mine", (), {"__module__": "mine", "__init__": bare}))
    with pytest.raises(ComponentError, match=r"offered by fewlabels \S+ and mine; write 'fewl"):
        registry.get("confident")
    assert registry.get("mine:confident").__module__ == "mine"


def bare(self):
    """Takes no options."""


def test_every_registry_is_a_public_name():
    for plural, registry in REGISTRIES.items():
        public = getattr(fewlabels, plural)
        assert public.register == registry.register
        assert public.get == registry.get
        assert public.names == registry.names
