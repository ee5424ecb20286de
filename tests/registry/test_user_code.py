"""Code beside a recipe: imported when the person names it, and never otherwise."""

import sys

import pytest
from small import DIGITS

import fewlabels
from fewlabels.cli.main import main
from fewlabels.errors import RecipeError
from fewlabels.recipe.recipe import load_recipe, recipe_from
from fewlabels.recipe.yaml_file import dump_yaml
from fewlabels.registry import discovery
from fewlabels.registry.user_code import import_modules

CODE = """
import numpy as np

from fewlabels import discovery
from fewlabels.contracts import Discovered, Needs


@discovery.register("thirds")
class Thirds:
    classes = 3

    def __init__(self, *, skip: int = 0) -> None:
        self.skip = skip

    def needs(self):
        return Needs("student")

    def discover(self, pool, budget, rng):
        free = np.flatnonzero(~pool.given)[self.skip :]
        return Discovered(free, free % 3, np.ones(len(free)), merge="replace")
"""
RECIPE = DIGITS | {
    "discovery": "thirds",
    "losses": "multi_similarity",
    "strategy": {"name": "metric", "batch": 20, "per_class": 5},
    "rounds": {"steps_per_epoch": 1},
    "evaluation": {"before": False},
}


@pytest.fixture(autouse=True)
def fresh(tmp_path, built_in, monkeypatch):
    """A current folder; and afterwards nothing that a test has imported or registered."""
    known = dict(sys.modules)
    monkeypatch.setattr(discovery, "_registered", dict(discovery._registered))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    for name in set(sys.modules) - set(known):
        if name.startswith(("my_", "lab_")):
            del sys.modules[name]


@pytest.fixture
def recipe(tmp_path):
    """A recipe in another folder than the current one, with its code beside it."""
    (tmp_path / "recipe.yaml").write_text(dump_yaml(RECIPE))
    (tmp_path / "my_module.py").write_text(CODE)
    return tmp_path / "recipe.yaml"


def forget(name="my_module"):
    del sys.modules[name]
    discovery._registered.pop("thirds", None)


