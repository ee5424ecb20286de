"""What a plugin's author copies works: the package that is written, and the page about plugins."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fewlabels.cli.main import main
from fewlabels.contracts import Pool
from fewlabels.registry import discovery

ROOT = Path(__file__).parents[2]
FEWER = ["rounds.rounds=1", "rounds.steps_per_epoch=1"]


@pytest.fixture(autouse=True)
def fresh(built_in, monkeypatch):
    """Nothing that a test registers or imports stays."""
    monkeypatch.setattr(discovery, "_registered", dict(discovery._registered))
    yield
    for name in ("fewlabels_my_idea", "my_idea"):
        sys.modules.pop(name, None)


def run_tests(folder):
    """The last line of pytest's in a folder that is no part of this package."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_a_new_plugin_passes_its_tests_and_runs_its_recipe_at_once(tmp_path, monkeypatch, capsys):
    package = tmp_path / "package"
    assert main(["new", "discovery", "my-idea", "-o", str(package)]) == 0
    text = (package / "pyproject.toml").read_text()
    info = package / "src" / "fewlabels_my_idea-0.1.0.dist-info"  # as an installer writes it
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fewlabels-my-idea\nVersion: 0.1.0\n"
    )
    entries = re.search(r'\[project\.entry-points\."(.*)"\]\n(.*)\n', text)
    (info / "entry_points.txt").write_text(f"[{entries[1]}]\n{entries[2].replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(package / "src"))
    assert "passed" in run_tests(package)
    assert main(["list", "discovery"]) == 0
    assert re.search(r"my_idea +fewlabels-my-idea 0.1.0\n(?!    !)", capsys.readouterr().out)
    recipe = str(package / "recipe.yaml")
    assert main(["run", recipe, *FEWER, "--out", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize("name", ["none", "needs", "k-d-tree", "data-error"])
def test_a_name_that_python_or_the_template_uses_is_no_trap(name, tmp_path, monkeypatch):
    assert main(["new", "discovery", name, "-o", str(tmp_path / "new")]) == 0
    (module,) = (tmp_path / "new" / "src").glob("*.py")
    monkeypatch.syspath_prepend(str(module.parent))
    importlib.import_module(module.stem)
    make = discovery.get(name.replace("-", "_"))
    assert make.__name__.endswith("Discovery")
    found = make().discover(
        Pool(np.arange(2), np.eye(2), np.array([0, -1]), np.array([True, False])), 1, None
    )
    assert found.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["discovery", "My.Idea"], "'My.Idea' is no name; write small letters, digits and dashes"),
        (["discovery", "../x"], "'../x' is no name"),
        (["discovery", "confident"], "'confident' is offered by fewlabels"),
        (["loss", "my-idea"], "no package is written for loss yet (all: discovery)"),
        (["discovery", "mine", "-o", "full"], "full is there already; name another folder with -o"),
        (["discovery", "mine", "-o", "file"], "file is there already"),
        (["discovery", "mine", "-o", "file/x"], "file/x cannot be written"),
    ],
)
def test_nothing_is_overwritten_and_what_cannot_be_is_a_sentence(
    tmp_path, monkeypatch, words, sentence, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.py").touch()
    (tmp_path / "file").touch()
    assert main(["new", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*"))) == 3


def test_our_own_plugins_need_nothing_that_is_not_meant_for_plugins():
    page = (ROOT / "plugins" / "README.md").read_text()
    meant = {
        "fewlabels",
        *re.findall(r"`(fewlabels(?:\.\w+)+)`", page.partition("Meant for you")[2]),
    }
    files = [f for f in (ROOT / "plugins").rglob("*.py") if "tests" not in f.parts]
    assert len(files) >= 3
    for file in files:
        used = re.findall(r"^ *from (fewlabels(?:\.\w+)*) import (\w+)", file.read_text(), re.M)
        for module, name in used:
            assert {module, f"{module}.{name}"} & meant, (file, module, name)


def test_the_page_about_plugins_works_from_a_folder_that_is_no_package(tmp_path, monkeypatch):
    page = (ROOT / "plugins" / "README.md").read_text()
    code, test = re.findall(r"```python\n(.*?)```", page, re.S)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) == 20
    for name, text in [("my_idea.py", code), ("test_my_idea.py", test), ("recipe.yaml", recipe)]:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "recipe.yaml", "--import", "my_idea"]) == 0
    assert main(["run", "recipe.yaml", "--import", "my_idea", *FEWER]) == 0
    assert main(["run", "--resume", "runs/recipe", "--import", "my_idea"]) == 0
    assert (tmp_path / "runs/recipe/code/my_idea.py").read_text() == code
    assert "passed" in run_tests(tmp_path)
