"""Code of one's own, imported because the person names it: ``--import my_module``.

A recipe says which modules it needs (``imports: [my_module]``), so that it can be run again; but
it never imports one by itself, since a recipe may come from elsewhere, and code beside it too.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import shutil
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewlabels.errors import RecipeError

_FILES: dict[str, Path] = {}  # modules that were found beside a recipe or in the current folder


def import_modules(names: Sequence[str], beside: Path | None = None) -> None:
    """Import modules, so that what they register is there.

    One is ``my_module.py`` or a folder ``my_module`` with an ``__init__.py``, beside the recipe or
    in the current folder, or else an installed module. One that is imported already stays.

    Args:
        beside: the recipe's folder.

    Raises:
        RecipeError: no such module, one that fails, or a name that another module has.
    """
    for name in names:
        said = f"--import {name}"
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            hint = f"; write --import {Path(name).stem}" if Path(name).stem.isidentifier() else ""
            raise RecipeError([f"{said}: expected a module's name, as in my_module{hint}"])
        top = name.partition(".")[0]
        file = _find(top, beside)
        if file is not None:
            _check_free(top, file, said)
        try:
            if file is not None and top not in sys.modules:
                _load(top, file)
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # it may fail in any way
            if isinstance(error, ModuleNotFoundError) and error.name in (top, name):
                places = dict.fromkeys(str(p) for p in (beside, Path()) if p is not None)
                raise RecipeError(
                    [f"{said}: no {top}.py in {' or '.join(places)}, and no such module installed"]
                ) from error
            sentence = f"{said}: it cannot be imported: {type(error).__name__}: {error}"
            if isinstance(error, ModuleNotFoundError) and _find(str(error.name), beside):
                sentence += f"; name it too, first: --import {error.name} {said}"
            raise RecipeError([sentence + _where(error)]) from error


def add_import(parser: argparse.ArgumentParser) -> None:
    """The option of a command that names such modules."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="code of yours that registers components; may be repeated",
    )


def missing(names: Iterable[str]) -> list[str]:
    """Those of a recipe's modules that nobody has imported."""
    return [name for name in names if name not in sys.modules]


def copy_modules(names: Sequence[str], folder: Path) -> None:
    """Copy the code that :func:`import_modules` found in a folder, so that it stands with a run."""
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        file = _FILES.get(name)
        if file is None or file.is_relative_to(folder.resolve()):
            continue
        package = file.parent if file.name == "__init__.py" else None
        for source in [file] if package is None else package.rglob("*.py"):
            target = folder / source.relative_to(file.parent if package is None else package.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _find(name: str, beside: Path | None) -> Path | None:
    """The file of a top-level module, beside the recipe or in the current folder."""
    for place in (beside, Path()):
        if place is not None:
            for file in (place / f"{name}.py", place / name / "__init__.py"):
                if file.is_file():
                    return file.resolve()
    return None


def _check_free(name: str, file: Path, said: str) -> None:
    """Refuse a file that has the name of another module: one of the two would be lost."""
    if name in sys.modules:
        other = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None or (spec.origin and Path(spec.origin).parent == Path.cwd()):
            return  # free, or found by `python -m`, for which the current folder is installed
        other = spec.origin
    if other and Path(other).is_file() and Path(other).read_bytes() == file.read_bytes():
        return
    raise RecipeError(
        [f"{said}: {file} has the name of another module, {other or 'built in'}; rename it"]
    )


def _load(name: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _FILES[name] = file


def _where(error: BaseException) -> str:
    """The line of the person's module in which it failed, where the error does not say it."""
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) or places[-1][0].startswith("<frozen"):
        return ""
    return f" ({places[-1][0]}:{places[-1][1]})"
