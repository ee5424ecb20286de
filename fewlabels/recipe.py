"""A recipe: YAML, ``extends`` and ``key=value`` overrides, checked whole before anything is built.

Imports no torch. Behind this file no function takes a config object: it takes plain typed values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError, create_model

from fewlabels import yaml_file
from fewlabels.errors import RecipeError, nearest, some
from fewlabels.mistakes import LISTS, Mistakes
from fewlabels.paths import locate, looked_for
from fewlabels.ramps import Ramp
from fewlabels.registry import backbones
from fewlabels.sections import (
    Data,
    Evaluation,
    Fixed,
    Model,
    Optimizer,
    Rounds,
    Schedule,
    Subset,
    Train,
)
from fewlabels.timm_names import timm_names, timm_optimizers
from fewlabels.yaml_file import Origins


@dataclass(frozen=True)
class Spec:
    """A component by name, with every option set."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; ``resolved`` is the same as plain data, ready to be written and re-run."""

    name: str
    seed: int
    data: Data
    source: Spec
    model: Model
    strategy: Spec
    discovery: tuple[Spec, ...]
    losses: tuple[Spec, ...]
    views: tuple[Spec, ...]
    weights: dict[str, Ramp]
    optimizer: Optimizer
    schedule: Schedule
    rounds: Rounds
    train: Train
    evaluation: Evaluation
    resolved: dict[str, Any]

    @property
    def hash(self) -> str:
        """Twelve hex digits of the resolved recipe without its name."""
        plain = {k: v for k, v in self.resolved.items() if k != "name"}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The resolved recipe as YAML."""
        return yaml_file.dump(self.resolved)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The checked recipe in a YAML file.

    Args:
        path: the file; ``extends`` in it is relative to it.
        overrides: ``key=value``, the key a dotted path as in ``losses.0.beta=40``.

    Raises:
        RecipeError: with every mistake, each a sentence with file, key path and fix.
    """
    path = Path(path)
    data, origins = yaml_file.read(path)
    yaml_file.override(data, origins, list(overrides))
    data.setdefault("name", re.sub(r"[^\w.-]+", "-", path.stem))
    return _check(data, origins, str(path))


