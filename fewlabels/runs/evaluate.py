"""Scores a saved model on labelled images, with the same functions that score a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fewlabels.data.class_names import clean_label
from fewlabels.data.pixels import Pixels
from fewlabels.errors import DataError, ModelError, first_few, make_printable, suggest_nearest
from fewlabels.evaluation.evaluator import Evaluator
from fewlabels.evaluation.extract import Extractor
from fewlabels.evaluation.scoring import (
    ClassificationScoring,
    RetrievalScoring,
    Scoring,
    describe_interval,
)
from fewlabels.files import find_path, looked_for
from fewlabels.models.classifier import Classifier
from fewlabels.models.embedder import Embedder
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.models.load import load_model
from fewlabels.recipe.recipe import Recipe, load_recipe, recipe_from
from fewlabels.registry import sources
from fewlabels.runs.build import place_modules
from fewlabels.runs.environment import describe_environment
from fewlabels.runs.training_data import TrainingData, read_training_data
from fewlabels.training.launch_environment import start_accelerate
from fewlabels.training.run_folder import RunFolder

MEASURES = ("recall", "map", "r_prec", "nmi", "error", "accuracy", "validation")


SAVED = "saved"
"""The module name given to the saved model, since scoring takes modules by name."""


def evaluate_model(
    place: str | Path, data: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Score a saved model on the test images of a data set.

    Args:
        place: a model's folder, or its name on the Hub.
        data: as in :func:`name_data`.
        overrides: ``key=value`` of a recipe, as in ``data.split=all`` or ``evaluation.ks=[1,10]``.

    Returns:
        JSON-like data: the model, the data, the environment, and ``scores``: rows as in
        metrics.jsonl, for an embedder one per search.

    Raises:
        FewLabelsError: the data is named wrongly, images or labels are missing, or the model does
            not know some of the classes.
    """
    model = load_model(place)
    recipe = name_data(place, data, overrides)
    own = RunFolder(Path(place).absolute().parent)
    same = data is None and not any(word.startswith("data.") for word in overrides)
    same = same and "left_out" in own.read_first_row()
    data_read = read_training_data(recipe, own if same else None)
    truth, scoring = make_scoring(model, recipe, data_read)
    AcceleratorState._reset_state()  # a run before in this process may have had another precision
    precision = recipe.train.precision
    accelerator = start_accelerate(lambda: Accelerator(mixed_precision=precision), precision)
    modules = place_modules({SAVED: model}, accelerator, recipe.train.channels_last)
    pixels = Pixels(data_read.records.images, scoring.rows, model.resize_to_square)
    batch, workers = recipe.evaluation.batch, recipe.data.workers
    extractor = Extractor(accelerator, modules.plain, pixels, model.image_size, batch, workers)

    def extract(model: str, fields: Sequence[str]) -> list[np.ndarray]:
        pixels.decode_all(recipe.data.memory * 2**30)  # only now: perhaps nothing can be scored
        return extractor(model, fields)

    rows = Evaluator(scoring, extract, pixels, main=True).score_models("trained", 0)
    if not rows:
        found = "".join(f" ({remark})" for remark in data_read.records.remarks)
        raise DataError(f"nothing can be scored: {scoring.explain_unscored()}{found}")
    for row in rows:
        del row["kind"], row["model"]
        if "error" in row:
            row["accuracy"] = 1 - row["error"]
    known = truth[scoring.rows]
    return {
        "model": str(place),
        "kind": model.config.model_fields["kind"].default,
        "fingerprint": fingerprint_model(model),
        "image_size": model.image_size,
        "data": recipe.resolved["data"],
        "split": recipe.data.split or data_read.default_split,
        "images": len(known),
        "classes": len(np.unique(known[known >= 0])),
        "scores": rows,
        "remarks": list(data_read.remarks),
        **describe_environment(accelerator),
    }


def make_scoring(
    model: Embedder | Classifier, recipe: Recipe, data: TrainingData
) -> tuple[np.ndarray, Scoring]:
    """Class of each image in the model's numbering (N,), and the scoring for the model's task."""
    ask, truth = recipe.evaluation, data.records.truth
    if isinstance(model, Classifier):
        looked_at = np.concatenate([data.split.test, data.validation])
        truth = renumber_classes(truth, looked_at, data.records.classes, model.classes)
        given = data.train[data.labels >= 0]
        test, held = data.split.test, data.validation
        return truth, ClassificationScoring(
            SAVED, lambda discoveries: [SAVED], test, held, truth, given, "last"
        )
    return truth, RetrievalScoring(
        SAVED, data.split, truth, ask.ks, ask.all_against_all, before=False, raw=None
    )


