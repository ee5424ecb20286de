"""Makes JSON schemas of components' signatures, and pydantic models of these schemas.

The schema of the built-in components is committed (``schema.json``), so that a recipe can be
checked without importing torch. A plugin's schema is made from its signature when needed. Both are
read by the same code.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from fewlabels.contracts import weighs_found, weighs_labels
from fewlabels.contracts.ramp import Ramp
from fewlabels.errors import ComponentError
from fewlabels.registry import REGISTRIES
from fewlabels.registry.signature import list_options

Schema = dict[str, Any]
SCHEMA_FILE = Path(__file__).with_name("schema.json")
_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
_LENGTHS = {"minItems": "min_length", "maxItems": "max_length"}
_NAMED_TYPES: dict[str, type] = {"Ramp": Ramp}


class Section(BaseModel):
    """A part of a recipe: unknown keys and near-enough types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def derive_component_schema(component: Callable[..., Any]) -> Schema:
    """The schema of the options that a recipe may set on ``component``, and facts about it.

    ``x-inputs``: the required inputs of a loss; ``x-supplies``: the inputs that a strategy gives to
    losses; ``x-terms``: the loss terms that a strategy or a block computes itself; ``x-task``: the
    task of a strategy; ``x-weighs-labels``: whether it counts labels by their weights, if it says;
    ``x-weigh``: a discovery weighs, whatever its options; ``x-source`` and ``x-recipe``: what its
    docstring says under these words.

    Raises:
        ComponentError: an option has a type that a recipe cannot hold.
    """
    what = f"{component.__module__}.{component.__qualname__}"
    try:
        hints = typing.get_type_hints(
            component.__init__ if inspect.isclass(component) else component, include_extras=True
        )
    except NameError as error:
        raise ComponentError(
            f"{what}: {error}; import what its options' types name outside of TYPE_CHECKING"
        ) from error
    fields: dict[str, Any] = {n: (hints[n], p.default) for n, p in list_options(component).items()}
    for name, (hint, _) in fields.items():
        if not _fits_yaml(hint):
            raise ComponentError(
                f"{what}: option {name!r} has a type that a recipe cannot hold, {hint}; use bool, "
                "int, float, str, Literal, Ramp, None, and list, dict[str, ...] or a tuple of these"
            )
    model: type[BaseModel] = create_model("Options", __base__=Section, **fields)
    schema = model.model_json_schema()
    doc = inspect.getdoc(component) or ""
    result: Schema = {
        "description": doc.split("\n\n")[0].replace("\n", " "),
        "properties": {n: _remove_titles(p) for n, p in schema.get("properties", {}).items()},
    }
    forward = getattr(component, "forward", None)
    if forward is not None and inspect.isclass(component):
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        result["x-inputs"] = [p.name for p in named if p.default is p.empty]
    for key in ("supplies", "terms"):
        if hasattr(component, key):
            result[f"x-{key}"] = list(getattr(component, key))
    if hasattr(component, "task"):
        result["x-task"] = component.task
    if (says := weighs_labels(component)) is not None:
        result["x-weighs-labels"] = says
    if weighs_found(component):
        result["x-weigh"] = True
    for word in ("Source", "Recipe"):
        if said := re.search(rf"^{word}: (.+?)(?=\n(?:Source: |Recipe: |\n)|\Z)", doc, re.M | re.S):
            result[f"x-{word.lower()}"] = " ".join(said[1].split()).strip("`")
    return result


def _fits_yaml(hint: Any) -> bool:
    """Whether values of a type can be written to YAML and read back as that type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fits_yaml(inner[0])
    if origin is Literal:
        return True
    if origin is dict:
        return inner[0] is str and _fits_yaml(inner[1])
    if origin in (list, tuple, typing.Union, types.UnionType):
        return all(map(_fits_yaml, inner))  # but not `...`: how long a tuple is must be known
    return hint in (bool, int, float, str, type(None), Any, list, dict, Ramp)


def _remove_titles(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            k: _remove_titles(v)
            for k, v in schema.items()
            if not (k == "title" and isinstance(v, str))
        }
    return [_remove_titles(item) for item in schema] if isinstance(schema, list) else schema


@functools.cache
def load_committed_schema() -> Schema:
    """The schema in the package; its ``$defs`` has one entry per built-in component."""
    result: Schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return result


def get_component_schema(plural: str, name: str) -> Schema:
    """The schema of one component: the committed one if built in, else from its signature.

    Raises:
        ComponentError: no component has that name, or its module cannot be imported.
    """
    registry = REGISTRIES[plural]
    offers = registry.list_offers().get(name, [])
    if [offer.distribution for offer in offers] == ["fewlabels"]:
        known = load_committed_schema()["$defs"].get(f"{plural}.{name}")
        if known is not None:
            return {**known, "properties": {k: known["properties"][k] for k in known["x-options"]}}
    return derive_component_schema(registry.get(name))


def build_annotation(schema: Schema) -> Any:
    """The Python type annotation for the schema of a property."""
    if "$ref" in schema:
        return _NAMED_TYPES[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return functools.reduce(lambda a, b: a | b, [build_annotation(s) for s in schema["anyOf"]])
    if "const" in schema:
        return Literal[schema["const"]]
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    kind = schema.get("type")
    limits = {_BOUNDS[k]: v for k, v in schema.items() if k in _BOUNDS}
    if kind == "array" and "prefixItems" in schema:
        return tuple[tuple(build_annotation(s) for s in schema["prefixItems"])]  # type: ignore[misc]
    if kind == "array":
        limits = {_LENGTHS[k]: v for k, v in schema.items() if k in _LENGTHS}
        plain: Any = list[build_annotation(schema.get("items", {}))]  # type: ignore[misc]
    elif kind == "object":
        values = schema.get("additionalProperties", True)
        plain = dict[str, build_annotation(values) if isinstance(values, dict) else Any]  # type: ignore[misc]
    else:
        plain = {"integer": int, "number": float, "string": str, "boolean": bool, "null": None}.get(
            kind or "", Any
        )
    return Annotated[plain, Field(**limits)] if limits else plain


def build_options_model(schema: Schema, base: type[BaseModel] = Section) -> type[BaseModel]:
    """A pydantic model of a component's options, in addition to the fields of ``base``."""
    fields: dict[str, Any] = {}
    for name, value in schema["properties"].items():
        default = value.get("default")
        if isinstance(default, list) and "prefixItems" in json.dumps(value):
            default = tuple(default)
        elif isinstance(default, dict) and "Ramp" in json.dumps(value):
            default = Ramp(**default)
        fields[name] = (build_annotation(value), default)
    return create_model("Component", __base__=base, **fields)


def describe_schema(schema: Schema) -> str:
    """The type of a property in words, for messages such as "expected a whole number"."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe_schema(s) for s in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(str(v) for v in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return f"a list of {len(schema['prefixItems'])} values"
    words = {"integer": "a whole number", "number": "a number", "string": "text", "null": "null"}
    words |= {"boolean": "true or false", "object": "a mapping", "array": "a list"}
    return words.get(schema.get("type", ""), "a mapping")
