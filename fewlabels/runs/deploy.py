"""The end of a run: saves its model, a picture of neighbours and the last row of metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list

from fewlabels.data.pixels import crop_centre
from fewlabels.errors import make_printable
from fewlabels.evaluation import neighbours_picture
from fewlabels.evaluation.bootstrap import write_class_scores
from fewlabels.evaluation.extract import Extractor
from fewlabels.evaluation.retrieval_protocol import Examples
from fewlabels.files import new_file
from fewlabels.models.classifier import Classifier
from fewlabels.models.frozen import attach_head
from fewlabels.models.precision_curve import measure_precision
from fewlabels.runs.parts import RunParts
from fewlabels.runs.pretrain import read_cost
from fewlabels.runs.use_frozen import find_loss
from fewlabels.training.loop import Loop
from fewlabels.training.run_folder import Row
from fewlabels.training.saved_modules import load_modules

ORACLE = "ORACLE: discovered samples got their true labels: no result, an analysis"


def deploy_models(parts: RunParts, loop: Loop, extract: Extractor) -> list[Row]:
    """Save the deployed model and the last metrics row, print scores; returns them in order."""
    examples = parts.scoring.find_examples(extract)
    scores: list[Any] = [[row for row in parts.metrics.read_rows() if row["kind"] == "evaluation"]]
    if parts.accelerator.is_main_process:
        save_model(parts, loop)
        if examples is not None:
            save_picture(parts, examples)
        if (by_class := parts.scoring.score_classes()) is not None:
            write_class_scores(parts.folder.class_scores, by_class)
        end = make_end_row(parts, loop, scores[0])
        parts.metrics.write_rows([end])
        if lost := find_loss(parts.recipe, [end], parts.folder):
            parts.say(make_printable(str(lost)))
    if parts.accelerator.num_processes > 1:
        broadcast_object_list(scores)
    oracle = f"\n{ORACLE}" if parts.recipe.rounds.oracle else ""
    parts.say(parts.scoring.format_table(scores[0]) + oracle)
    parts.say(f"run folder: {parts.folder}")
    found: list[Row] = scores[0]
    return found


def save_model(parts: RunParts, loop: Loop) -> None:
    """Save the deployed module; if the recipe reports the best, with the best weights."""
    name = parts.strategy.deploys
    model: Any = parts.modules.plain(name)
    if loop.schedule.keep_best:
        load_modules(parts.folder.best, {name: model})
    if parts.recipe.model.frozen:
        model = attach_head(parts.builder.model, model)
    if isinstance(model, Classifier):
        note_precision(parts, model)
    model.save_pretrained(parts.folder.model)


def note_precision(parts: RunParts, model: Classifier) -> None:
    """Note in a classifier how often it is right on the held-out images, if there are any.

    They pass it as in ``predict``, not in the run's precision.
    """
    scored, records = parts.searched, parts.data.records
    held = np.flatnonzero(np.isin(scored.rows, parts.data.validation))
    if not len(held):
        return
    images = (crop_centre(scored[i][1], model.image_size) for i in held.tolist())
    found = model.predict(images, parts.recipe.evaluation.batch)
    model.precision_curve = measure_precision(found, records.truth[scored.rows[held]])


def save_picture(parts: RunParts, examples: Examples) -> None:
    """Draw and save a picture of some test queries and their nearest images."""
    picture = neighbours_picture.draw_neighbours(
        examples,
        parts.data.records.truth[parts.scoring.rows],
        lambda rows: crop_centre(parts.searched.take_rows(rows), parts.image_size),
    )
    with new_file(parts.folder.pictures / neighbours_picture.FILE) as draft:
        picture.save(draft)


def make_end_row(parts: RunParts, loop: Loop, scores: list[Row]) -> Row:
    """The last row of metrics: final score, minutes and steps, including the pretraining's."""
    seconds = sum(row["seconds"] for row in parts.metrics.read_rows() if row["kind"] == "round")
    before, steps = read_cost(parts.folder.pretrain), loop.count_steps()
    end = {"kind": "end", "minutes": seconds / 60 + before["minutes"]}
    end |= parts.scoring.make_final_row(scores)
    if "frozen" in end:
        end.setdefault("frozen_size", parts.image_size)
    if parts.recipe.rounds.oracle:
        end["oracle"] = True
    return end | steps | {"other_steps": steps["other_steps"] + before["steps"]}
