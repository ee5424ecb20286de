"""The parts of a run: components, images, modules, and the folder that it writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from fewlabels.contracts import Strategy
from fewlabels.data.cached_features import CachedFeatures
from fewlabels.data.decode import resize_to_square
from fewlabels.data.examine import write_left_out
from fewlabels.data.label_split import write_labelled
from fewlabels.data.pixels import Pixels
from fewlabels.errors import DataError, first_few, make_printable
from fewlabels.evaluation.extract import Extractor
from fewlabels.evaluation.scoring import Scoring
from fewlabels.files import new_file
from fewlabels.recipe.recipe import Recipe, Spec
from fewlabels.registry.user_code import copy_modules
from fewlabels.runs.build import Builder, build_spec, check_plugins_made, place_modules
from fewlabels.runs.environment import describe_environment
from fewlabels.runs.provenance import list_plugins
from fewlabels.runs.resume import fingerprint_data, read_beginning, refuse_other_data
from fewlabels.runs.task import TASKS, Task
from fewlabels.runs.training_data import TrainingData, read_training_data
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.modules import TrainingModules
from fewlabels.training.run_folder import RunFolder, create_run_folder

Discoveries = list[tuple[str, Any]]  # the components of a recipe's list, by their names


@dataclass
class RunParts:
    """Everything that the steps of :func:`assemble_run` share."""

    recipe: Recipe
    accelerator: Accelerator
    task: Task
    strategy: Strategy
    discoveries: Discoveries
    data: TrainingData
    classes: int | None  # labels that the losses must tell apart
    modules: TrainingModules
    builder: Builder  # of the modules; it holds the whole model
    scoring: Scoring
    pixels: Pixels  # the training images
    searched: Pixels  # those that are scored, which may be the same
    folder: RunFolder  # os.devnull until it is made
    metrics: MetricLog
    say: Callable[[str], None]

    @property
    def image_size(self) -> int:
        """Side in pixels of the model's images."""
        return self.builder.image_size


def make_parts(
    recipe: Recipe,
    accelerator: Accelerator,
    out: Path,
    resume: Path | None,
    say: Callable[[str], None],
    must_score: bool = False,
) -> RunParts:
    """Components, images and modules of a run; its folder is made last, when all else stands.

    Args:
        must_score: refuse data on which there will be no test score.

    Raises:
        FewLabelsError: a component that cannot be made, or data that do not fit the strategy.
    """
    made, before = make_components(recipe), RunFolder(resume) if resume else None
    data = read_run_data(recipe, accelerator, before)
    parts = fit_parts(recipe, accelerator, made, data, say, must_score)
    parts.folder = before or create_run_folder(out, recipe.name, accelerator)
    parts.metrics = MetricLog(parts.folder.metrics if accelerator.is_main_process else None)
    return parts


def make_components(recipe: Recipe) -> tuple[Strategy, Discoveries]:
    """The strategy and the discoveries; of what else is a plugin's, whether it can be made.

    Raises:
        FewLabelsError: a component that cannot be made.
    """
    check_plugins_made(recipe, ("view", "loss"))  # before images are read, as the others are made
    strategy = build_spec("strategies", recipe.strategy)
    discoveries = [fill_in_seed(spec, recipe.seed) for spec in recipe.discovery]
    return strategy, [(spec.name, build_spec("discovery", spec)) for spec in discoveries]


def fill_in_seed(spec: Spec, seed: int) -> Spec:
    """A component in whose text options ``{seed}`` is the run's seed, so that a study's runs name
    the folders of earlier ones."""
    texts = {key: value for key, value in spec.options.items() if isinstance(value, str)}
    filled = {key: value.replace("{seed}", str(seed)) for key, value in texts.items()}
    return Spec(spec.name, {**spec.options, **filled})


def fit_parts(
    recipe: Recipe,
    accelerator: Accelerator,
    made: tuple[Strategy, Discoveries],
    data: TrainingData,
    say: Callable[[str], None],
    must_score: bool = False,
) -> RunParts:
    """The parts of a run on these data, of which no image is looked at; nothing is written.

    Args:
        made: what :func:`make_components` gave.
        must_score: refuse data on which there will be no test score.

    Raises:
        FewLabelsError: modules that cannot be made, or data that do not fit the strategy.
    """
    strategy, discoveries = made
    task = TASKS[strategy.task]
    classes = count_classes(discoveries, data.labels)
    task.check_labels(data.labels, recipe.strategy.name)
    builder = Builder(recipe, task, len(data.train), classes, data.records.classes)
    modules = place_modules(strategy.modules(builder), accelerator, recipe.train.channels_last)
    scoring = task.make_scoring(recipe, strategy, modules, data, builder.image_size)
    unscored = scoring.explain_unscored()
    if must_score and unscored:
        raise DataError(f"{recipe.name}: no test score can be compared: {unscored}")
    model = builder.model
    prepare = partial(
        resize_to_square,
        resize_size=model.resize_size,
        image_size=model.image_size,
        interpolation=model.interpolation,
    )
    kind = CachedFeatures if recipe.model.frozen else Pixels
    pixels = searched = kind(data.records.images, data.train, prepare)
    if not np.array_equal(data.train, scoring.rows):
        searched = kind(data.records.images, scoring.rows, prepare)
    return RunParts(
        recipe=recipe,
        accelerator=accelerator,
        task=task,
        strategy=strategy,
        discoveries=discoveries,
        data=data,
        classes=classes,
        modules=modules,
        builder=builder,
        scoring=scoring,
        pixels=pixels,
        searched=searched,
        folder=RunFolder(os.devnull),
        metrics=MetricLog(None),
        say=say,
    )


