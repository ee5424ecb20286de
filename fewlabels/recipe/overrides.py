"""``key=value`` on the command line, laid upon a recipe's data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fewlabels.errors import RecipeError, shorten
from fewlabels.recipe.component_schema import Schema
from fewlabels.recipe.messages import LISTS, SLOTS, Mistakes, find_schema
from fewlabels.recipe.yaml_file import (
    DEEPEST,
    NAMING,
    KeyPath,
    Origins,
    drop_component_keys,
    parse_yaml,
)

COMMAND_LINE = "command line"
ONLY_FILES = "only a file can extend another"
_TYPES: dict[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
}


class Override(NamedTuple):
    """A value that was set.

    ``text`` is how it was written, None where it can be nothing but the value: null, or in quotes.
    ``mistake`` says why it is no YAML, where it is none; the value is then its text. ``dropped``
    are the options of a component whose place another one has taken.
    """

    value: Any
    text: str | None
    mistake: str | None = None
    dropped: Mapping[str, Any] = {}


Overrides = dict[KeyPath, Override]


def apply_overrides(data: dict[str, Any], origins: Origins, assignments: list[str]) -> Overrides:
    """Set ``a.b.0.c=value`` in place; the value is YAML, missing mappings are made.

    Names of components are set first, so the order of the assignments means nothing.

    Returns:
        What was set where, for :func:`take_texts`.

    Raises:
        RecipeError: all assignments that cannot be carried out.
    """
    mistakes = []
    overrides: Overrides = {}
    for assignment in sorted(assignments, key=_rank_assignment):
        key, equals, text = assignment.partition("=")
        parts = [part for part in re.split(r"[.\[\]]+", key.rstrip("]")) if part]
        if not equals or not parts:
            shown = shorten(repr(assignment))
            mistakes.append(f"{COMMAND_LINE}: {shown}: expected key=value, as in rounds.rounds=3")
            continue
        if parts[0] == "extends":
            mistakes.append(f"{COMMAND_LINE}: extends: {ONLY_FILES}; write it into a file")
            continue
        override = _parse_value(text)
        try:
            path, dropped = _set_value(data, _open_slot(data, parts), override.value)
        except (KeyError, IndexError, TypeError):
            place = f"{COMMAND_LINE}: {shorten(key)}"
            mistakes.append(f"{place}: there is no such place to set in this recipe")
            continue
        for known in (origins, overrides):
            for below in [each for each in known if each[: len(path)] == path]:
                del known[below]
        origins[path] = COMMAND_LINE
        overrides[path] = override._replace(dropped=dropped)
    if mistakes:
        raise RecipeError(mistakes)
    return overrides


def take_texts(check: Mistakes, data: dict[str, Any], overrides: Overrides, schema: Schema) -> None:
    """Where text is wanted, take it as it was written: a folder may be called ``2021 #2``.

    Args:
        check: notes what is no YAML, where no text is wanted.
        data: of the recipe, changed in place.
        schema: of the whole recipe.
    """
    for path, (value, text, mistake, _) in overrides.items():
        place = (path[0], 0, *path[1:]) if path[0] in check.single and len(path) > 1 else path
        wanted = find_schema(schema, place)
        kinds = wanted.get("anyOf", [wanted])
        fits = any(type(value) in _TYPES.get(kind.get("type", ""), ()) for kind in kinds)
        takes_text = any(
            kind.get("type") == "string" and not {"enum", "const"} & set(kind) for kind in kinds
        )
        if takes_text and text is not None and not fits:
            inner: Any = data
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = text
        elif mistake and not takes_text:
            check.add_mistake(path, mistake)


def _rank_assignment(assignment: str) -> tuple[bool, int]:
    key = assignment.partition("=")[0]
    return key.rpartition(".")[2] not in NAMING, key.count(".")


def _parse_value(text: str) -> Override:
    text = text.strip()
    if text == "":
        return Override(None, None)
    try:
        value, _ = parse_yaml(text, COMMAND_LINE)
    except RecipeError as error:
        mistake = error.mistakes[0].removeprefix(f"{COMMAND_LINE}:1: ")
        return Override(text, text, mistake)
    null = value is None and text.lower() in ("~", "null")
    quoted = isinstance(value, str) and text[0] in "'\"" and text[-1] == text[0]
    return Override(value, None if null or quoted else text)


def _open_slot(data: dict[str, Any], parts: list[str]) -> list[str]:
    """Write a slot's components as mappings, and as a list where a number asks for it.

    Returns:
        The parts, without the number where the slot has one component and no list.
    """
    slot, *rest = parts
    if slot not in SLOTS or not rest:
        return parts
    value = data.get(slot)
    if isinstance(value, str):
        value = {"name": value}
    elif isinstance(value, list):
        value = [{"name": each} if isinstance(each, str) else each for each in value]
    if slot in LISTS and re.fullmatch("[0-9]+", rest[0]):
        if value is None:
            value = []
        elif isinstance(value, dict) and rest.pop(0) != "0":
            raise IndexError(parts[1])
    data[slot] = value
    return [slot, *rest]


def _set_value(data: Any, parts: list[str], value: Any) -> tuple[KeyPath, dict[str, Any]]:
    """The path at which the value now stands, and the options of a component that is gone.

    In a list a part of the path is a number.
    """
    path: KeyPath = ()
    dropped: dict[str, Any] = {}
    if len(parts) > DEEPEST:
        raise KeyError(parts[DEEPEST])
    for part in parts:
        key = int(part) if isinstance(data, list) and re.fullmatch("[0-9]{1,9}", part) else part
        path = (*path, key)
        if len(path) == len(parts):
            break
        if isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        elif isinstance(data, list) and key == len(data):
            data.append({})
        data = data[key]
    if isinstance(data, list) and key == len(data):
        data.append(value)
    elif (
        isinstance(data, dict) and len(path) > 1 and key in NAMING and data.get(key, value) != value
    ):
        kept = drop_component_keys(data, key)
        dropped = {k: v for k, v in data.items() if k not in kept and k != key}
        data.clear()
        data.update({**kept, key: value})
    else:
        before = data.get(key) if isinstance(data, dict) else data[key]
        dropped = _find_lost_options(before, value)
        data[key] = value
    return path, dropped


def _find_lost_options(before: Any, value: Any) -> dict[str, Any]:
    """The options of a component, where ``value`` names another one that takes its place."""
    named = value if isinstance(value, dict) else {"name": value}
    name = named.get("name")
    if not isinstance(before, dict) or not isinstance(name, str) or before.get("name") == name:
        return {}
    return {k: v for k, v in before.items() if k != "name" and k not in named}