def test_a_run_with_code_beside_its_recipe_can_be_run_again_and_resumed(recipe, tmp_path, capsys):
    assert main(["run", str(recipe), "--import", "my_module", "--out", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "recipe"
    again = load_recipe(folder / "recipe.yaml")
    assert again.imports == ["my_module"]
    assert again.hash == load_recipe(recipe).hash  # not of where the code came from
    recipe.with_name("my_module.py").unlink()  # the run folder has its own copy
    forget()
    capsys.readouterr()
    assert main(["run", "--resume", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"{folder}/recipe.yaml:3: imports: needs the code in my_module, and a recipe never runs "
        "code by itself; look at it, then add --import my_module\n"
    )
    assert main(["run", "--resume", str(folder), "--import", "my_module"]) == 0
    assert sys.modules["my_module"].__file__ == str(folder / "code" / "my_module.py")
    assert main(["run", str(folder / "recipe.yaml"), "--import", "my_module"]) == 0


def test_a_recipe_from_elsewhere_runs_no_code(recipe, tmp_path, capsys):
    recipe.write_text(dump_yaml({"imports": ["my_module"], **RECIPE}))
    (tmp_path / "my_module.py").write_text("raise RuntimeError('code was run')")
    for words in (["check", str(recipe)], ["run", str(recipe)], ["study", str(recipe)]):
        assert main(words) == 2
        assert "a recipe never runs code by itself" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="add --import my_module"):
        recipe_from({"imports": ["my_module"], **RECIPE})
    for wrong in ("my_module", [3], {"a": 1}):
        with pytest.raises(RecipeError, match="imports"):
            recipe_from({**RECIPE, "imports": wrong})
    assert "my_module" not in sys.modules


@pytest.mark.parametrize(
    "words", [["check", "RECIPE"], ["list"], ["show", "discovery", "thirds"], ["study", "RECIPE"]]
)
def test_commands_take_the_import(recipe, words, tmp_path, capsys):
    words = [str(recipe) if word == "RECIPE" else word for word in words]
    more = ["--seeds", "0", "--runs", str(tmp_path / "runs")] if words[0] == "study" else []
    (tmp_path / "here" / "my_module.py").write_text(CODE)
    assert main([*words, "--import", "my_module", *more]) == 0
    printed = capsys.readouterr().out
    assert {"check": "good", "list": "thirds ", "show": "skip", "study": "| recipe |"}[
        words[0]
    ] in printed


def test_a_package_is_copied_with_its_files_and_what_it_imports(tmp_path):
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("from my_package import thirds")
    (package / "thirds.py").write_text(CODE)
    (package / "weights.bin").write_text("small")
    (package / "photos.bin").write_bytes(bytes(2**20 + 1))
    (tmp_path / "r.yaml").write_text(dump_yaml(RECIPE))
    loaded = load_recipe(tmp_path / "r.yaml", imports=["my_package"])
    folder = fewlabels.train(loaded, out=tmp_path / "runs").folder
    copied = {p.name for p in (folder / "code" / "my_package").iterdir()}
    assert copied == {"__init__.py", "thirds.py", "weights.bin"}


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("my_gone", None, "--import my_gone: no my_gone.py in {folder} or ., and no such module"),
        ("my_module.py", CODE, "expected a module's name, as in my_module; write --import my_mod"),
        ("../my_module", CODE, "expected a module's name, as in my_module; write --import my_mod"),
        ("my_wrong", "def (", "--import my_wrong: it cannot be imported: SyntaxError: invalid syn"),
        ("my_wrong", "1 / 0", "ZeroDivisionError: division by zero ({folder}/my_wrong.py:1)"),
        ("my_wrong", "import sys; sys.exit(3)", "it cannot be imported: SystemExit: 3"),
        ("my_needs", "import my_wrong", "name it too, first: --import my_wrong --import my_needs"),
        ("random", "x = 1", "has the name of another module, "),
        ("sys", "x = 1", "has the name of another module, built in; rename it"),
        ("wave", "x = 1", "has the name of another module, "),  # that nobody has imported yet
    ],
)
def test_a_module_that_cannot_be_imported_is_a_sentence(tmp_path, name, code, sentence):
    folder = tmp_path / "there"
    folder.mkdir()
    if code is not None:
        (folder / f"{name.split('/')[-1].removesuffix('.py')}.py").write_text(code)
        (folder / "my_wrong.py").touch()
    with pytest.raises(RecipeError) as error:
        import_modules([name], folder)
    assert sentence.format(folder=folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert "my_wrong" not in sys.modules


def test_two_recipes_do_not_share_a_modules_name_by_chance(tmp_path):
    for name, code in [("a", CODE), ("b", CODE + "# other")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "my_module.py").write_text(code)
    import_modules(["my_module"], tmp_path / "a")
    import_modules(["my_module"], tmp_path / "a")
    with pytest.raises(RecipeError, match="has the name of another module, .*a/my_module.py"):
        import_modules(["my_module"], tmp_path / "b")


def test_packages_of_one_name_are_told_apart_by_all_that_they_hold(tmp_path):
    for name in "ab":
        (tmp_path / name / "my_package").mkdir(parents=True)
        (tmp_path / name / "my_package" / "__init__.py").touch()
        (tmp_path / name / "my_package" / "loss.py").write_text(f"name = '{name}'")
    import_modules(["my_package.loss"], tmp_path / "a")
    with pytest.raises(RecipeError, match="has the name of another module, .*a/my_package"):
        import_modules(["my_package.loss"], tmp_path / "b")
    with pytest.raises(RecipeError, match="a/my_package has no module los$"):
        import_modules(["my_package.los"], tmp_path / "a")


def test_code_beside_a_downloaded_recipe_does_not_stand_in_for_ones_own(recipe, tmp_path, capsys):
    (tmp_path / "here" / "my_module.py").write_text(CODE)
    recipe.with_name("my_module.py").write_text("raise RuntimeError('code was run')")
    assert main(["check", str(recipe), "--import", "my_module"]) == 2
    assert "here/my_module.py and " in capsys.readouterr().err
    assert "my_module" not in sys.modules


def test_a_study_does_not_take_the_results_of_other_code(recipe, tmp_path, capsys):
    words = ["study", str(recipe), "--import", "my_module", "--seeds", "0"]
    words += ["--runs", str(tmp_path / "runs")]
    assert main(words) == 0
    assert main(words) == 0
    recipe.with_name("my_module.py").write_text(CODE + "# better")
    forget()
    capsys.readouterr()
    assert main(words) == 2
    assert "is of other code: " in capsys.readouterr().err
