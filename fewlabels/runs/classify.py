""":func:`classify_photos`: from a folder and a few labels to a classifier, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabels.data.examine import examine_images
from fewlabels.data.readable import SKIP, describe_unreadable
from fewlabels.errors import DataError, FewLabelsError, ModelError, make_printable
from fewlabels.evaluation.paired import compare_answers, describe_error
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.assemble import make_accelerator, run_parts
from fewlabels.runs.classify_recipe import make_recipe
from fewlabels.runs.classify_report import (
    describe_counts,
    describe_pair,
    refuse_options,
    refuse_unclassifiable,
    suggest_labels,
)
from fewlabels.runs.classify_tables import choose_next, write_answers, write_next
from fewlabels.runs.cross_validate import (
    Answers,
    begin_again,
    calibrate_probabilities,
    cross_validate,
    draw_folds,
    predict_rows,
)
from fewlabels.runs.fine_tune import fine_tune_whole, refuse_unjudged, try_fine_tuning
from fewlabels.runs.parts import RunParts, fit_parts, make_components
from fewlabels.runs.photos import Photos
from fewlabels.runs.read_images import read_images
from fewlabels.runs.training_data import read_training_data
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder, create_run_folder, hold_run_folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class Classified:
    """What :func:`classify_photos` leaves.

    Attributes:
        folder: the run folder, with the model, the ledger and the table of what to label next.
        answers: the table of all images.
        discovered: whether the model has learnt from discovered labels too.
        error, discovery_error: shares of left-out images that are wrong without and with a
            discovery; None where nothing could be left out or discovered.
    """

    folder: RunFolder
    answers: Path
    discovered: bool
    error: float | None
    discovery_error: float | None


class Stages:
    """Says what a stage has found, with its seconds and those since the start.

    Args:
        start: of all, by ``time.monotonic``.
    """

    def __init__(self, say: Say, start: float) -> None:
        self.say, self.start, self.begun = say, start, start

    def tell_stage(self, sentence: str) -> None:
        """The sentence, and how long it took to know it."""
        now = time.monotonic()
        self.say(f"[{now - self.start:.1f} s] {sentence}; {now - self.begun:.1f} s")
        self.begun = now


def classify_photos(
    photos: Photos,
    out: Path | None = None,
    runs: Path = Path("runs"),
    say: Say = print,
    start: float | None = None,
    fine_tune: bool = False,
) -> Classified:
    """Train a classifier on the labels of a folder, say how good it is, and write what it says.

    Args:
        out: the table of answers; None: one in the run folder.
        runs: where the run folder is made.
        start: when the command began, by ``time.monotonic``.
        fine_tune: train the whole network too, and keep it if it wins on labels that are held out.

    Raises:
        FewLabelsError: mistakes in the folder, the labels or the backbone, one sentence each.
    """
    stages = Stages(say, time.monotonic() if start is None else start)
    parts = prepare_parts(photos, say)
    stages.tell_stage(describe_counts(photos.path, parts.data))
    bare, folds = make_recipe(photos, discover=False), draw_folds(parts.data.labels, photos.seed)
    if fine_tune:
        refuse_unjudged(folds)
    read_features(parts)
    model, size = parts.recipe.model.backbone, parts.image_size
    stages.tell_stage(f"features of {model} at {size} px are ready")
    first = second = None
    if folds:
        first = validate_recipe(parts, bare, folds, "without discovery", stages)
    else:
        say("no class has two labels, so nothing can be left out and checked; label more images")
    if folds and parts.discoveries:
        second = validate_recipe(parts, parts.recipe, folds, "with discovery", stages)
    better = bool(parts.discoveries)
    if first is not None and second is not None:
        truth = parts.data.labels[first.positions]
        pair = compare_answers(first.labels, second.labels, truth)
        say(describe_pair(pair, "discovery", "without it"))
        better = pair.gained >= pair.lost
    recipe, answers = (parts.recipe, second) if better else (bare, first)
    whole, how = train_whole(parts, recipe, runs), "with" if better else "without"
    stages.tell_stage(f"trained {how} discovery: {whole.folder.model}")
    if fine_tune and answers is not None:
        tried = try_fine_tuning(parts, recipe, photos, answers, folds[0], stages.tell_stage)
        if tried.won:
            whole, answers = fine_tune_whole(whole, tried, photos, runs), tried.answers
        kept = "fine-tuned" if tried.won else "frozen"
        stages.tell_stage(f"the {kept} model is kept: {whole.folder.model}")
    probabilities = predict_rows(whole)
    if answers is not None:
        truth = parts.data.labels[answers.positions]
        probabilities = calibrate_probabilities(probabilities, answers.probabilities, truth)
    found = write_tables(whole, probabilities, out)
    suggest_next(whole, found, photos, say)
    errors = [None if each is None else measure_error(parts, each) for each in (first, second)]
    return Classified(whole.folder, found, better, *errors)


def prepare_parts(photos: Photos, say: Say) -> RunParts:
    """The parts of a run with discovery, of which no image is read yet and no folder is made.

    Raises:
        FewLabelsError: what cannot be classified, and why.
    """
    refuse_options(photos)
    recipe = make_recipe(photos)
    data = read_training_data(recipe)
    refuse_unclassifiable(photos, data)
    for remark in data.remarks:
        say(make_printable(remark))
    discover = bool((data.labels < 0).any())
    if not discover:
        say("every image has a label, so there is nothing to discover")
    recipe = make_recipe(photos, discover)
    accelerator = make_accelerator(recipe)
    if accelerator.num_processes > 1:
        raise FewLabelsError("classify works in one process; start it without a launcher")
    try:
        return fit_parts(recipe, accelerator, make_components(recipe), data, lambda said: None)
    except ModelError as error:
        if photos.weights is not None:
            raise
        raise ModelError(f"{error}; to classify, that is --backbone NAME --weights FILE") from error


def read_features(parts: RunParts) -> None:
    """Have the features of all images ready.

    Raises:
        DataError: images that cannot be read; it names them.
    """
    try:
        read_images(parts)
    except DataError as error:
        data = parts.data
        found = examine_images(data.records, data.split, len(data.records), False)
        if not found.left_out:
            raise
        failed = [(image.name, image.reason) for image in found.left_out]
        raise DataError(describe_unreadable(failed, SKIP)) from error


def validate_recipe(
    parts: RunParts, recipe: Recipe, folds: list[np.ndarray], what: str, stages: Stages
) -> Answers:
    """Cross-validate a recipe, and say what came of it."""
    answers = cross_validate(parts, recipe, folds)
    error = describe_error(answers.labels, parts.data.labels[answers.positions])
    stages.tell_stage(f"{what}: {error} labelled images, each left out once in {len(folds)} folds")
    return answers


def measure_error(parts: RunParts, answers: Answers) -> float:
    """The share of wrong answers."""
    return float((answers.labels != parts.data.labels[answers.positions]).mean())


def train_whole(parts: RunParts, recipe: Recipe, runs: Path) -> RunParts:
    """Run a recipe on all given labels in a new run folder; the parts as they are then."""
    whole = begin_again(parts, recipe, parts.data.labels)
    whole.folder = create_run_folder(runs, recipe.name, whole.accelerator)
    whole.metrics = MetricLog(whole.folder.metrics)
    with hold_run_folder(whole.folder, whole.accelerator):
        run_parts(whole)
    return whole


def write_tables(parts: RunParts, probabilities: np.ndarray, out: Path | None) -> Path:
    """Write the probabilities (N, C) of all images, and which to label next; the first file."""
    data = parts.data
    names = [str(data.records.names[row]) for row in data.train.tolist()]
    file = out or parts.folder.answers
    write_answers(file, names, data.records.classes, probabilities, data.labels)
    chosen = choose_next(probabilities, data.labels)
    if len(chosen):
        own = [names[i] for i in chosen.tolist()]
        write_next(parts.folder.label_next, own, data.records.classes, probabilities[chosen])
    return file


def suggest_next(parts: RunParts, answers: Path, photos: Photos, say: Say) -> None:
    """Say what was written, and what a person can do next."""
    ledger = parts.folder.ledger
    found = f"; which were discovered, and when: {ledger}" if ledger.exists() else ""
    say(f"the classes of all images: {answers}{found}")
    say(
        f"other images: fewlabels predict {parts.folder.model} FOLDER -o FILE; the same run again: "
        f"fewlabels run {parts.folder.recipe}"
    )
    if parts.folder.label_next.exists():
        say(suggest_labels(photos, parts.folder.label_next))
