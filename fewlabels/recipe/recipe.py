"""A recipe: YAML, ``extends`` and ``key=value`` overrides, checked before anything is built.

Imports no torch. Code that runs a recipe passes on plain typed values, not config objects.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import RecipeError, shorten
from fewlabels.recipe import yaml_file
from fewlabels.recipe.cross_checks import check_across, check_files
from fewlabels.recipe.later_options import drop_earlier_values, fill_earlier_values
from fewlabels.recipe.messages import LISTS, SLOTS, Mistakes
from fewlabels.recipe.null_keys import drop_null_keys
from fewlabels.recipe.overrides import ONLY_FILES, Overrides, apply_overrides, take_texts
from fewlabels.recipe.remarks import make_remarks
from fewlabels.recipe.sections import (
    Data,
    Evaluation,
    Fixed,
    Model,
    Optimizer,
    Rounds,
    Schedule,
    Train,
)
from fewlabels.recipe.unfit_values import find_unfit_values
from fewlabels.recipe.yaml_file import Origins, show_value
from fewlabels.registry import REGISTRIES, Registry
from fewlabels.registry.user_code import import_modules, is_module_name, list_not_imported

UNHASHED = ("name", "imports")
"""Keys of which a recipe's hash does not depend."""


@dataclass(frozen=True)
class Spec:
    """The name of a component, and the values of all its options, defaults included."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; ``resolved`` is the same as plain data with all defaults, to be written.

    ``remarks`` are sentences on what is no mistake, and may be another run than a person expects.
    """

    name: str
    seed: int
    imports: list[str]
    data: Data
    source: Spec
    model: Model
    strategy: Spec
    pretrain: Spec | None
    discovery: tuple[Spec, ...]
    losses: tuple[Spec, ...]
    views: tuple[Spec, ...]
    blocks: tuple[Spec, ...]
    weights: dict[str, Ramp | float]
    optimizer: Optimizer
    schedule: Schedule
    rounds: Rounds
    train: Train
    evaluation: Evaluation
    resolved: dict[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Twelve hex digits of the resolved recipe without its name, and where code came from.

        It is that of before where options that came later mean what was before.
        """
        plain = {k: v for k, v in copy.deepcopy(self.resolved).items() if k not in UNHASHED}
        drop_earlier_values(plain)
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def components(self) -> list[tuple[Registry, Spec]]:
        """All components that the recipe names, each with its registry."""
        backbone = Spec(self.model.backbone.split(".")[0], self.model.backbone_options)
        found = [(REGISTRIES["backbones"], backbone), (REGISTRIES["sources"], self.source)]
        for slot, plural in SLOTS.items():
            named = getattr(self, slot)
            each = named if isinstance(named, tuple) else [named] if named else []
            found += [(REGISTRIES[plural], spec) for spec in each]
        return found

    def to_yaml(self) -> str:
        """The resolved recipe as YAML.

        Raises:
            RecipeError: it is longer than what is read again.
        """
        text = yaml_file.dump_yaml(self.resolved)
        size, most = len(text.encode()), yaml_file.MOST_BYTES
        if size > most:
            said = f"{size:,} bytes with its defaults; at most {most:,} are read; shorten it"
            raise RecipeError([f"recipe: {said}"])
        return text


def load_recipe(
    path: str | Path,
    overrides: Iterable[str] = (),
    imports: Sequence[str] = (),
    *,
    ended: bool = False,
) -> Recipe:
    """Read and check the recipe in a YAML file.

    Args:
        path: the file; a path in ``extends`` is relative to it.
        overrides: ``key=value``, the key a dotted path as in ``losses.0.beta=40``.
        imports: modules that register components, found beside the file, in the current folder or
            installed; they are imported first, and recorded in the recipe.
        ended: the recipe is of a finished run, so the files that it names (initial weights) need
            not exist any more.

    Raises:
        RecipeError: with all mistakes, each a sentence with file, key path and fix.
    """
    path = Path(path)
    data, origins = yaml_file.read_recipe_file(path)
    import_modules(_make_list(imports), path.parent)
    given = apply_overrides(data, origins, _make_list(overrides))
    stem = re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".")[:100]
    data["name"] = data.get("name") or stem or "recipe"
    return _check_recipe(data, origins, given, str(path), imports, ended)


def recipe_from(
    data: dict[str, Any],
    overrides: Iterable[str] = (),
    imports: Sequence[str] = (),
    *,
    ended: bool = False,
) -> Recipe:
    """Check the recipe in a dict, as :func:`load_recipe` does for a file.

    Raises:
        RecipeError: as there; also if a value is not plain data, or ``extends`` is given.
    """
    origins = Origins()
    if not isinstance(data, dict):
        raise RecipeError([f"recipe: expected a mapping of keys, got {type(data).__name__}"])
    _refuse_unfit(Mistakes({}, origins, "recipe"), data)
    try:
        data = json.loads(json.dumps(data, default=_convert_path))
    except TypeError as error:
        raise RecipeError([f"recipe: {error}"]) from error
    if "extends" in data:
        raise RecipeError([f"recipe: extends: {ONLY_FILES}; use load_recipe"])
    import_modules(_make_list(imports))
    given = apply_overrides(data, origins, _make_list(overrides))
    data["name"] = data.get("name") or "recipe"
    return _check_recipe(data, origins, given, "recipe", imports, ended)


def _make_list(words: str | Iterable[str]) -> list[str]:
    """The words; a text alone is one, and not its letters."""
    return [words] if isinstance(words, str) else list(words)


def _convert_path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"{shorten(repr(value))} is of type {type(value).__name__}; a recipe holds text, numbers, "
        "lists and mappings"
    )


def _check_recipe(
    data: dict[str, Any],
    origins: Origins,
    overrides: Overrides,
    file: str,
    imports: Sequence[str],
    ended: bool = False,
) -> Recipe:
    data = {key: value for key, value in data.items() if value is not None}  # null: the default
    drop_null_keys(data)
    noted = data.get("imports", [])
    if isinstance(noted, list):
        data["imports"] = [*noted, *(name for name in _make_list(imports) if name not in noted)]
    check = Mistakes(data, origins, file)
    _check_imports(check, noted)
    for slot in LISTS:
        value = data.get(slot)
        data[slot] = [] if value is None else value if isinstance(value, list) else [value]
        data[slot] = [{"name": v} if isinstance(v, str) else v for v in data[slot]]
    for slot in ("strategy", "pretrain"):
        if isinstance(data.get(slot), str):
            data[slot] = {"name": data[slot]}
    data.setdefault("strategy", {"name": "metric"})
    data.setdefault("data", {})
    fill_earlier_values(data)
    _refuse_unfit(check, data)

    fields: dict[str, Any] = {}
    source = check.build_component_model(("data",), "sources", data["data"], key="source")
    fields["data"] = (source or Any, ...)
    strategy = check.build_component_model(("strategy",), "strategies", data["strategy"])
    fields["strategy"] = (strategy or Any, ...)
    if "pretrain" in data:
        pretrain = check.build_component_model(("pretrain",), "strategies", data["pretrain"])
        fields["pretrain"] = (pretrain or Any, ...)
    for slot in LISTS:
        models = [
            check.build_component_model((slot, i), slot, v) or Any for i, v in enumerate(data[slot])
        ]
        fields[slot] = (tuple[tuple(models)] if models else tuple[()], ())  # type: ignore[misc]
    whole = create_model("Recipe", __base__=Fixed, **fields)
    if overrides:
        take_texts(check, data, overrides, whole.model_json_schema())
    checked: Any = None
    try:
        checked = whole.model_validate_json(json.dumps(data))
    except ValidationError as error:
        check.add_errors(error, whole)
    check_across(check, data)
    if not ended:
        check_files(check, data)
    check.raise_if_any()
    remarks = tuple(make_remarks(check, data, overrides))
    recipe = replace(_build_recipe(checked), remarks=remarks)
    _refuse_unfit(check, recipe.resolved)  # with its defaults, as it is read again
    return recipe


def _check_imports(check: Mistakes, noted: Any) -> None:
    """Refuse names that would make a command of another meaning, and code not yet imported."""
    if not isinstance(noted, list):
        return
    for i, name in enumerate(noted):
        if not is_module_name(name):
            said = f"expected a module's name, as in my_module, got {show_value(name)}"
            check.add_mistake(("imports", i), said)
    check.raise_if_any()
    if asked := list_not_imported(noted):
        check.add_mistake(
            ("imports",),
            f"needs the code in {' and '.join(asked)}, and a recipe never runs code by itself; "
            f"look at it, then add {' '.join(f'--import {name}' for name in asked)}",
        )
        check.raise_if_any()  # what the code registers is not known yet


def _refuse_unfit(check: Mistakes, data: dict[str, Any]) -> None:
    for path, sentence in find_unfit_values(data):
        check.add_mistake(path, sentence)
    check.raise_if_any()


def _build_recipe(checked: Any) -> Recipe:
    def read_spec(
        value: Any, key: str = "name", fixed: Callable[[str], bool] = lambda k: False
    ) -> Spec:
        names = [k for k in type(value).model_fields if k != key and not fixed(k)]
        return Spec(getattr(value, key), {k: getattr(value, k) for k in names})

    parts: dict[str, Any] = {k: getattr(checked, k) for k in Fixed.model_fields}
    parts |= {slot: tuple(read_spec(v) for v in getattr(checked, slot)) for slot in LISTS}
    return Recipe(
        **parts,
        data=Data(**{k: getattr(checked.data, k) for k in Data.model_fields}),
        source=read_spec(checked.data, "source", lambda k: k in Data.model_fields),
        strategy=read_spec(checked.strategy),
        pretrain=read_spec(checked.pretrain) if hasattr(checked, "pretrain") else None,
        resolved=_order_keys(checked.model_dump(mode="json")),
    )


def _order_keys(value: Any) -> Any:
    """Move ``name`` or ``source`` to the front of each mapping, as people write them."""
    if isinstance(value, dict):
        first = [k for k in ("name", "source") if k in value]
        return {k: _order_keys(value[k]) for k in [*first, *(k for k in value if k not in first)]}
    return [_order_keys(v) for v in value] if isinstance(value, list) else value
