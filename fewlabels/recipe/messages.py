"""The mistakes of one recipe as sentences: file and line, key path, what is wrong, the fix."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, create_model

from fewlabels.errors import ComponentError, suggest_nearest
from fewlabels.recipe.component_schema import Schema, Section, describe, options_model, schema_of
from fewlabels.recipe.sections import Data, Fixed, Place
from fewlabels.recipe.yaml_file import KeyPath, Origins, key_path
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
"""Keys that stand beside a component's own options."""


class Mistakes:
    """One pass over one recipe's data: the mistakes so far, and where each key was written."""

    def __init__(self, data: dict[str, Any], origins: Origins, file: str) -> None:
        self.data, self.origins, self.file = data, origins, file
        self.schemas: dict[
            KeyPath, tuple[str, Schema]
        ] = {}  # of each component: "loss margin", its schema
        self.found: dict[KeyPath, str] = {}
        self.single = {slot for slot in LISTS if isinstance(data.get(slot), (dict, str))}

    def add(self, path: KeyPath, sentence: str) -> None:
        """Note a mistake; the first at a path stands."""
        if len(path) > 1 and path[0] in self.single:
            path = (path[0], *path[2:])
        where = next(
            (self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins),
            self.file,
        )
        self.found.setdefault(path, f"{where}: {key_path(path)}: {sentence}")

    def component(
        self, path: KeyPath, plural: str, value: Any, key: str = "name"
    ) -> type[BaseModel] | None:
        """The model of the component that ``value`` names, None where that is a mistake."""
        base = BESIDE.get(plural, Section)
        if not isinstance(value, dict):
            self.add(
                path, f"expected a mapping with {key!r}, got {value!r} (fewlabels list {plural})"
            )
            return None
        name = value.get(key)
        if not isinstance(name, str):
            known = ", ".join(REGISTRIES[plural].names())
            self.add(
                (*path, key),
                f"{'missing' if name is None else f'expected a name, got {name!r}'}; "
                f"write one of {known} (fewlabels list {plural})",
            )
            return None
        try:
            schema = schema_of(plural, name)
        except ComponentError as error:
            self.add((*path, key), str(error))
            return None
        self.schemas[path] = (f"{REGISTRIES[plural].kind} {name}", schema)
        model = options_model(schema, base)
        return create_model("Component", __base__=model, **{key: (Literal[name], ...)})  # type: ignore[call-overload]

    def options(self, path: KeyPath, plural: str, name: str, given: dict[str, Any]) -> None:
        """Note what is wrong with a component's options that stand in a mapping of their own."""
        schema = schema_of(plural, name)
        self.schemas[path] = (f"{REGISTRIES[plural].kind} {name}", schema)
        try:
            options_model(schema).model_validate_json(json.dumps(given))
        except ValidationError as error:
            self.say(error, path)

    def say(self, error: ValidationError, under: KeyPath = ()) -> None:
        """Pydantic's findings as sentences, one a key; ``under`` is where what it read stands."""
        by_path: dict[KeyPath, list[Any]] = {}
        for item in error.errors():
            item["loc"] = (*under, *item["loc"])
            by_path.setdefault(self._keys(item), []).append(item)
        for path, items in by_path.items():
            self.add(path, self._sentence(path, items))

    def _keys(self, item: Any) -> KeyPath:
        """An error's location without the tags that pydantic adds for the members of a union."""
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

    def _sentence(self, path: KeyPath, items: list[Any]) -> str:
        first = items[0]
        owner = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.schemas), None)
        if first["type"] == "extra_forbidden":
            known = self._known(path[:-1])
            more = (
                f"fewlabels show {self.schemas[owner][0]}"
                if owner
                else f"known: {', '.join(known)}"
            )
            return f"unknown key{suggest_nearest(str(path[-1]), known)}  ({more})"
        if first["type"] == "missing":
            return "missing; this key has no default"
        value = first["input"]
        shown = json.dumps(value) if not isinstance(value, str) else repr(value)
        schema = self._schema(path)
        reasons = {i["msg"].removeprefix("Input should be ") for i in items if i["type"] in _BOUND}
        if first["type"] in ("too_short", "too_long"):
            bound = first["ctx"].get("min_length", first["ctx"].get("max_length"))
            least = "least" if first["type"] == "too_short" else "most"
            reasons = {f"a list of at {least} {bound}"}
        elif first["type"] == "string_pattern_mismatch":
            reasons = {(schema or {}).get("description", f"text like {first['ctx']['pattern']}")}
        wanted = " and ".join(sorted(reasons)) or (describe(schema) if schema else first["msg"])
        hint = ""
        if isinstance(value, str) and schema and "enum" in json.dumps(schema):
            hint = suggest_nearest(value, [v for v in _enums(schema) if isinstance(v, str)])
        return f"expected {wanted}, got {shown}{hint}"

    def _known(self, path: KeyPath) -> list[str]:
        model: Any = _fixed_schema()
        names = [*model["properties"], "data", *SLOTS, "extends"]
        if path:
            schema = self._schema(path)
            names = list((schema or {}).get("properties", {}))
            if path in self.schemas:
                names = list(self.schemas[path][1]["properties"])
            if path == ("data",):
                names += [*Data.model_fields, "source"]
        return names

    def _schema(self, path: KeyPath) -> Schema | None:
        """The JSON schema of the value at a path."""
        root = _fixed_schema()
        for n in range(len(path), 0, -1):
            if path[:n] in self.schemas and n < len(path):
                known: Schema | None = self.schemas[path[:n]][1]["properties"].get(path[n])
                if known is not None:
                    return known
        here: Schema = {"properties": {**root["properties"], "data": {"$ref": "#/$defs/Data"}}}
        for step in path:
            while "$ref" in here or "anyOf" in here:
                options = [s for s in here.get("anyOf", [here]) if "$ref" in s]
                if not options:
                    break
                here = root["$defs"][options[0]["$ref"].rpartition("/")[2]]
            if isinstance(step, int):
                here = here.get("items", {})
            elif step in here.get("properties", {}):
                here = here["properties"][step]
            elif isinstance(here.get("additionalProperties"), dict):
                here = here["additionalProperties"]
            else:
                return None
        if "$ref" in here:
            here = root["$defs"][here["$ref"].rpartition("/")[2]]
        return here


_BOUND = (
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
)


def _enums(schema: Any) -> list[Any]:
    if isinstance(schema, dict):
        return [*schema.get("enum", []), *(v for s in schema.values() for v in _enums(s))]
    return [v for s in schema for v in _enums(s)] if isinstance(schema, list) else []


def _fixed_schema() -> Schema:
    return create_model("Fixed", __base__=Fixed, data=(Data, ...)).model_json_schema()
