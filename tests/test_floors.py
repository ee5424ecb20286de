"""The import rule of the house: a file imports only from floors below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fewlabels"
FLOORS = {
    # within a floor, tenths order files of which one builds on the other
    "errors": 0, "paths": 0, "signature": 0.05, "registry": 0.1, "contracts": 0, "seeds": 0, "timm_names": 0, "imports": 0.1, "yaml_file": 0.1,
    "ramps": 1, "geometry": 1, "clustering": 1, "writing": 1, "schema": 1.1, "sections": 1.2, "mistakes": 1.3, "checks": 1.35,
    "recipe": 1.4, "json_schema": 1.4, "plugins": 1.5,
    "backbones": 2, "blocks": 2, "losses": 2, "discovery": 2, "data": 2,
    "models": 3, "evaluation": 3, "strategies": 4,
    "metrics": 5, "checkpoint": 5, "scoring": 5, "ledger": 5, "diagnostics": 5, "plan": 5, "state": 5, "batches": 5.1, "training": 5.2, "discoveries": 5.1, "rounds": 5.5, "pretrain": 5.6, "building": 5.5, "index": 5.6, "processes": 5, "embeddings": 5,
    "report": 5.8, "hub": 6, "assembly": 6, "training_data": 5.5, "run": 7, "study": 7, "embed": 7, "evaluate": 7, "demo": 7, "commands": 8, "cli": 9, "testing": 7.5,
}  # fmt: skip


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports(file: Path) -> list[str]:
    """Modules of this package that a file imports when it runs; those for type checkers alone not."""
    found: list[str] = []

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "fewlabels":
            found.extend(f"fewlabels.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(ast.parse(file.read_text()))
    return [name for name in found if name.startswith("fewlabels.")]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_a_file_imports_only_from_floors_below(file):
    path = file.relative_to(PACKAGE.parent).with_suffix("")
    own = path.parts[1]
    if own == "__init__":
        return
    for module in imports(file):
        other = part_of(module)
        same_folder = other == own
        assert same_folder or FLOORS[other] < FLOORS[own], f"{path} imports {module}"


@pytest.mark.parametrize("module", ["fewlabels", "fewlabels.recipe", "fewlabels.cli"])
def test_reading_a_recipe_does_not_wait_for_torch(module):
    code = f"import {module}, sys; print({{'torch', 'timm', 'datasets'}} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "set()"
