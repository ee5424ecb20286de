"""The sections of a model card, one function each; text not written by us is escaped."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from fewlabels.errors import first_few
from fewlabels.evaluation import against_frozen
from fewlabels.evaluation.scoring import RetrievalScoring
from fewlabels.hub.card_text import Kind, escape_markdown, fence_code
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.required_plugins import plugins_of
from fewlabels.recipe.sections import Subset
from fewlabels.registry import sources
from fewlabels.runs import finished_run
from fewlabels.runs.environment import PACKAGES
from fewlabels.runs.finished_run import FinishedRun
from fewlabels.runs.provenance import list_plugins
from fewlabels.runs.use_frozen import find_loss

LICENCES = {
    "digits": "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI repository)",
    "svhn": "non-commercial use only, as its authors ask",
}
"""Licences of the images, by source, where stated; for others the card says "not stated"."""
RULES = {
    "last": "the last evaluation counts",
    "median": "the median of the last 20 evaluations counts",
    "best": "the evaluation with the smallest validation error counts",
}
CLASSES_SHOWN = 100


def _format_list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def describe_model(run: FinishedRun, model: Embedder | Classifier, kind: Kind) -> str:
    """The summary: input, output, backbone, blocks, strategy, discoveries and losses."""
    recipe = run.recipe
    gives = (
        f"the probabilities of {len(model.classes)} classes"
        if isinstance(model, Classifier)
        else f"a vector of {model.embedding_size} numbers, to be compared by cosine"
    )
    blocks = [
        f"{escape_markdown(b['name'])} after {escape_markdown(b['after'])}" for b in model.blocks
    ]
    with_blocks = f" with {', '.join(blocks)}" if blocks else ""
    found = [escape_markdown(spec.name) for spec in recipe.discovery]
    by = f" and discovery by {', then '.join(found)}" if found else ""
    losses = [escape_markdown(spec.name) for spec in recipe.losses]
    under = f" under {' and '.join(losses)}" if losses else ""
    return (
        f"An image {kind}: from an image of {model.image_size} pixels a side it makes {gives}. "
        f"Backbone {escape_markdown(model.name)}{with_blocks}, trained with fewlabels by the "
        f"strategy {escape_markdown(recipe.strategy.name)}{by}{under}."
    )


def describe_lost(runs: Sequence[FinishedRun]) -> str:
    """That the frozen backbone is the better model, where it is; a paragraph, or nothing."""
    lost = find_loss(runs[0].recipe, [run.end for run in runs], None)
    if lost is None:
        return ""
    said = f"{lost.said[0].upper()}{lost.said[1:]}; {lost.instead}"
    return f"{said}:\n\n{fence_code(lost.code)}\n\n" if lost.code else f"{said}.\n\n"


def describe_data(run: FinishedRun, data_license: str | None) -> str:
    """The source and licence of the images, and of the backbone's initial weights."""
    recipe, source = run.recipe, run.recipe.source
    told = [
        f"{escape_markdown(k)} {_format_option(v)}"
        for k, v in source.options.items()
        if v not in (None, "", [])
    ]
    licence = data_license or LICENCES.get(source.name)
    lines = [
        f"Source: {escape_markdown(source.name)}" + (f" ({', '.join(told)})" if told else ""),
        f"Licence of the images: {escape_markdown(licence)}"
        if licence
        else "Licence of the images: not stated by who pushed this model; ask them first",
    ]
    if recipe.model.pretrained:
        lines.append(
            f"The backbone began from timm's weights, {_licence_of(recipe.model.backbone)}"
        )
    elif recipe.model.weights is not None:
        lines.append(f"The backbone began from the file {_format_option(recipe.model.weights)}")
    else:
        lines.append("The backbone began from random weights")
    return _format_list(lines)


def _format_option(value: Any) -> str:
    """A source's option as Markdown; of an absolute path only the last part is shown."""
    if isinstance(value, list):
        return ", ".join(_format_option(each) for each in value)
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f"…/{escape_markdown(PurePath(value).name)}"
    return escape_markdown(value)


def _licence_of(backbone: str) -> str:
    import timm

    config = timm.get_pretrained_cfg(backbone)
    licence = getattr(config, "license", None)
    return (
        f"whose licence is {escape_markdown(licence)}"
        if licence
        else "whose licence timm does not record"
    )


def _format_subset(subset: Subset) -> str:
    told = [f"classes {subset.classes}"] if subset.classes else []
    return escape_markdown(
        " and ".join([*told, *(f"{k} = {v}" for k, v in subset.where.items())]) or "all"
    )


def describe_protocol(run: FinishedRun, kind: Kind) -> str:
    """The split, how the test images were scored, and which checkpoint counts."""
    data, ask = run.recipe.data, run.recipe.evaluation
    split = data.split or getattr(sources.get(run.recipe.source.name), "default_split", "all")
    lines = [f"Split: {escape_markdown(split)}"]
    for part in ("train", "test", "query", "gallery"):
        subset = getattr(data, part)
        if subset is not None:
            lines.append(f"{part.capitalize()} images: {_format_subset(subset)}")
    if kind == "classifier":
        lines += [
            f"Labels: {data.labels}, {escape_markdown(data.share)}, drawn by seed "
            f"{run.recipe.seed if data.split_seed is None else data.split_seed}",
            f"Held out for validation: {data.validation}",
            f"Checkpoint: {RULES[ask.report]}; test errors are never looked at to choose",
        ]
    else:
        found = [row for row in run.rows if row["kind"] == "evaluation" and "queries" in row]
        for search, row in {row["search"]: row for row in found}.items():
            lines.append(
                f"Search: {escape_markdown(search)}, by cosine; {row['queries']:.0f} queries, "
                f"{row['lone']:.0f} more have nothing to find; K: {', '.join(map(str, ask.ks))}"
            )
        lines.append("Checkpoint: that of the last round; nothing is chosen by a score")
    return _format_list(lines)


