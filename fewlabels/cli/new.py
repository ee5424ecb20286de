"""``fewlabels new``: writes a working plugin package for the user to change."""

from __future__ import annotations

import argparse
import keyword
import re
from importlib.metadata import version
from pathlib import Path
from string import Template
from typing import Any

from fewlabels.contracts import API_VERSION
from fewlabels.errors import FewLabelsError
from fewlabels.registry import REGISTRIES, find_registry

TEMPLATES = Path(__file__).parent
KINDS = ("discovery",)
USED = {"Discovered", "Needs", "Pool", "DataError", "KDTree"}  # by the template


def add_commands(commands: Any) -> None:
    """Declare ``new``."""
    command = commands.add_parser("new", help="write a plugin package that works, to be changed")
    command.add_argument("kind", help="discovery")
    command.add_argument("name", help="as in my-idea")
    command.add_argument("-o", "--out", help="a folder to make; fewlabels-NAME if left out")
    command.set_defaults(run_command=run_new)


def run_new(given: argparse.Namespace) -> None:
    """``fewlabels new``."""
    new_plugin(given.kind, given.name, given.out)


def new_plugin(kind: str, name: str, out: str | None) -> None:
    """Write a package with one component, its tests and a recipe; nothing is overwritten.

    Args:
        name: as in my-idea; a recipe then says my_idea, and the distribution is fewlabels-my-idea.
        out: the folder to make; None: one with the distribution's name.

    Raises:
        FewLabelsError: there is no template for the kind, the name is not valid or is taken, or the
            folder is not empty.
    """
    plural = find_registry(kind).plural
    if plural not in KINDS:
        raise FewLabelsError(f"new: no package is written for {kind} yet (all: {', '.join(KINDS)})")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name):
        raise FewLabelsError(
            f"new: {name!r} is no name; write small letters, digits and dashes, as in my-idea"
        )
    words = re.split("[-_]", name)
    component, distribution = "_".join(words), f"fewlabels-{'-'.join(words)}"
    module = f"fewlabels_{component}"
    if known := REGISTRIES[plural].list_offers().get(component):
        raise FewLabelsError(
            f"new: {component!r} is offered by {known[0]} already; choose another name"
        )
    folder = Path(out or distribution)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FewLabelsError(f"new: {folder} is there already; name another folder with -o")
    named = "".join(word.capitalize() for word in words)
    values = {
        "name": component,
        "distribution": distribution,
        "module": module,
        "class": named + "Discovery" * (named in USED or keyword.iskeyword(named)),
        "version": version("fewlabels"),
        "api": str(API_VERSION),
    }
    files = {
        "pyproject.toml.txt": "pyproject.toml",
        "README.md": "README.md",
        "recipe.yaml": "recipe.yaml",
        "module.py.txt": f"src/{module}.py",
        "test.py.txt": f"tests/test_{component}.py",
    }
    try:
        for template, path in files.items():
            text = (TEMPLATES / f"new_{plural}" / template).read_text(encoding="utf-8")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(Template(text).substitute(values), encoding="utf-8")
    except OSError as error:
        raise FewLabelsError(f"new: {folder} cannot be written: {error}") from error
    print(f"{folder}: pip install -e '{folder}[test]', pytest {folder}, then change {module}.py")
