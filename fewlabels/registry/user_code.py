"""Imports the user's own modules when the user names them: ``--import my_module``.

A recipe lists the modules that it needs (``imports: [my_module]``), so that it can be run again.
It never imports them by itself, since a recipe and the code beside it may come from somebody else.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewlabels.errors import RecipeError

_FILES: dict[str, Path] = {}  # modules that were found in a folder, by their names
KEPT = "code"
"""The subfolder of a run folder with a copy of the user code that the run used."""
LARGEST = 2**20
"""Size in bytes up to which files of a package are copied; larger ones are taken to be data."""


def import_modules(names: Sequence[str], beside: Path | None = None) -> None:
    """Import modules, so that the components that they register are known.

    A module is a file ``my_module.py`` or a folder ``my_module`` with an ``__init__.py``, searched
    for in the current folder, beside the recipe and in the ``code`` of a run folder; else it must
    be installed. A module that is already imported is not imported again.

    Args:
        beside: the recipe's folder.

    Raises:
        RecipeError: a module is not found, fails, is found twice with different content, or has
            the name of another module.
    """
    for name in names:
        said = f"--import {name}"
        if name.endswith(".py") or not is_module_name(name):
            hint = f"; write --import {Path(name).stem}" if Path(name).stem.isidentifier() else ""
            raise RecipeError([f"{said}: expected a module's name, as in my_module{hint}"])
        top = name.partition(".")[0]
        files = _find_files(top, beside)
        for file in files:
            _check_free(top, file, said)
            if _read_files(file) != _read_files(files[0]):
                raise RecipeError(
                    [f"{said}: {files[0]} and {file} differ; remove or rename the one not meant"]
                )
        try:
            if files and top not in sys.modules:
                _load_module(top, files[0])
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # it may fail in any way
            if isinstance(error, ModuleNotFoundError) and error.name in (top, name):
                raise RecipeError([f"{said}: {_describe_search(name, files, beside)}"]) from error
            sentence = f"{said}: it cannot be imported: {type(error).__name__}: {error}"
            if isinstance(error, ModuleNotFoundError) and _find_files(str(error.name), beside):
                sentence += f"; name it too, first: --import {error.name} {said}"
            raise RecipeError([sentence + _locate_error(error, files)]) from error


def is_module_name(name: object) -> bool:
    """Whether a name is one of a module, as in ``package.my_module``."""
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def list_not_imported(names: Iterable[str]) -> list[str]:
    """The names of those modules that are not imported yet."""
    return [name for name in names if name not in sys.modules]


def copy_modules(names: Sequence[str], folder: Path) -> None:
    """Copy the modules that :func:`import_modules` found to ``code`` in a run folder."""
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        file = _FILES.get(name)
        for path, content in (_read_files(file) if file else {}).items():
            target = folder / KEPT / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def find_changed_files(names: Sequence[str], folder: Path) -> list[Path]:
    """The files in a run folder's ``code`` that are missing or differ from the imported ones."""
    found = []
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        file = _FILES.get(name)
        for path, content in (_read_files(file) if file else {}).items():
            kept = folder / KEPT / path
            if not kept.is_file() or kept.read_bytes() != content:
                found.append(kept)
    return found


def _find_files(name: str, beside: Path | None) -> list[Path]:
    """All files found for a top-level module; if they are equal, the first is imported."""
    places = [Path()] if beside is None else [Path(), beside, beside / KEPT]
    files = (p / end for p in places for end in (f"{name}.py", f"{name}/__init__.py"))
    return list(dict.fromkeys(file.resolve() for file in files if file.is_file()))


def _read_files(file: Path) -> dict[str, bytes]:
    """The bytes of a module's files by path; of a package, all but caches and large data."""
    if file.name != "__init__.py":
        return {file.name: file.read_bytes()}
    return {
        each.relative_to(file.parent.parent).as_posix(): each.read_bytes()
        for each in sorted(file.parent.rglob("*"))
        if each.is_file() and "__pycache__" not in each.parts and each.stat().st_size <= LARGEST
    }


def _check_free(name: str, file: Path, said: str) -> None:
    """Raise a RecipeError if another module has this name: one would hide the other."""
    if name in sys.modules:
        other = getattr(sys.modules[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        if spec is None or (spec.origin and Path(spec.origin).parent == Path.cwd()):
            return  # free, or found by `python -m`, for which the current folder is installed
        other = spec.origin
    if other and Path(other).is_file() and _read_files(Path(other)) == _read_files(file):
        return
    raise RecipeError(
        [f"{said}: {file} has the name of another module, {other or 'built in'}; rename it"]
    )


def _load_module(name: str, file: Path) -> None:
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


def _describe_search(name: str, files: Sequence[Path], beside: Path | None) -> str:
    """The message for a module that was not found: where it was looked for."""
    if files:
        return f"{files[0].parent} has no module {name.partition('.')[2]}"
    places = dict.fromkeys(str(p) for p in (beside, Path()) if p is not None)
    return f"no {name.partition('.')[0]}.py in {' or '.join(places)}, and no such module installed"


def _locate_error(error: BaseException, files: Sequence[Path]) -> str:
    """The last line of the user's module that ran, as text; empty if the error says it itself."""
    homes = {file.parent if file.name == "__init__.py" else file for file in files}
    own = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if homes & {Path(frame.filename), *Path(frame.filename).parents}
    ]
    return f" ({own[-1]})" if own and not isinstance(error, SyntaxError) else ""
