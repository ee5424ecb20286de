"""Reads a recipe's YAML as plain data, and records in which file and line each key was written.

``extends`` and ``key=value`` overrides are merged here, without knowledge of what the keys mean.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from fewlabels.errors import FewLabelsError, RecipeError, shorten
from fewlabels.files import read_bounded

NAMING = ("name", "source", "backbone")
"""Keys that name a component; its options are in the same mapping."""

MOST_BYTES, MOST_VALUES, DEEPEST = 1_000_000, 10_000, 32
"""Of one file; what a person writes has a hundredth of the values. Text counts at each alias."""
TOO_DEEP = f"nested deeper than {DEEPEST} levels; a recipe needs fewer"
TOO_MANY_VALUES = f"more than {MOST_VALUES:,} values; a recipe needs fewer"
TOO_MANY_LETTERS = f"more than {MOST_BYTES:,} letters; a recipe needs fewer"
MERGE, NO_MERGE = "<<", "merge keys are not read; use extends"

LARGEST_NUMBER = 2**63 - 1
TOO_LARGE = f"expected a number of at most {LARGEST_NUMBER:,}"

KEPT = (
    "labels",
    "share",
    "split_seed",
    "validation",
    "max_bad",
    "drop_duplicates",
    "cached_views",
    "memory",
    "workers",
)
"""What is said of any data, and holds for another source too; parts of a split do not."""

KeyPath = tuple[str | int, ...]
Origins = dict[KeyPath, str]  # key path -> "file:line" or "command line"


class _Loader(yaml.SafeLoader):
    """One YAML document on its way to plain data that a recipe can hold.

    The scalars are YAML 1.2's: 1e-3 is a number; on, off, yes and no are words; no dates.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.name = source  # of the marks
        self.mistakes: list[str] = []
        self.origins: Origins = {}
        self.composed = self.built = self.letters = self.depth = 0
        self.outer: list[yaml.Node] = []  # those in which the present one stands

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML does, which would follow any depth and number."""
        self.composed += parent is None or index is not None  # no keys
        self.depth += 1
        _refuse_excess(self.depth, self.composed, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def build_value(self, node: yaml.Node, path: KeyPath) -> Any:
        """A node as plain data; each alias is built anew, and so counted."""
        line = _format_mark(node.start_mark)
        self.origins.setdefault(path, line)
        self.built += 1
        self.letters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        _refuse_excess(len(self.outer) + 1, self.built, node.start_mark, self.letters)
        if not re.fullmatch(rf"tag:yaml\.org,2002:({_TAGS[type(node)]})", node.tag):
            return self._refuse_value(node, path, f"YAML tags such as {node.tag} are not read")
        if isinstance(node, yaml.ScalarNode):
            try:
                return self.construct_object(node)
            except (ValueError, KeyError, IndexError):  # a tag that the person wrote
                wanted = _WORDS[node.tag.rpartition(":")[2]]
                why = f"expected {wanted}, got {show_value(node.value)}"
                if re.fullmatch("[-+]?[0-9]+", node.value):  # Python reads only 4,300 digits
                    why = TOO_LARGE
                return self._refuse_value(node, path, why)
        if any(node is outer for outer in self.outer):
            return self._refuse_value(node, path, "an anchor contains itself; write the value out")
        self.outer.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build_value(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._build_mapping(node, path)
        finally:
            self.outer.pop()

    def _build_mapping(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse_value(key_node, path, "a key is text, and no list or mapping")
                continue
            key = str(key_node.value)
            self.letters += len(key)
            if key == MERGE:
                self._refuse_value(key_node, (*path, key), NO_MERGE)
            elif key in result:
                first = self.origins[(*path, key)].rpartition(":")[2]
                why = f"duplicate key, first on line {first}; keep one"
                self._refuse_value(key_node, (*path, key), why)
            else:
                self.origins[(*path, key)] = _format_mark(key_node.start_mark)
                result[key] = self.build_value(value_node, (*path, key))
        return result

    def _refuse_value(self, node: yaml.Node, path: KeyPath, why: str) -> None:
        where = f"{format_key_path(path)}: " if path else ""
        self.mistakes.append(f"{_format_mark(node.start_mark)}: {where}{why}")


_TAGS: dict[type[yaml.Node], str] = {
    yaml.MappingNode: "map",
    yaml.SequenceNode: "seq",
    yaml.ScalarNode: "str|int|float|bool|null",
}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def _format_mark(mark: yaml.Mark) -> str:
    return f"{mark.name}:{mark.line + 1}"


def _refuse_excess(depth: int, values: int, mark: yaml.Mark, letters: int = 0) -> None:
    """Stop before what a recipe does not need takes all time or memory."""
    for count, most, said in (
        (depth, DEEPEST, TOO_DEEP),
        (values, MOST_VALUES, TOO_MANY_VALUES),
        (letters, MOST_BYTES, TOO_MANY_LETTERS),
    ):
        if count > most:
            raise RecipeError([f"{_format_mark(mark)}: {said}"])


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
    """Quotes text that :class:`_Loader` would otherwise read back as another type."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Text, in double quotes where it has letters that PyYAML reads as ends of a line."""
        style = '"' if _LINE_ENDS & set(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_LINE_ENDS = {"\r", "\x85", "\u2028", "\u2029"}
_Dumper.add_representer(str, _Dumper.represent_text)


def dump_yaml(data: Any) -> str:
    """Write plain data as YAML, which :func:`parse_yaml` reads back unchanged."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def format_key_path(path: KeyPath) -> str:
    """Write a key path as text: ``("losses", 0, "beta")`` becomes ``losses[0].beta``."""
    text = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in path)
    return shorten(text.removeprefix("."))


def show_value(value: Any) -> str:
    """Plain data as a sentence shows them: text is quoted, and what is long is shortened."""
    return shorten(repr(value) if isinstance(value, str) else json.dumps(value))


def format_inline(value: Any) -> str:
    """Plain data in one line of YAML, as a command line sets it."""
    line = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return line.removesuffix("\n").removesuffix("\n...")


def parse_yaml(text: str, source: str) -> tuple[Any, Origins]:
    """One YAML document and the line of each key path.

    Raises:
        RecipeError: not YAML, a duplicate key, a ``<<`` merge, or more than a recipe can hold; all
            mistakes of one text are reported together.
    """
    try:
        loader = _Loader(text, source)
        try:
            node = loader.get_single_node()
            data = {} if node is None else loader.build_value(node, ())
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            [f"{source}:{line}: YAML forbids the character U+{error.character:04X}; remove it"]
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = _format_mark(mark) if mark else source
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError([f"{where}: not readable as YAML: {problem}"]) from error
    if loader.mistakes:
        raise RecipeError(loader.mistakes)
    return data, loader.origins


def read_recipe_file(
    path: Path, asked_by: str = "", seen: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], Origins]:
    """Read a recipe file, merged over the one in its ``extends``, whose path is relative to it."""
    said = f"{asked_by}: extends: " if asked_by else ""
    data, origins = parse_yaml(_read_text(path, said, seen), str(path))
    if not isinstance(data, dict):
        raise RecipeError([f"{path}: a recipe is a mapping of keys, not a {type(data).__name__}"])
    parent = data.pop("extends", None)
    if parent is None:
        return data, origins
    where = origins[("extends",)]
    if not isinstance(parent, str):
        wanted = f"{where}: extends: expected the path of a recipe"
        raise RecipeError([f"{wanted}, got {show_value(parent)}"])
    base, base_origins = read_recipe_file(path.parent / parent, where, (*seen, path.resolve()))
    merged = {**base, **{k: merge_values(base[k], v) if k in base else v for k, v in data.items()}}
    return merged, base_origins | origins


def _read_text(path: Path, said: str, seen: tuple[Path, ...]) -> str:
    try:
        if path.resolve() in seen:
            raise RecipeError([f"{said}{path} extends itself; remove one extends"])
        if len(seen) > DEEPEST:
            raise RecipeError([f"{said}{path}: more than {DEEPEST} files extend one another"])
        return read_bounded(path, MOST_BYTES).decode()
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else getattr(error, "strerror", None) or str(error)
        sentence = f"{said}{shorten(str(path))}: {reason}; give the path of a recipe (.yaml)"
        raise RecipeError([sentence]) from error
    except RecipeError:
        raise
    except FewLabelsError as error:
        raise RecipeError([f"{said}{error}"]) from error


def merge_values(base: Any, over: Any) -> Any:
    """Merge two values of one key: mappings key by key; any other value of ``over`` replaces.

    If ``over`` names another component, the options in ``base`` are dropped, since they belong to
    the old one. Keys that do not depend on the data source, or on the backbone, are kept.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    for naming in NAMING:
        if naming in over and naming in base and over[naming] != base[naming]:
            return {**drop_component_keys(base, naming), **over}
    return {**base, **{k: merge_values(base[k], v) if k in base else v for k, v in over.items()}}


def drop_component_keys(mapping: dict[str, Any], naming: str) -> dict[str, Any]:
    """What still has a meaning once a mapping names another component."""
    if naming == "backbone":
        return {k: v for k, v in mapping.items() if k not in ("backbone_options", "weights")}
    return {key: mapping[key] for key in KEPT if key in mapping} if naming == "source" else {}
