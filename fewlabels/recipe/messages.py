"""Collects the mistakes of a recipe as messages: file and line, key path, problem and fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, create_model

from fewlabels.errors import ComponentError, RecipeError, shorten, suggest_nearest
from fewlabels.recipe.component_schema import (
    Schema,
    Section,
    build_options_model,
    describe_schema,
    get_component_schema,
)
from fewlabels.recipe.sections import Data, Fixed, Place
from fewlabels.recipe.yaml_file import NAMING, KeyPath, Origins, format_key_path, show_value
from fewlabels.registry import REGISTRIES

SLOTS = {
    "strategy": "strategies",
    "pretrain": "strategies",
    "discovery": "discovery",
    "losses": "losses",
    "views": "views",
    "blocks": "blocks",
}
LISTS = ("discovery", "losses", "views", "blocks")
BESIDE: dict[str, type[Section]] = {"sources": Data, "blocks": Place}
"""Keys that are written in the same mapping as a component's own options, by registry."""
TOP_KEYS = (*Fixed.model_fields, "data", *SLOTS, "extends")
"""The top-level keys of a recipe file, in the order in which messages list them."""
MOST_TOLD = 50


class Mistakes:
    """The mistakes found so far in one recipe, and where each of its keys was written."""

    def __init__(self, data: dict[str, Any], origins: Origins, file: str) -> None:
        self.data, self.origins, self.file = data, origins, file
        self.schemas: dict[
            KeyPath, tuple[str, Schema]
        ] = {}  # of each component: "loss margin", its schema
        self.models: dict[tuple[str, str], type[BaseModel]] = {}  # by registry and name
        self.found: dict[KeyPath, str] = {}
        self.single = {slot for slot in LISTS if isinstance(data.get(slot), (dict, str))}

    def add_mistake(self, path: KeyPath, sentence: str | Callable[[], str]) -> None:
        """Record a mistake; of several at one key path only the first is kept.

        Args:
            sentence: or what makes it, which is asked for no more than will be told.
        """
        if len(path) > 1 and path[0] in self.single:
            path = (path[0], *path[2:])
        if len(self.found) >= MOST_TOLD:
            self.found.setdefault(path, "")
            return
        if callable(sentence):
            sentence = sentence()
        where = next(
            (self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins),
            self.file,
        )
        key = f"{format_key_path(path)}: " if path else ""
        self.found.setdefault(path, f"{where}: {key}{sentence}")

    def raise_if_any(self) -> None:
        """Raise if there are mistakes; only the first ``MOST_TOLD`` are listed.

        Raises:
            RecipeError: with the mistakes, and the number of those not listed.
        """
        told, more = list(self.found.values())[:MOST_TOLD], len(self.found) - MOST_TOLD
        if more > 0:
            told.append(f"{self.file}: and {more} more mistake{'s' if more > 1 else ''}")
        if told:
            raise RecipeError(told)

    def build_component_model(
        self, path: KeyPath, plural: str, value: Any, key: str = "name"
    ) -> type[BaseModel] | None:
        """The pydantic model for the component that ``value`` names; None after a mistake."""
        base = BESIDE.get(plural, Section)
        if not isinstance(value, dict):
            self.add_mistake(
                path,
                f"expected a mapping with {key!r}, got {show_value(value)} "
                f"(fewlabels list {plural})",
            )
            return None
        name = value.get(key)
        if not isinstance(name, str):
            known = ", ".join(REGISTRIES[plural].names())
            self.add_mistake(
                (*path, key),
                f"{'missing' if name is None else f'expected a name, got {show_value(name)}'}; "
                f"write one of {known} (fewlabels list {plural})",
            )
            return None
        try:
            schema = get_component_schema(plural, name)
        except ComponentError as error:
            self.add_mistake((*path, key), str(error))
            return None
        self.schemas[path] = (f"{REGISTRIES[plural].kind} {name}", schema)
        if (plural, name) not in self.models:
            model = build_options_model(schema, base)
            self.models[plural, name] = create_model(  # type: ignore[call-overload]
                "Component", __base__=model, **{key: (Literal[name], ...)}
            )
        return self.models[plural, name]

    def check_options(self, path: KeyPath, plural: str, name: str, given: dict[str, Any]) -> None:
        """Check a component's options given in a mapping of their own, and record mistakes."""
        schema = get_component_schema(plural, name)
        self.schemas[path] = (f"{REGISTRIES[plural].kind} {name}", schema)
        model = build_options_model(schema)
        try:
            model.model_validate_json(json.dumps(given))
        except ValidationError as error:
            self.add_errors(error, model, path)

    def add_errors(
        self, error: ValidationError, model: type[BaseModel], under: KeyPath = ()
    ) -> None:
        """Record pydantic's errors, one message per key; ``under``: key path of what it checked."""
        schema = model.model_json_schema()
        by_path: dict[KeyPath, list[Any]] = {}
        for item in error.errors():
            item["loc"] = (*under, *item["loc"])
            by_path.setdefault(self._strip_union_tags(item), []).append(item)
        above = {path[:n] for path in by_path for n in range(len(path))}

        def describe_items(path: KeyPath, items: list[Any]) -> str:
            if items[0]["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
                around = follow_references(schema, find_schema(schema, path[len(under) : -1]))
                return self._describe_unknown_key(path, around)
            return _describe_mismatch(items, find_schema(schema, path[len(under) :]))

        for path, items in by_path.items():
            if path not in above:  # that what stands inside is wrong says it of the whole
                self.add_mistake(path, partial(describe_items, path, items))

    def _strip_union_tags(self, item: Any) -> KeyPath:
        """The key path of an error, without the tags that pydantic adds for members of a union."""
        path: KeyPath = ()
        here: Any = self.data
        for i, step in enumerate(item["loc"]):
            last = i == len(item["loc"]) - 1
            if (isinstance(here, dict) and step in here) or (
                isinstance(here, list) and isinstance(step, int) and step < len(here)
            ):
                here = here[step]
                path = (*path, step)
            elif last and item["type"] == "missing":
                path = (*path, step)
        return path

    def _find_owner(self, path: KeyPath) -> KeyPath | None:
        """The key path of the component that contains ``path``; None if there is none."""
        starts = (path[:n] for n in range(len(path), 0, -1))
        return next((start for start in starts if start in self.schemas), None)

    def _describe_unknown_key(self, path: KeyPath, around: Schema) -> str:
        owner = self._find_owner(path)
        known = list(around.get("properties", {})) if len(path) > 1 else TOP_KEYS
        if owner == path[:-1] and owner != ("data",):  # not what says which component it is
            known = list(self.schemas[owner][1]["properties"])
        more = f"known: {', '.join(known)}"
        if owner and (owner == path[:-1] or not known):
            more = f"fewlabels show {self.schemas[owner][0]}"
        return f"unknown key{suggest_nearest(str(path[-1]), known)}  ({more})"


def find_schema(root: Schema, path: KeyPath) -> Schema:
    """The schema of the value at a path; empty if the schema says nothing about it."""
    here = root
    for step in path:
        here = follow_references(root, here)
        kind = "array" if isinstance(step, int) else "object"
        here = next((s for s in here.get("anyOf", ()) if s.get("type") == kind), here)
        if isinstance(step, int):
            known = dict(enumerate(here.get("prefixItems", ()))).get(step, here.get("items"))
        else:
            known = here.get("properties", {}).get(step, here.get("additionalProperties"))
        here = known if isinstance(known, dict) else {}
    return follow_references(root, here) if "$ref" in here else here


def follow_references(root: Schema, schema: Schema) -> Schema:
    """Resolve ``$ref``, also inside ``anyOf``, until the schema has no reference."""
    while references := [s["$ref"] for s in schema.get("anyOf", [schema]) if "$ref" in s]:
        schema = root["$defs"][references[0].rpartition("/")[2]]
    return schema


_BOUND = (
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
)


def _describe_mismatch(items: list[Any], schema: Schema) -> str:
    """The message for all errors at one key: what was expected, and the value given."""
    first = items[0]
    if first["type"] == "missing":
        return "missing; this key has no default"
    value = first["input"]
    shown = show_value(value)
    if first["type"] == "value_error":
        return f"{first['ctx']['error']}, got {shown}"
    reasons = {i["msg"].removeprefix("Input should be ") for i in items if i["type"] in _BOUND}
    if first["type"] in ("too_short", "too_long"):
        bound = first["ctx"].get("min_length", first["ctx"].get("max_length"))
        least = "least" if first["type"] == "too_short" else "most"
        reasons = {f"a list of at {least} {bound}"}
    elif first["type"] == "string_pattern_mismatch":
        reasons = {schema.get("description", f"text like {first['ctx']['pattern']}")}
    wanted = " and ".join(sorted(reasons)) or (describe_schema(schema) if schema else first["msg"])
    hint = ""
    if isinstance(value, str):
        choices = [each for one in schema.get("anyOf", [schema]) for each in one.get("enum", ())]
        hint = suggest_nearest(value, [each for each in choices if isinstance(each, str)])
        named = [key for key in NAMING if key in schema.get("properties", {})]
        if named and value.isprintable():
            hint = f"; write {{{named[0]}: {shorten(value)}}}"
    return f"expected {wanted}, got {shown}{hint}"
