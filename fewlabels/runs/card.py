"""The model card of one run, or of several runs that differ only in their seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

from fewlabels.hub.card_text import (
    PIPELINE,
    Kind,
    describe_usage,
    escape_markdown,
    fence_code,
    format_metadata,
)
from fewlabels.hub.download import NAME
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.runs import card_sections as paragraphs
from fewlabels.runs.finished_run import FinishedRun, last_scores

PICTURES = "Where they show images of the data, the licence of these holds for the pictures too."


@dataclass(frozen=True)
class Picture:
    """A picture to show in the card.

    ``path`` is its path in the repository, ``alt`` its alternative text. ``caption`` is Markdown
    that is not escaped, so it must be written by this program.
    """

    path: str
    alt: str
    caption: str = ""


def make_card(
    runs: Sequence[FinishedRun],
    model: Embedder | Classifier,
    repo: str,
    *,
    pictures: Sequence[Picture] = (),
    license: str | None = None,
    data_license: str | None = None,
) -> str:
    """The text of the whole README.md; the same runs give the same text.

    Args:
        runs: the first is the run of ``model``; the others are used for mean and spread.
        repo: ``org/name``, already checked by the caller.
        license: licence of the weights, as the Hub abbreviates it: ``apache-2.0``.
        data_license: licence of the images, in words.
    """
    run = runs[0]
    kind: Kind = "classifier" if isinstance(model, Classifier) else "embedder"
    shown = [
        f"![{escape_markdown(p.alt)}]({quote(p.path)})\n\n{p.caption}".rstrip() for p in pictures
    ]
    said = {
        "metadata": _describe_metadata(runs, kind, repo, license),
        "title": escape_markdown(repo.partition("/")[2]),
        "summary": paragraphs.describe_lost(runs) + paragraphs.describe_model(run, model, kind),
        "usage": describe_usage(repo, kind),
        "pictures": "\n\n".join(["", "## Pictures", PICTURES, *shown, ""]) if shown else "",
        "data": paragraphs.describe_data(run, data_license),
        "protocol": paragraphs.describe_protocol(run, kind),
        "scores": paragraphs.format_scores(runs),
        "labels": paragraphs.describe_labels(run),
        "cost": paragraphs.describe_cost(runs),
        "limits": paragraphs.describe_limits(runs, model),
        "recipe": fence_code(run.recipe.to_yaml(), "yaml"),
        "versions": paragraphs.describe_versions(run, model),
    }
    template = files("fewlabels.runs").joinpath("card_template.md").read_text("utf-8")
    return Template(template.replace("$metadata\n", "$metadata")).substitute(said)


def _describe_metadata(
    runs: Sequence[FinishedRun], kind: Kind, repo: str, license: str | None
) -> str:
    from huggingface_hub import EvalResult

    run, source = runs[0], runs[0].recipe.source
    id = str(source.options.get("id", ""))
    name = id if source.name == "hub" and NAME.fullmatch(id) else source.name
    more: dict[str, Any] = {"datasets": [name]} if name == id else {}
    if license is not None:
        more["license"] = license
    if run.measured:
        seeds = f"mean of {len(runs)} seeds" if len(runs) > 1 else f"seed {run.recipe.seed}"
        more["model_name"] = repo.partition("/")[2]
        more["eval_results"] = [
            EvalResult(
                task_type=PIPELINE[kind],
                dataset_type=name,
                dataset_name=name,
                dataset_split="test",
                metric_type=measure,
                metric_name=f"{measure}, %, {seeds}",
                metric_value=round(statistics.mean(values), 2),
            )
            for measure, values in _headline_scores(runs).items()
        ]
    return format_metadata(kind, **more)


def _headline_scores(runs: Sequence[FinishedRun]) -> dict[str, list[float]]:
    """The deployed model's measures in percent: for each, one number per run."""
    if runs[0].end["measure"] == "test error":
        return {"accuracy": [100 - 100 * run.end["score"] for run in runs]}
    found = [last_scores(run) for run in runs]
    place = next(place for place in found[0] if place[1] == "trained")
    return {measure: [one[place][measure] for one in found] for measure in found[0][place]}