def name_data(place: str | Path, data: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe whose ``data`` and ``evaluation`` sections are used to score a model.

    Args:
        data: a source's name, a folder of images, or a recipe's file; None: the data of the run
            folder that contains the model.
        overrides: ``key=value``, applied to that recipe.

    Raises:
        RecipeError: the recipe has mistakes.
        DataError: there is no such folder or source, or no data is named at all.
    """
    own = RunFolder(Path(place).absolute().parent).recipe
    if data is None and Path(place).is_dir() and own.is_file():  # or the Hub's name of a model
        return load_recipe(own, overrides, ended=True)
    if data is not None and Path(data).suffix in (".yaml", ".yml"):
        return load_recipe(data, overrides)
    named = {}
    if data in sources.names():
        named = {"source": data}
    elif data is not None:
        folder, known = find_path(data), sources.names()
        if folder is None or not folder.is_dir():
            raise DataError(
                f"--data {data}: no folder at {looked_for(data)}, and no source is called so"
                f"{suggest_nearest(data, known)} (all: {', '.join(known)}); "
                "a recipe's file will do too"
            )
        named = {"source": "folder", "path": data}
    elif not any(word.startswith("data.source=") for word in overrides):
        raise DataError(
            f"{place} lies in no run folder, on whose data it could be scored; add --data and a "
            "folder of images, a source (fewlabels list sources) or a recipe"
        )
    # A recipe says how it trains, and this strategy needs nothing beside it; nothing is trained.
    return recipe_from({"data": named, "strategy": "supervised"}, overrides)


def renumber_classes(
    truth: np.ndarray, looked_at: np.ndarray, classes: Sequence[str], known: Sequence[str]
) -> np.ndarray:
    """Convert the data's class numbers to the classifier's by name: (N,) int64, -1 = unknown.

    Args:
        truth: (N,) indices into ``classes``, the names of the data's classes.
        looked_at: rows of the images that are scored; only their classes must be ``known``.

    Raises:
        DataError: the classifier does not know a class of the scored images.
        ModelError: two classes of the classifier have the same name.
    """
    if tuple(classes) == tuple(known):
        return truth
    classes = [clean_label(name) or name for name in classes]  # models of before have others
    numbers = {clean_label(name) or name: number for number, name in enumerate(known)}
    if len(numbers) < len(known):
        raise ModelError("two of the model's classes have one name, so no label means one of them")
    needed = np.unique(truth[looked_at])
    strange = [classes[n] for n in needed[needed >= 0] if classes[n] not in numbers]
    if strange:
        raise DataError(
            f"the model does not know these classes of the data: {first_few(strange, 5)} (it knows "
            f"{first_few(known, 5)}); rename them, or leave them out with data.test.classes"
        )
    return np.array([numbers.get(classes[n], -1) if n >= 0 else -1 for n in truth], np.int64)


def format_scores(found: dict[str, Any]) -> str:
    """Format the result of :func:`evaluate_model`: model and data, then a line per search, in %."""
    rows, size = found["scores"], found["image_size"]
    measures = [name for name in rows[0] if name.startswith(MEASURES)]
    lines = [
        *map(make_printable, found["remarks"]),
        f"{found['model']}: {found['kind']}, {size} x {size} pixels",
        f"{found['data']['source']}, split {found['split']}: "
        f"{found['images']} images of {found['classes']} classes",
        f"{'in percent':24}" + "".join(f"  {name:>11}" for name in measures),
    ]
    for row in rows:
        values = [f"  {100 * row[name]:{max(11, len(name))}.2f}" for name in measures]
        lines.append(f"{row['search']:24}" + "".join(values))
        if told := describe_interval(row).removeprefix("; "):
            lines.append(f"  {told}")
        if row.get("lone"):
            queries = "query has" if row["lone"] == 1 else "queries have"
            lines.append(f"  {row['lone']:.0f} {queries} nothing to find; left out")
    return "\n".join(lines)
