"""The rules of the house: who may import whom, and what stands in one place alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fewlabels"
FLOORS = (  # a file imports from its own folder, and from those of floors before its own
    ("errors", "contracts"),
    ("files", "ops", "registry", "hub"),
    ("recipe", "data"),
    ("models",),
    ("evaluation",),
    ("components", "training", "search"),
    ("runs",),
    ("rehearsal",),
    ("cli", "testing"),
)
TOP = ("__init__", "__main__", "run")


def list_imports(file: Path, package: str = "fewlabels") -> list[str]:
    """Modules of this package that a file imports when it runs; those for type checkers alone not."""
    found: list[str] = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            found.extend(f"{package}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(file.read_text()))
    return [name for name in found if name.startswith(f"{package}.")]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_from_its_folder_and_from_floors_below(file):
    path = file.relative_to(PACKAGE).with_suffix("")
    own = path.parts[0]
    if own in TOP:
        return
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for module in list_imports(file):
        other = module.split(".")[1]
        assert other == own or floor[other] < floor[own], f"{path} imports {module}"


@pytest.mark.parametrize("file", sorted((PACKAGE / "components").rglob("*.py")), ids=str)
def test_kinds_of_components_do_not_import_each_other(file):
    kind = file.relative_to(PACKAGE / "components").parts[0]
    for module in list_imports(file):
        if module.startswith("fewlabels.components."):
            assert module.split(".")[2] == kind, module


@pytest.mark.parametrize(
    "module",
    ["fewlabels", "fewlabels.contracts", "fewlabels.registry", "fewlabels.recipe.recipe",
     "fewlabels.cli.main"],
)  # fmt: skip
def test_reading_a_recipe_does_not_wait_for_torch(module):
    code = f"import {module}, sys; print({{'torch', 'timm', 'datasets'}} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"


def test_configs_stop_at_the_door():
    readers = {"runs", "rehearsal", "cli", "testing", "recipe", "__init__"}
    for file in FILES:
        own = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if own not in readers:
            assert not [m for m in list_imports(file) if m.startswith("fewlabels.recipe")], file


def test_a_file_is_replaced_in_one_place_alone():
    assert [f.name for f in FILES if re.search(r"\bos\.(replace|rename)\b", f.read_text())] == [
        "files.py"
    ]


def test_images_are_opened_in_one_place_alone():
    assert [f.name for f in FILES if re.search(r"\bImage\.open\(", f.read_text())] == [
        "open_image.py"
    ]


def test_tensors_are_written_and_read_in_one_place_alone():
    used = re.compile(r"\b(save_file|load_file|safe_open)\b")
    assert [f.name for f in FILES if used.search(f.read_text())] == ["tensor_file.py"]


NAMES = {"best", "checkpoints", "initial", "labelled.csv", "ledger", "metrics.jsonl", "pictures"}
NAMES |= {"class_scores.csv", "left_out.csv", "model", "pretrain", "recipe.yaml"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_one_file_knows_what_is_called_how_in_a_run_folder(file):
    if file.name == "run_folder.py":
        return
    joined = [
        node.right.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
    ]
    assert not NAMES & set(joined)


OPTIONAL = {"padding", "exact", "matrix", "colour", "keeps_mean", "published", "forward_heads"}
OPTIONAL |= {
    "remark",
    "recentre",
    "state_dict",
    "load_state_dict",
    "weights",
    "terms",
    "supplies",
    "counts",
    "disjoint",
    "weighs_labels",
    "weigh",
}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_what_a_component_may_have_is_declared_with_the_contracts(file):
    if file.relative_to(PACKAGE).parts[0] in ("contracts", "registry", "testing"):
        return
    asked = [
        node.args[1].value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("hasattr", "getattr")
        and isinstance(node.args[1], ast.Constant)
    ]
    assert not OPTIONAL & set(asked)


def test_a_component_s_file_is_called_as_the_recipe_calls_it():
    lines = (PACKAGE.parent / "pyproject.toml").read_text().splitlines()
    offered = [re.match(r"(\w+) = \"fewlabels\.components\.\w+\.(\w+):", line) for line in lines]
    names = {found[1]: found[2] for found in offered if found}
    assert len(names) > 40
    apart = {"benchmarks", "convnets", "shakeshake26"}  # several of one kind in a file
    assert not [name for name, file in names.items() if file not in (name, *apart)]


def test_no_file_is_longer_than_300_lines():
    assert not [f.name for f in FILES if len(f.read_text().splitlines()) > 300]


def list_functions(file: Path):
    tree = ast.parse(file.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_every_function_fits_a_screen():
    long = [
        f"{file.relative_to(PACKAGE)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for file in FILES
        for node in list_functions(file)
        if node.end_lineno - node.lineno + 1 > 60
    ]
    assert not long


def test_a_constructor_takes_few_things():
    many = []
    for file in FILES:
        if file.relative_to(PACKAGE).parts[0] in ("components", "models"):
            continue
        for node in list_functions(file):
            taken = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
            if node.name == "__init__" and taken > 8:
                many.append(f"{file.relative_to(PACKAGE)}:{node.lineno} takes {taken}")
    assert not many


def test_the_tests_have_one_folder_a_folder_of_the_package():
    tests = Path(__file__).parent
    own = {p.relative_to(tests).as_posix() for p in tests.rglob("*") if p.is_dir()}
    own = {p for p in own if "__pycache__" not in p and p.split("/")[0] != "benchmarks"}
    theirs = {
        p.relative_to(PACKAGE).as_posix()
        for p in PACKAGE.rglob("*")
        if (p / "__init__.py").exists()
    }
    assert own <= theirs
    assert theirs - own <= {"components"}
