"""Code of one's own, imported because the person names it: ``--import my_module``.

A recipe says which modules it needs (``imports: [my_module]``), so that it can be run again; but
it never imports one by itself, since a recipe may come from elsewhere, and code beside it too.
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
"""The folder of a run that keeps a copy of the code that it was made with."""
LARGEST = 2**20
"""Bytes of a package's file that is copied; what is larger is data."""


def import_modules(names: Sequence[str], beside: Path | None = None) -> None:
    """Import modules, so that what they register is there.

    One is ``my_module.py`` or a folder ``my_module`` with an ``__init__.py``: in the current
    folder, beside the recipe or in the ``code`` of a run folder, or else an installed module. One
    that is imported already stays.

    Args:
        beside: the recipe's folder.

    Raises:
        RecipeError: no such module, one that fails, several that differ, or a name that another
            module has.
    """
    for name in names:
        said = f"--import {name}"
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
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


def list_not_imported(names: Iterable[str]) -> list[str]:
    """Those of a recipe's modules that nobody has imported."""
    return [name for name in names if name not in sys.modules]


def copy_modules(names: Sequence[str], folder: Path) -> None:
    """Copy the code that :func:`import_modules` found into ``code`` of a run folder."""
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        file = _FILES.get(name)
        for path, content in (_read_files(file) if file else {}).items():
            target = folder / KEPT / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def find_changed_files(names: Sequence[str], folder: Path) -> list[Path]:
    """Files of a run folder's ``code`` that are no longer those which are imported now."""
    found = []
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        file = _FILES.get(name)
        for path, content in (_read_files(file) if file else {}).items():
            kept = folder / KEPT / path
            if not kept.is_file() or kept.read_bytes() != content:
                found.append(kept)
    return found


def _find_files(name: str, beside: Path | None) -> list[Path]:
    """The files that a top-level module can be, of which the first is taken if all are alike."""
    places = [Path()] if beside is None else [Path(), beside, beside / KEPT]
    files = (p / end for p in places for end in (f"{name}.py", f"{name}/__init__.py"))
    return list(dict.fromkeys(file.resolve() for file in files if file.is_file()))


def _read_files(file: Path) -> dict[str, bytes]:
    """What a module's files hold, by their paths; of a package, all but caches and large data."""
    if file.name != "__init__.py":
        return {file.name: file.read_bytes()}
    return {
        each.relative_to(file.parent.parent).as_posix(): each.read_bytes()
        for each in sorted(file.parent.rglob("*"))
        if each.is_file() and "__pycache__" not in each.parts and each.stat().st_size <= LARGEST
    }


def _check_free(name: str, file: Path, said: str) -> None:
    """Refuse a file that has the name of another module: one of the two would be lost."""
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
    """Where a module, or a part of a package, was looked for."""
    if files:
        return f"{files[0].parent} has no module {name.partition('.')[2]}"
    places = dict.fromkeys(str(p) for p in (beside, Path()) if p is not None)
    return f"no {name.partition('.')[0]}.py in {' or '.join(places)}, and no such module installed"


def _locate_error(error: BaseException, files: Sequence[Path]) -> str:
    """The last line of the person's own module that was run, where the error does not say it."""
    homes = {file.parent if file.name == "__init__.py" else file for file in files}
    own = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if homes & {Path(frame.filename), *Path(frame.filename).parents}
    ]
    return f" ({own[-1]})" if own and not isinstance(error, SyntaxError) else ""
