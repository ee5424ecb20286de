"""Checks of a recipe that need several keys at once, or depend on what is installed."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import ValidationError

from fewlabels.errors import ComponentError, first_few, shorten, suggest_nearest
from fewlabels.files import NO_FILE, find_path, looked_for
from fewlabels.recipe.messages import Mistakes
from fewlabels.recipe.sections import Rounds, Schedule, Subset
from fewlabels.recipe.timm_names import list_timm_models, list_timm_optimizers
from fewlabels.recipe.yaml_file import format_inline, show_value
from fewlabels.registry import backbones


def check_across(check: Mistakes, data: dict[str, Any]) -> None:
    """Record every mistake; ``data`` is not validated, so any value may have any type."""
    for test in (
        _check_backbone,
        _check_frozen,
        _check_split,
        _check_strategy,
        _check_tasks,
        _check_discovery,
        _check_label_weights,
        _check_losses,
        _check_weights,
        _check_validation,
        _check_optimizer,
        _check_final_epochs,
    ):
        test(check, data)


def _get_section(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _check_backbone(check: Mistakes, data: dict[str, Any]) -> None:
    name = _get_section(data, "model").get("backbone")
    if not isinstance(name, str):
        return
    known = list_timm_models() | set(backbones.names())
    if name.split(".")[0].removeprefix("hf-hub:") not in known and not name.startswith("hf-hub:"):
        check.add_mistake(
            ("model", "backbone"),
            f"neither timm nor a plugin has a backbone called {show_value(name)}"
            f"{suggest_nearest(name, known)}  (fewlabels list backbones)",
        )
    options = _get_section(data, "model").get("backbone_options") or {}
    if name in backbones.names() and isinstance(options, dict):
        try:
            check.check_options(("model", "backbone_options"), "backbones", name, options)
        except ComponentError as error:
            check.add_mistake(("model", "backbone"), str(error))


def _check_frozen(check: Mistakes, data: dict[str, Any]) -> None:
    """What stands in a frozen backbone, or is made by training it, would not be trained."""
    model = _get_section(data, "model")
    options = _get_section(model, "backbone_options")
    if (model.get("frozen") is True or model.get("head")) and options.get("heads", 1) != 1:
        check.add_mistake(
            ("model", "backbone_options", "heads"),
            "model.head and model.frozen have one last layer; set heads: 1",
        )
    if model.get("mirror") is True and model.get("frozen") is not True and not model.get("head"):
        check.add_mistake(
            ("model", "mirror"), "only a model with a head has it; set model.head: linear"
        )
    if model.get("frozen") is not True:
        return
    if data["blocks"]:
        check.add_mistake(
            ("blocks",),
            "blocks stand in the backbone, which model.frozen does not train; set 'blocks=[]'",
        )
    if data.get("pretrain"):
        check.add_mistake(
            ("pretrain",),
            "it trains the backbone, which model.frozen forbids; pretrain in a run of its own and "
            "name its weights, or set 'pretrain=null'",
        )


def check_files(check: Mistakes, data: dict[str, Any]) -> None:
    """Record the files that the recipe names but that do not exist, or are none."""
    weights = _get_section(data, "model").get("weights")
    if not isinstance(weights, str):
        return
    file, path = find_path(weights), ("model", "weights")
    if file is None:
        check.add_mistake(path, f"no such file; looked for {looked_for(weights)}")
    elif not file.is_file():
        check.add_mistake(path, f"{shorten(str(file))}: {NO_FILE}")


def _check_split(check: Mistakes, data: dict[str, Any]) -> None:
    section = _get_section(data, "data")
    if section.get("split") != "zero_shot":
        return
    try:
        train, test = (
            Subset(**_get_section(section, k)).parse_classes() for k in ("train", "test")
        )
    except ValidationError:
        return
    shared = sorted((train or set()) & (test or set()))
    if shared:
        check.add_mistake(
            ("data", "test", "classes"),
            f"classes {first_few(shared, 5)} are in train too, which a "
            "zero_shot split forbids; separate them or set split: all",
        )


def _find_option(check: Mistakes, data: dict[str, Any], key: str) -> Any:
    """An option of the strategy, or its default; None where it has no such option."""
    known = check.schemas.get(("strategy",), ("", {}))[1].get("properties", {})
    return _get_section(data, "strategy").get(key, known.get(key, {}).get("default"))


def _check_strategy(check: Mistakes, data: dict[str, Any]) -> None:
    batch, per_class = (_find_option(check, data, key) for key in ("batch", "per_class"))
    if type(batch) is int and type(per_class) is int and per_class > 0 and batch % per_class:
        check.add_mistake(
            ("strategy", "batch"), f"{batch} is no multiple of per_class, {per_class}; change one"
        )


def _check_tasks(check: Mistakes, data: dict[str, Any]) -> None:
    """A pretext task cannot be evaluated, so it is no ``strategy``; ``pretrain`` must be one."""
    for slot, other, fits in [("strategy", "pretrain", False), ("pretrain", "strategy", True)]:
        what, schema = check.schemas.get((slot,), ("", {}))
        if schema and (schema.get("x-task") == "pretext") != fits:
            kind = "no pretext task" if fits else "a pretext task"
            check.add_mistake((slot, "name"), f"{what} is {kind}; it belongs under {other}:")


def _check_discovery(check: Mistakes, data: dict[str, Any]) -> None:
    names = [v.get("name") for v in data["discovery"] if isinstance(v, dict)]
    for i, name in enumerate(names):
        if isinstance(name, str) and name in names[:i]:
            check.add_mistake(("discovery", i, "name"), f"{name!r} is listed twice; keep one")
    if _find_option(check, data, "pair_labels") != "left":
        return
    for i, value in enumerate(data["discovery"]):
        if isinstance(value, dict) and value.get("across") is True:
            check.add_mistake(
                ("discovery", i, "across"),
                "pairs of two clusters would give one image two labels in a batch; across needs "
                "'strategy.pair_labels=union'",
            )


def list_weighing(check: Mistakes, data: dict[str, Any]) -> dict[int, str]:
    """Which of a recipe's discoveries weigh the labels that they find, by number; and what to do
    where that is not wanted."""
    found = {}
    for i, value in enumerate(data["discovery"]):
        schema = check.schemas.get(("discovery", i), ("", {}))[1]
        option = schema.get("properties", {}).get("weigh", {})
        if schema.get("x-weigh"):
            found[i] = "use another one"
        elif schema and value.get("weigh", option.get("default")) is True:
            found[i] = "set weigh: false"
    return found


def _check_label_weights(check: Mistakes, data: dict[str, Any]) -> None:
    what, schema = check.schemas.get(("strategy",), ("", {}))
    if schema.get("x-weighs-labels") is not False:
        return
    for i, fix in list_weighing(check, data).items():
        found = check.schemas["discovery", i][0]
        check.add_mistake(
            ("discovery", i, "weigh"),
            f"{found} weighs its labels, and {what} would count each as 1; {fix}",
        )


def _check_validation(check: Mistakes, data: dict[str, Any]) -> None:
    if _get_section(data, "data").get("validation"):
        return
    for path, needs in [
        (("rounds", "stop"), _get_section(data, "rounds").get("stop")),
        (("evaluation", "report"), _get_section(data, "evaluation").get("report") == "best"),
    ]:
        if needs:
            what = "best" if path[1] == "report" else "stop"
            check.add_mistake(path, f"{what} needs a validation split; set data.validation")


def _check_optimizer(check: Mistakes, data: dict[str, Any]) -> None:
    name, known = _get_section(data, "optimizer").get("name"), list_timm_optimizers()
    if isinstance(name, str) and name.lower().removeprefix("lookahead_") not in known:
        check.add_mistake(
            ("optimizer", "name"),
            f"timm has no optimiser called {show_value(name)}{suggest_nearest(name, known)}",
        )
    schedule = _get_section(data, "schedule")
    kind, decay = schedule.get("name"), schedule.get("decay_epochs", 30)
    if kind == "multistep" and not isinstance(decay, list):
        check.add_mistake(
            ("schedule", "decay_epochs"),
            f"multistep takes the list of epochs, got {show_value(decay)}",
        )
    if schedule.get("final_epochs") and kind not in (None, "constant"):
        check.add_mistake(
            ("schedule", "final_epochs"),
            f"{show_value(kind)} falls by itself; only a constant rate has final_epochs",
        )
    if kind == "step" and isinstance(decay, list):
        check.add_mistake(
            ("schedule", "decay_epochs"),
            f"step takes one number, got {show_value(decay)}; or use multistep",
        )


def _check_final_epochs(check: Mistakes, data: dict[str, Any]) -> None:
    """A rate that falls before it has risen is never whole."""
    try:
        schedule = Schedule(**_get_section(data, "schedule"))
        rounds = Rounds(**_get_section(data, "rounds"))
    except ValidationError:
        return
    labels = _get_section(data, "data").get("labels", "none") != "none"
    epochs = rounds.count_epochs_between_restarts(bool(labels and data["discovery"]))
    if schedule.final_epochs and schedule.warmup_epochs + schedule.final_epochs > epochs:
        check.add_mistake(
            ("schedule", "final_epochs"),
            f"{schedule.final_epochs:g} and warmup_epochs, {schedule.warmup_epochs}, are more than "
            f"the {epochs} epochs between the beginning or a restart and the end or the next one, "
            "so the rate is never whole; shorten them",
        )


def _check_losses(check: Mistakes, data: dict[str, Any]) -> None:
    strategy = check.schemas.get(("strategy",), ("", {}))[1]
    supplies = strategy.get("x-supplies")
    needs = supplies != []  # one that gives nothing to losses does without
    if strategy and needs and not data["losses"] and not strategy.get("x-terms"):
        check.add_mistake(("losses",), "at least one is needed; add 'losses: multi_similarity'")
    names: list[Any] = []
    for i, loss in enumerate(data["losses"]):
        what, schema = check.schemas.get(("losses", i), ("", {}))
        if not schema:
            continue
        if loss["name"] in names:
            check.add_mistake(("losses", i, "name"), f"{loss['name']!r} is listed twice; keep one")
        names.append(loss["name"])
        inputs = schema.get("x-inputs", [])  # unknown where a function makes the loss
        if supplies is not None and (missing := [n for n in inputs if n not in supplies]):
            gives = ", ".join(supplies) or "nothing to losses"
            check.add_mistake(
                ("losses", i),
                f"{what} needs {', '.join(missing)}, which strategy "
                f"{data['strategy']['name']} does not give (it gives {gives})",
            )
        elif "centres" in inputs and not data["discovery"]:
            check.add_mistake(
                ("losses", i),
                f"{what} needs centres, and no discovery gives them; "
                "add 'discovery: {name: kmeans}'",
            )


def _check_weights(check: Mistakes, data: dict[str, Any]) -> None:
    places = [("strategy",), *(("blocks", i) for i in range(len(data["blocks"])))]
    terms = [t for p in places for t in check.schemas.get(p, ("", {}))[1].get("x-terms", [])]
    names = [v.get("name") for v in data["losses"] if isinstance(v, dict)]
    known = [*terms, *(name for name in names if isinstance(name, str))]
    weights = _get_section(data, "weights")
    left = {name: value for name, value in weights.items() if name in known}
    for name in weights:
        if name not in known:
            check.add_mistake(("weights", name), partial(_describe_unknown_term, name, known, left))
        elif isinstance(weights[name], dict) and weights[name].get("shape") == "reach":
            said = "reach is for the decay of an average; linear, sigmoid, cosine and step are here"
            check.add_mistake(("weights", name, "shape"), said)


def _describe_unknown_term(name: str, known: list[str], left: dict[str, Any]) -> str:
    return (
        f"no loss of this recipe is called so{suggest_nearest(name, known)} "
        f"(all: {shorten(', '.join(known))}); if it is not meant to be there, set "
        f"'weights={shorten(format_inline(left))}'"
    )