def read_run_data(
    recipe: Recipe, accelerator: Accelerator, before: RunFolder | None
) -> TrainingData:
    """The images and labels of a run: the same in all processes, and as it began.

    Args:
        before: the folder of a run that goes on; one that has not begun leaves out nothing yet.

    Raises:
        DataError: what reading them finds, or processes that can read different images.
        FewLabelsError: the run began with other data.
    """
    begun = before if before and read_beginning(before) else None
    data = read_training_data(recipe, begun, quiet=not accelerator.is_main_process)
    refuse_disagreement(accelerator, data)
    if begun:
        refuse_other_data(data, begun.path)
    return data


def refuse_disagreement(accelerator: Accelerator, data: TrainingData) -> None:
    """Refuse to train where processes left out other images: they would wait for each other.

    Raises:
        DataError: so, in every process.
    """
    if accelerator.num_processes > 1 and data.examined:
        names = {image.name for image in data.examined.left_out}
        found = gather_object([names])
        if other := set.union(*found) - set.intersection(*found):
            raise DataError(
                f"only some processes can read {first_few(sorted(other), 3)}; see to it that all "
                "of them reach the same files, and run again"
            )


def count_classes(discoveries: Discoveries, labels: np.ndarray) -> int | None:
    """The number of labels that losses must tell apart; None if there are no labels.

    Raises:
        DataError: a discovery numbers its labels by itself, but people gave labels too.
    """
    own = [(name, d.classes) for name, d in discoveries if d.classes is not None]
    if own and labels.max() >= 0:
        raise DataError(
            f"discovery {own[0][0]!r} numbers its labels by itself, so they cannot stand beside "
            "those that people gave; set data.labels: none, or take the discovery away"
        )
    classes: int | None = own[-1][1] if own else int(labels.max()) + 1 or None
    return classes


def open_metrics(parts: RunParts) -> None:
    """The first row of a run that begins, its recipe, its code and which images were labelled.

    One that was stopped before its first checkpoint begins again; after a pretraining, with the
    same first row.
    """
    recipe, data, folder = parts.recipe, parts.data, parts.folder
    facts = {"kind": "run", "recipe": recipe.hash, "seed": recipe.seed}
    facts |= describe_environment(parts.accelerator) | {"plugins": list_plugins(recipe)}
    if data.examined:
        facts |= {"left_out": len(data.examined.left_out), "copies": data.examined.copies}
    facts |= {"data": fingerprint_data(data), "resolved": recipe.resolved}
    if recipe.rounds.oracle:
        facts["oracle"] = True
    if parts.accelerator.is_main_process and not folder.list_checkpoints():
        begun = read_beginning(folder)
        if not begun and folder.read_first_row():
            parts.say(f"{folder} has no checkpoint, so it begins again")
        with new_file(folder.recipe) as draft:
            draft.write_text(recipe.to_yaml(), encoding="utf-8")
        copy_modules(recipe.imports, folder.path)
        parts.metrics.begin_with(begun or facts)
        if isinstance(recipe.data.labels, int):
            drawn = {"labelled": data.train[data.labels >= 0], "validation": data.validation}
            write_labelled(folder.labelled, drawn, data.records.truth, data.records.classes)
        if data.examined and data.examined.left_out:
            write_left_out(folder.left_out, data.examined.left_out)
    parts.say(
        f"{recipe.name}: {len(data.train)} images train, {len(parts.scoring.rows)} are "
        f"{parts.task.scored}; {facts['processes']} process(es) on {facts['device']}; "
        f"run folder {folder}"
    )
    for remark in (*recipe.remarks, *data.remarks):
        parts.say(make_printable(remark))
    if unscored := parts.scoring.explain_unscored():
        parts.say(f"there will be no test score: {unscored}")


def make_extractor(parts: RunParts, modules: TrainingModules, pixels: Pixels) -> Extractor:
    """An Extractor of features of ``pixels`` by a run's unwrapped modules."""
    batch, workers = parts.recipe.evaluation.batch, parts.recipe.data.workers
    return Extractor(parts.accelerator, modules.plain, pixels, parts.image_size, batch, workers)