def format_scores(runs: Sequence[FinishedRun]) -> str:
    """A table with the last scores of every model that was scored, in percent."""
    if not runs[0].measured:
        return "Nothing was scored: the test images' classes are not known."
    found = [finished_run.last_scores(run) for run in runs]
    measures = list(dict.fromkeys(m for values in found[0].values() for m in values))
    seeds = ", ".join(str(run.recipe.seed) for run in runs)
    head = (
        f"In percent: mean ± sample standard deviation over {len(runs)} seeds ({seeds})."
        if len(runs) > 1
        else f"In percent, of one run (seed {seeds})."
    )
    lines = [["model", "search", *measures], ["---"] * (2 + len(measures))]
    sizes = {row["model"]: row["image_size"] for row in runs[0].rows if "image_size" in row}
    for place, values in found[0].items():
        search, name = place
        cells = [
            _format_mean([one[place][m] for one in found if m in one.get(place, {})])
            if m in values
            else ""
            for m in measures
        ]
        told = RetrievalScoring.NAMES.get(name, name)
        if name in against_frozen.NAMES:
            told = against_frozen.name_model(name, sizes.get(name))
        lines.append([escape_markdown(told), escape_markdown(search), *cells])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{head}\n\n{table}"


def _format_mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def describe_labels(run: FinishedRun) -> str:
    """How many labels people gave, how many were discovered, and how many of those are wrong."""
    found = finished_run.summarize_labels(run)
    given = "all that the data set has" if found.given is None else f"{found.given}"
    lines = [
        f"Given by people: {given}"
        + (f"; {found.validation} more held out" * bool(found.validation))
    ]
    if found.discovered:
        wrong = "whether they are right is not known"
        if found.known:
            share = 100 * found.wrong / found.known
            wrong = f"{found.wrong} of {found.known} with a known class are wrong ({share:.1f} %)"
        lines.append(f"Discovered, at the end: {found.discovered}; {wrong}")
    if found.clustered:
        lines.append(
            f"Numbers of clusters, discovered: {found.clustered} images; they name no class, so "
            "none is right or wrong"
        )
    if not found.discovered and not found.clustered:
        lines.append("Discovered: none")
    return _format_list(lines)


def describe_cost(runs: Sequence[FinishedRun]) -> str:
    """Device, minutes and steps."""
    start, minutes = runs[0].start, [run.end["minutes"] for run in runs]
    return _format_list(
        [
            f"Device: {escape_markdown(start['device'])}, {start['processes']} process(es), "
            f"{start['threads']} thread(s)",
            f"Training and evaluation: {statistics.mean(minutes):.1f} minutes"
            + (" a run" if len(runs) > 1 else ""),
            f"Steps: {runs[0].end['steps']}, and {runs[0].end['other_steps']} of other phases",
        ]
    )


def describe_limits(runs: Sequence[FinishedRun], model: Embedder | Classifier) -> str:
    """The limits of the model and of its scores."""
    lines = [
        "The scores are of the test images above; on images of another kind they say nothing",
    ]
    if len(runs) == 1:
        lines.append("One run was made: how far another seed would fall from it is not known")
    if runs[0].recipe.discovery:
        lines.append("It was trained on labels that it discovered by itself, wrong ones among them")
    if isinstance(model, Classifier):
        names = first_few([escape_markdown(name) for name in model.classes], CLASSES_SHOWN)
        lines.append(f"Every image gets one of its {len(model.classes)} classes: {names}")
        lines += describe_none(runs[0], model)
    else:
        lines.append("A cosine says how alike two images are among others, not whether they match")
    return _format_list(lines)


def describe_none(run: FinishedRun, model: Classifier) -> list[str]:
    """From which probability on a classifier's answers are as precise as wished."""
    if model.precision_curve is None:
        return ["How often a sure answer is right is not known: no labelled image was held out"]
    best = run.recipe.evaluation.report == "best"
    chosen = ", which chose the checkpoint too" if best else ""
    return [
        "`fewlabels predict --min-precision` answers none where it is not sure enough, by images "
        f"of its classes that were held out{chosen}; of images of no class they say nothing",
        *(f"Precision {told}" for told in model.precision_curve.describe_wishes()),
    ]


def describe_versions(run: FinishedRun, model: Embedder | Classifier) -> str:
    """Versions of packages and plugins used in training; marks plugins needed to load the model."""
    packages = [name for name in ("python", *PACKAGES) if name in run.start]
    lines = [f"{name} {escape_markdown(run.start[name])}" for name in packages]
    needed = {f"{plugin.kind} {plugin.name}" for plugin in plugins_of(model.name, model.blocks)}
    for component, by in run.start.get("plugins", list_plugins(run.recipe)).items():
        here = ", to be installed" if component in needed else ""
        lines.append(f"{escape_markdown(component)} of {escape_markdown(by)}{here}")
    return _format_list([*lines, f"recipe {run.recipe.hash}"])