def recipe_from(data: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """The checked recipe in a mapping, as :func:`load_recipe` does for a file.

    Raises:
        RecipeError: as there; also a value that YAML could not hold, and ``extends``.
    """
    try:
        data, origins = json.loads(json.dumps(data, default=_path)), Origins()
    except TypeError as error:
        raise RecipeError([f"recipe: {error}"]) from error
    if "extends" in data:
        raise RecipeError(["recipe: extends: only a file can extend another; use load_recipe"])
    yaml_file.override(data, origins, list(overrides))
    data.setdefault("name", "recipe")
    return _check(data, origins, "recipe")


def _path(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(
        f"{value!r} is of type {type(value).__name__}; a recipe holds text, numbers, lists and "
        "mappings"
    )


def _check(data: dict[str, Any], origins: Origins, file: str) -> Recipe:
    check = Mistakes(data, origins, file)
    for slot in LISTS:
        value = data.get(slot)
        data[slot] = [] if value is None else value if isinstance(value, list) else [value]
        data[slot] = [{"name": v} if isinstance(v, str) else v for v in data[slot]]
    if isinstance(data.get("strategy"), str):
        data["strategy"] = {"name": data["strategy"]}
    data.setdefault("strategy", {"name": "metric"})
    data.setdefault("data", {})

    fields: dict[str, Any] = {}
    source = check.component(("data",), "sources", data["data"], key="source")
    fields["data"] = (source or Any, ...)
    strategy = check.component(("strategy",), "strategies", data["strategy"])
    fields["strategy"] = (strategy or Any, ...)
    for slot in LISTS:
        models = [check.component((slot, i), slot, v) or Any for i, v in enumerate(data[slot])]
        fields[slot] = (tuple[tuple(models)] if models else tuple[()], ())  # type: ignore[misc]
    whole = create_model("Recipe", __base__=Fixed, **fields)
    checked: Any = None
    try:
        checked = whole.model_validate_json(json.dumps(data))
    except ValidationError as error:
        check.say(error)
    for test in (
        _check_backbone,
        _check_files,
        _check_split,
        _check_strategy,
        _check_discovery,
        _check_losses,
        _check_weights,
        _check_optimizer,
    ):
        test(check, data)
    if check.found:
        raise RecipeError(check.found.values())
    return _recipe(checked)


def _recipe(checked: Any) -> Recipe:
    def spec(value: Any, key: str = "name", fixed: Callable[[str], bool] = lambda k: False) -> Spec:
        names = [k for k in type(value).model_fields if k != key and not fixed(k)]
        return Spec(getattr(value, key), {k: getattr(value, k) for k in names})

    weights = {k: v if isinstance(v, Ramp) else Ramp(end=v) for k, v in checked.weights.items()}
    parts: dict[str, Any] = {k: getattr(checked, k) for k in Fixed.model_fields if k != "weights"}
    parts |= {slot: tuple(spec(v) for v in getattr(checked, slot)) for slot in LISTS}
    return Recipe(
        **parts,
        weights=weights,
        data=Data(**{k: getattr(checked.data, k) for k in Data.model_fields}),
        source=spec(checked.data, "source", lambda k: k in Data.model_fields),
        strategy=spec(checked.strategy),
        resolved=_order(checked.model_dump(mode="json")),
    )


def _order(value: Any) -> Any:
    """Component mappings with the name first, as people write them."""
    if isinstance(value, dict):
        first = [k for k in ("name", "source") if k in value]
        return {k: _order(value[k]) for k in [*first, *(k for k in value if k not in first)]}
    return [_order(v) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------- checks across keys


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _check_backbone(check: Mistakes, data: dict[str, Any]) -> None:
    name = _section(data, "model").get("backbone")
    if not isinstance(name, str):
        return
    known = timm_names() | set(backbones.names())
    if name.split(".")[0].removeprefix("hf-hub:") not in known and not name.startswith("hf-hub:"):
        check.add(
            ("model", "backbone"),
            f"neither timm nor a plugin has a backbone called {name!r}"
            f"{nearest(name, known)}  (fewlabels list backbones)",
        )


def _check_files(check: Mistakes, data: dict[str, Any]) -> None:
    weights = _section(data, "model").get("weights")
    if isinstance(weights, str) and locate(weights) is None:
        check.add(("model", "weights"), f"no such file; looked for {looked_for(weights)}")


def _check_split(check: Mistakes, data: dict[str, Any]) -> None:
    section = _section(data, "data")
    if section.get("split") != "zero_shot":
        return
    try:
        train, test = (Subset(**_section(section, k)).numbers() for k in ("train", "test"))
    except ValidationError:
        return
    shared = sorted((train or set()) & (test or set()))
    if shared:
        check.add(
            ("data", "test", "classes"),
            f"classes {some(shared, 5)} are in train too, which a "
            "zero_shot split forbids; separate them or set split: all",
        )


def _check_strategy(check: Mistakes, data: dict[str, Any]) -> None:
    options = _section(data, "strategy")
    known = check.schemas.get(("strategy",), ("", {}))[1].get("properties", {})
    batch, per_class = (
        options.get(key, known.get(key, {}).get("default")) for key in ("batch", "per_class")
    )
    if type(batch) is int and type(per_class) is int and per_class > 0 and batch % per_class:
        check.add(
            ("strategy", "batch"), f"{batch} is no multiple of per_class, {per_class}; change one"
        )


def _check_discovery(check: Mistakes, data: dict[str, Any]) -> None:
    names = [v.get("name") for v in data["discovery"] if isinstance(v, dict)]
    for i, name in enumerate(names):
        if isinstance(name, str) and name in names[:i]:
            check.add(("discovery", i, "name"), f"{name!r} is listed twice; keep one")


def _check_optimizer(check: Mistakes, data: dict[str, Any]) -> None:
    name, known = _section(data, "optimizer").get("name"), timm_optimizers()
    if isinstance(name, str) and name.lower().removeprefix("lookahead_") not in known:
        check.add(
            ("optimizer", "name"), f"timm has no optimiser called {name!r}{nearest(name, known)}"
        )
    schedule = _section(data, "schedule")
    kind, decay = schedule.get("name"), schedule.get("decay_epochs", 30)
    if kind == "multistep" and not isinstance(decay, list):
        check.add(
            ("schedule", "decay_epochs"), f"multistep takes the list of epochs, got {decay!r}"
        )
    elif kind == "step" and isinstance(decay, list):
        check.add(
            ("schedule", "decay_epochs"), f"step takes one number, got {decay}; or use multistep"
        )


def _check_losses(check: Mistakes, data: dict[str, Any]) -> None:
    supplies = check.schemas.get(("strategy",), ("", {}))[1].get("x-supplies")
    if not data["losses"] and not check.schemas.get(("strategy",), ("", {}))[1].get("x-terms"):
        check.add(("losses",), "at least one is needed; add 'losses: multi_similarity'")
    names: list[Any] = []
    for i, loss in enumerate(data["losses"]):
        what, schema = check.schemas.get(("losses", i), ("", {}))
        if not schema:
            continue
        if loss["name"] in names:
            check.add(("losses", i, "name"), f"{loss['name']!r} is listed twice; keep one")
        names.append(loss["name"])
        if supplies is not None and (
            missing := [n for n in schema["x-inputs"] if n not in supplies]
        ):
            check.add(
                ("losses", i),
                f"{what} needs {', '.join(missing)}, which strategy "
                f"{data['strategy']['name']} does not give (it gives {', '.join(supplies)})",
            )
        elif "centres" in schema["x-inputs"] and not data["discovery"]:
            check.add(
                ("losses", i),
                f"{what} needs centres, and no discovery gives them; "
                "add 'discovery: {name: kmeans}'",
            )


def _check_weights(check: Mistakes, data: dict[str, Any]) -> None:
    terms = check.schemas.get(("strategy",), ("", {}))[1].get("x-terms", [])
    names = [v.get("name") for v in data["losses"] if isinstance(v, dict)]
    known = [*terms, *(name for name in names if isinstance(name, str))]
    for name in _section(data, "weights"):
        if name not in known:
            check.add(
                ("weights", name),
                f"no loss of this recipe is called so{nearest(name, known)} "
                f"(all: {', '.join(known)})",
            )
