"""Fine-tuning that begins with labels which an earlier run has discovered, and whether it wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from fewlabels.errors import DataError
from fewlabels.evaluation.paired import compare_answers, describe_error
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.assemble import run_parts
from fewlabels.runs.classify_recipe import make_fine_tuning
from fewlabels.runs.classify_report import describe_pair
from fewlabels.runs.cross_validate import Answers, predict_rows, run_hidden
from fewlabels.runs.make_loop import make_loop
from fewlabels.runs.parts import RunParts, fit_parts, make_components
from fewlabels.runs.photos import Photos
from fewlabels.runs.pretrain import NoEvaluation
from fewlabels.runs.read_images import read_images
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder, create_run_folder, hold_run_folder

Tell = Callable[[str], None]


class Tried(NamedTuple):
    """A fine-tuning without some labels: whether it gets more of them right than the model before,
    its parts, whose images can train again, and what it said of the images that were held out."""

    won: bool
    parts: RunParts
    answers: Answers


def refuse_unjudged(folds: list[np.ndarray]) -> None:
    """Refuse to fine-tune where nothing can be held out to judge it by.

    Raises:
        DataError: so.
    """
    if not folds:
        raise DataError(
            "--fine-tune is judged by labels that are held out, and no class has two; label a "
            "second image of some, or leave it out"
        )


def try_fine_tuning(
    frozen: RunParts, recipe: Recipe, photos: Photos, answers: Answers, fold: np.ndarray, tell: Tell
) -> Tried:
    """Fine-tune without the labels of a fold, and say whether it gets more of them right.

    Args:
        frozen: the parts of the run on frozen features, of which nothing was trained.
        recipe: of that run.
        answers: what it said of the images when they were left out.
        fold: positions among the training images.
    """
    given = frozen.data.labels
    hidden = given.copy()
    hidden[fold] = -1
    with TemporaryDirectory() as place:
        before, after = (RunFolder(Path(place) / name) for name in ("frozen", "tuned"))
        if recipe.discovery:
            run_hidden(frozen, recipe, hidden, before.path)
        own = make_fine_tuning(photos, str(before.ledger) if recipe.discovery else None)
        parts = fit_tuning(frozen, own, hidden)
        parts.folder = after
        read_images(parts)
        loop = make_loop(parts, NoEvaluation())
        loop.make_first_optimizers()
        loop.run()
    truth, own_answers = given[fold], Answers(fold, predict_rows(parts, fold))
    mine = own_answers.labels
    theirs = answers.labels[np.isin(answers.positions, fold)]
    tell(
        f"fine-tuned without {len(fold)} labels: {describe_error(mine, truth)} of these; frozen: "
        f"{describe_error(theirs, truth)}"
    )
    pair = compare_answers(theirs, mine, truth)
    tell(describe_pair(pair, "fine-tuning", "without it"))
    return Tried(pair.gained > pair.lost, parts, own_answers)


def fit_tuning(frozen: RunParts, recipe: Recipe, labels: np.ndarray) -> RunParts:
    """The parts of a run that trains the whole network on the same images.

    Args:
        labels: (N,) the given ones of the training images, -1 for none.
    """
    data, made = replace(frozen.data, labels=labels), make_components(recipe)
    return fit_parts(recipe, frozen.accelerator, made, data, lambda sentence: None)


def fine_tune_whole(whole: RunParts, tried: Tried, photos: Photos, runs: Path) -> RunParts:
    """Fine-tune on all given labels in a new run folder; the parts as they are then.

    Args:
        whole: of the run on frozen features, whose ledger it begins with.
        tried: what was won by; its images are decoded already.
    """
    ledger = str(whole.folder.ledger) if whole.discoveries else None
    parts = fit_tuning(whole, make_fine_tuning(photos, ledger), whole.data.labels)
    parts = replace(parts, pixels=tried.parts.pixels, searched=tried.parts.searched)
    parts.folder = create_run_folder(runs, parts.recipe.name, parts.accelerator)
    parts.metrics = MetricLog(parts.folder.metrics)
    with hold_run_folder(parts.folder, parts.accelerator):
        run_parts(parts)
    return parts
