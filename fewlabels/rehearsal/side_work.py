"""What is done on features alone, whose cost is not in proportion to the number of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np

from fewlabels.contracts import Needs, Pool
from fewlabels.data.splits import Split
from fewlabels.recipe.recipe import Recipe, Spec
from fewlabels.rehearsal.growth import Growth, measure_growth
from fewlabels.runs.build import build_spec
from fewlabels.runs.parts import RunParts
from fewlabels.runs.training_data import TrainingData
from fewlabels.training.loop import Loop


def draw_features(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Features (rows, width) float32 of nothing."""
    return np.random.default_rng(seed).standard_normal((rows, width), np.float32)


def measure_discoveries(recipe: Recipe, parts: RunParts, loop: Loop) -> dict[str, Growth]:
    """The cost of each discovery that looks at no images, on features of nothing.

    Clusters grow with the images, as they do from the stand-in to the whole.
    """
    found = {}
    for spec in recipe.discovery:
        component = build_spec("discovery", spec)
        need: Needs = component.needs()
        if not need.images:
            make = prepare_discovery(spec, parts, loop, need)
            found[spec.name] = measure_growth(make, len(parts.data.train), 1000)
    return found


def prepare_discovery(
    spec: Spec, parts: RunParts, loop: Loop, need: Needs
) -> Callable[[int], Callable[[], object]]:
    """Gives the work of one discovery on so many images."""
    data, model = parts.data, cast(Any, loop.modules.plain(parts.strategy.deploys))
    field: Any = loop.discovery_field
    width = model.embedding_size if field == "embedding" else model.feature_size
    classes = len(data.records.classes)

    def make(size: int) -> Callable[[], object]:
        share = size / len(data.train)
        options = dict(spec.options)
        if isinstance(options.get("clusters"), int):
            options["clusters"] = max(2, round(share * options["clusters"]))
        component = build_spec("discovery", Spec(spec.name, options))
        known = np.flatnonzero(data.labels >= 0)
        known = known[: max(classes if len(known) else 0, int(share * len(known)))]
        rows = np.union1d(known, np.arange(len(data.labels))[:size])
        labels = np.where(np.isin(rows, known), data.labels[rows], -1)
        scores = np.random.default_rng(1).dirichlet(np.ones(max(2, classes)), len(rows))
        pool = Pool(
            data.train[rows],
            draw_features(len(rows), width),
            labels,
            labels >= 0,
            classes=classes or None,
            probabilities=scores if need.probabilities else None,
            history=tuple(draw_features(len(rows), width, n + 2) for n in range(need.history)),
        )
        budget = loop.schedule.label_budget(labels, labels >= 0)
        return lambda: component.discover(pool, budget, np.random.default_rng(0))

    return make


def measure_scoring(recipe: Recipe, parts: RunParts, passes: dict[str, int]) -> Growth:
    """The cost of one evaluation's search and scores, on embeddings of nothing.

    Args:
        passes: width of what is scored, by the name of the model.
    """
    data, task = parts.data, parts.task
    if not len(parts.scoring.rows) or not passes:
        return Growth((), (), ())

    def make(size: int) -> Callable[[], object]:
        part = data if size == len(parts.scoring.rows) else take_test_share(data, size)
        scoring = task.make_scoring(recipe, parts.strategy, parts.modules, part, parts.image_size)
        given = {name: draw_features(len(scoring.rows), width) for name, width in passes.items()}
        return lambda: scoring.make_rows(given, "trained", parts.searched)

    return measure_growth(make, len(parts.scoring.rows), 1000)


def take_test_share(data: TrainingData, size: int) -> TrainingData:
    """Data of which about so many images are tested, of fewer classes and not fewer of each."""
    split, truth = data.split, data.records.truth
    classes = np.unique(truth[split.test])
    kept = classes[: max(2, round(len(classes) * size / len(split.test)))]
    if len(classes) <= 10:  # of few classes, some of each
        rows = np.sort(np.random.default_rng(0).permutation(split.test)[:size])
    else:
        rows = split.test[np.isin(truth[split.test], kept)]
    gallery = None if split.gallery is None else np.intersect1d(split.gallery, rows)
    query = np.intersect1d(split.query, rows)
    return replace(data, split=Split(split.train, rows, query, gallery))
