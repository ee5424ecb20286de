"""A recipe's YAML as plain data that remembers where each key was written.

``extends`` and ``key=value`` overrides are merged here; what a key means is not known here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fewlabels.errors import RecipeError

NAMING = ("name", "source", "backbone")
"""Keys that name a component, whose options stand beside them."""

KeyPath = tuple[str | int, ...]
Origins = dict[KeyPath, str]  # key path -> "file:line" or "command line"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: 1e-3 is a number; on, off, yes and no are words; no dates."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _tag, _pattern, _first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)",
        "-+.0123456789",
    ),
]:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def _construct_whole_number(loader: yaml.SafeLoader, node: Any) -> int:
    return int(loader.construct_scalar(node))  # 012 is twelve, not octal


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_whole_number)


class _Dumper(yaml.SafeDumper):
    """Quotes what :class:`_Loader` would not read back as text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """Plain data as YAML that :func:`parse_yaml` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def format_key_path(path: KeyPath) -> str:
    """``("losses", 0, "beta")`` as ``losses[0].beta``."""
    text = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)
    return text.removeprefix(".")


def parse_yaml(text: str, source: str) -> tuple[Any, Origins]:
    """One YAML document and the line of each key path.

    Raises:
        RecipeError: not YAML, a duplicate key, a ``<<`` merge; all duplicates are reported.
    """
    loader = _Loader(text)
    mistakes: list[str] = []
    origins: Origins = {}

    def build_value(node: yaml.Node, path: KeyPath) -> Any:
        line = f"{source}:{node.start_mark.line + 1}"
        origins.setdefault(path, line)
        if not re.fullmatch(r"tag:yaml\.org,2002:(map|seq|str|int|float|bool|null)", node.tag):
            mistakes.append(
                f"{line}: {format_key_path(path)}: YAML tags such as {node.tag} are not read"
            )
            return None
        if isinstance(node, yaml.SequenceNode):
            return [build_value(item, (*path, i)) for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            where = f"{source}:{key_node.start_mark.line + 1}"
            said = f"{where}: {format_key_path((*path, key))}"
            if key == "<<":
                mistakes.append(f"{said}: merge keys are not read; use extends")
                continue
            if key in result:
                first = origins[(*path, key)].rpartition(":")[2]
                mistakes.append(f"{said}: duplicate key, first on line {first}; keep one")
                continue
            origins[(*path, key)] = where
            result[key] = build_value(value_node, (*path, key))
        return result

    try:
        node = loader.get_single_node()
        data = {} if node is None else build_value(node, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError([f"{source}{line}: not readable as YAML: {problem}"]) from error
    except RecursionError as error:
        raise RecipeError([f"{source}: an anchor contains itself; write the value out"]) from error
    finally:
        loader.dispose()
    if mistakes:
        raise RecipeError(mistakes)
    return data, origins


def read_recipe_file(
    path: Path, asked_by: str = "", seen: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], Origins]:
    """A recipe file merged over the file that it ``extends``, which is named relative to it."""
    said = f"{asked_by}: extends: " if asked_by else ""
    if path.resolve() in seen:
        raise RecipeError([f"{said}{path} extends itself; remove one extends"])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise RecipeError([f"{said}{path}: {reason}; give the path of a recipe (.yaml)"]) from error
    data, origins = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise RecipeError([f"{path}: a recipe is a mapping of keys, not a {type(data).__name__}"])
    parent = data.pop("extends", None)
    if parent is None:
        return data, origins
    where = origins[("extends",)]
    if not isinstance(parent, str):
        raise RecipeError([f"{where}: extends: expected the path of a recipe, got {parent!r}"])
    base, base_origins = read_recipe_file(path.parent / parent, where, (*seen, path.resolve()))
    merged = {**base, **{k: merge_values(base[k], v) if k in base else v for k, v in data.items()}}
    return merged, base_origins | origins


def merge_values(base: Any, over: Any) -> Any:
    """``over`` laid upon ``base``, the values of one key: mappings key by key, all else replaced.

    A mapping that names another component replaces the whole mapping, since options of one
    component mean nothing to another; only what says nothing of a data source, or of a backbone,
    stays.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    for naming in NAMING:
        if naming in over and naming in base and over[naming] != base[naming]:
            return {**_drop_component_keys(base, naming), **over}
    return {**base, **{k: merge_values(base[k], v) if k in base else v for k, v in over.items()}}


def _drop_component_keys(mapping: dict[str, Any], naming: str) -> dict[str, Any]:
    """What still has a meaning once a mapping names another component."""
    if naming == "backbone":
        return {k: v for k, v in mapping.items() if k not in ("backbone_options", "weights")}
    kept = ("labels", "memory", "workers") if naming == "source" else ()
    return {key: mapping[key] for key in kept if key in mapping}


def apply_overrides(data: dict[str, Any], origins: Origins, assignments: list[str]) -> None:
    """Set ``a.b.0.c=value`` in place; the value is YAML, missing mappings are made.

    Names of components are set first, so the order of the assignments means nothing.

    Raises:
        RecipeError: all assignments that cannot be carried out.
    """
    mistakes = []
    for assignment in sorted(assignments, key=_rank_assignment):
        key, equals, text = assignment.partition("=")
        path: KeyPath = tuple(
            int(k) if k.isdigit() else k for k in re.split(r"[.\[\]]+", key.rstrip("]")) if k
        )
        if not equals or not path:
            mistakes.append(
                f"command line: {assignment!r}: expected key=value, as in rounds.rounds=3"
            )
            continue
        try:
            value, _ = parse_yaml(text, "command line")
            if text.strip() == "":
                value = None
            _set_value(data, path, value)
        except RecipeError as error:
            mistakes.extend(f"command line: {key}: {m}" for m in error.mistakes)
        except (KeyError, IndexError, TypeError):
            mistakes.append(f"command line: {key}: there is no such place to set in this recipe")
        else:
            for known in [p for p in origins if p[: len(path)] == path]:
                del origins[known]
            origins[path] = "command line"
    if mistakes:
        raise RecipeError(mistakes)


def _rank_assignment(assignment: str) -> tuple[bool, int]:
    key = assignment.partition("=")[0]
    return key.rpartition(".")[2] not in NAMING, key.count(".")


def _set_value(data: Any, path: KeyPath, value: Any) -> None:
    for key in path[:-1]:
        if isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        data = data[key]
    if isinstance(data, list) and path[-1] == len(data):
        data.append(value)
    elif (
        isinstance(data, dict)
        and len(path) > 1
        and path[-1] in NAMING
        and path[-1] in data
        and data[path[-1]] != value
    ):
        kept = _drop_component_keys(data, path[-1])
        data.clear()
        data.update({**kept, path[-1]: value})
    else:
        data[path[-1]] = value
