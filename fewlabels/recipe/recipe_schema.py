"""The JSON schema of a recipe: for editors, and to check built-in components without imports."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, create_model

from fewlabels.recipe.component_schema import Schema, Section, derive_component_schema
from fewlabels.recipe.messages import BESIDE, LISTS, SLOTS
from fewlabels.recipe.null_keys import FREE_KEYS
from fewlabels.recipe.sections import Data, Fixed
from fewlabels.registry import REGISTRIES

NULL: Schema = {"type": "null"}


def build_recipe_schema() -> Schema:
    """Make the schema of recipes from the signatures of all built-in components; imports them."""
    model: type[BaseModel] = create_model("Recipe", __base__=Fixed, data=(Data, ...))
    fixed = model.model_json_schema()
    definitions: Schema = fixed.pop("$defs")
    del definitions["Data"]  # each source has its keys beside its own
    references: dict[str, list[Any]] = {}
    for plural in dict.fromkeys(("sources", *SLOTS.values(), "backbones")):
        registry = REGISTRIES[plural]
        for name, offers in registry.list_offers().items():
            if [offer.distribution for offer in offers] != ["fewlabels"]:
                continue
            schema = derive_component_schema(registry.get(name))
            key = "source" if plural == "sources" else "name"
            beside = BESIDE.get(plural, Section).model_json_schema()
            definitions[f"{plural}.{name}"] = {
                "type": "object",
                "description": schema["description"],
                "properties": {
                    key: {"const": name},
                    **schema["properties"],
                    **beside.get("properties", {}),
                },
                "required": [key, *beside.get("required", [])],
                "additionalProperties": False,
                **{k: v for k, v in schema.items() if k.startswith("x-")},
                "x-options": list(schema["properties"]),
            }
            references.setdefault(plural, []).append({"$ref": f"#/$defs/{plural}.{name}"})
    properties = {**fixed["properties"], "extends": {"type": "string"}}
    properties["data"] = {"anyOf": references["sources"]}
    for slot, plural in SLOTS.items():
        one: list[Any] = [*references[plural], {"type": "string"}]
        many = {"type": "array", "items": {"anyOf": one}}
        properties[slot] = {"anyOf": [*one, many, NULL] if slot in LISTS else [*one, NULL]}
    for *outer, key in FREE_KEYS:
        holder = definitions[outer[0].capitalize()]["properties"] if outer else properties
        free = holder[key]
        free["additionalProperties"] = {"anyOf": [free["additionalProperties"], NULL]}
    properties["weights"] = {"anyOf": [properties["weights"], NULL]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fewlabels recipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def format_recipe_schema() -> str:
    """The text of the schema, as in the committed file."""
    return json.dumps(build_recipe_schema(), indent=1, ensure_ascii=False) + "\n"
