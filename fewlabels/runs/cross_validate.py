"""Cross-validation on the given labels: a run's whole course again, with some of them hidden."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from fewlabels.ops.linear_rules import fit_temperature
from fewlabels.recipe.recipe import Recipe
from fewlabels.runs.build import place_modules
from fewlabels.runs.make_loop import make_loop
from fewlabels.runs.parts import RunParts, make_components, make_extractor
from fewlabels.runs.pretrain import NoEvaluation
from fewlabels.training.metric_log import MetricLog
from fewlabels.training.run_folder import RunFolder

FOLDS = 10
"""At most; of a class with as many labels or fewer no two are left out together."""


class Answers(NamedTuple):
    """What images got that were left out: positions (K,) among the training images, in order, and
    probabilities (K, C)."""

    positions: np.ndarray
    probabilities: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """The most probable class (K,) of each."""
        return self.probabilities.argmax(1)


def draw_folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Positions of the labelled images that are left out together, a fold each.

    Each image is left out once, but for the only one of its class, which never is. There are as
    many folds as the largest class has labels, at most :data:`FOLDS`; none where no class has two.

    Args:
        labels: (N,) of the training images, -1 for none.
    """
    known = labels[labels >= 0]
    counts = np.bincount(known, minlength=1)
    if counts.max() < 2:
        return []
    folds: list[list[int]] = [[] for _ in range(min(FOLDS, int(counts.max())))]
    rng, begin = np.random.default_rng(seed), 0
    for label in np.flatnonzero(counts > 1):
        for number, position in enumerate(rng.permutation(np.flatnonzero(labels == label))):
            folds[(begin + number) % len(folds)].append(int(position))
        begin += int(counts[label])  # so that folds have about as many
    return [np.sort(np.array(fold, np.int64)) for fold in folds if fold]


def cross_validate(parts: RunParts, recipe: Recipe, folds: Sequence[np.ndarray]) -> Answers:
    """What a recipe's deployed model says of each fold when the fold's labels are hidden.

    The images of a fold stay among those without a label, as every other image of which no label is
    known, so a discovery may label them.

    Args:
        parts: of a run on the same data and model, whose images are ready.
    """
    found = []
    for fold in folds:
        labels = parts.data.labels.copy()
        labels[fold] = -1
        with TemporaryDirectory() as place:
            again = run_hidden(parts, recipe, labels, Path(place))
        found.append(predict_rows(again, fold))
    positions = np.concatenate(folds)
    order = positions.argsort()
    return Answers(positions[order], np.concatenate(found)[order])


def run_hidden(parts: RunParts, recipe: Recipe, labels: np.ndarray, place: Path) -> RunParts:
    """Run a recipe from its beginning on the images of another run, with other given labels.

    Args:
        parts: of a run on the same data and model, whose images are ready; it is left as it is.
        labels: (N,) of the training images, -1 for none.
        place: the folder for its ledger and checkpoints.

    Returns:
        The parts as they are after the last round.
    """
    again = begin_again(parts, recipe, labels)
    again.folder = RunFolder(place)
    loop = make_loop(again, NoEvaluation())
    loop.make_first_optimizers()
    loop.run()
    return again


def begin_again(parts: RunParts, recipe: Recipe, labels: np.ndarray) -> RunParts:
    """The parts of another run on the same images, model and task, which has no folder yet.

    Args:
        parts: of which nothing was trained; they are left as they are.
        labels: (N,) the given ones of the training images, -1 for none.
    """
    builder = parts.builder.begin_again()
    strategy, discoveries = make_components(recipe)
    modules = strategy.modules(builder)
    return replace(
        parts,
        recipe=recipe,
        strategy=strategy,
        discoveries=discoveries,
        data=replace(parts.data, labels=labels),
        modules=place_modules(modules, parts.accelerator, recipe.train.channels_last),
        builder=builder,
        folder=RunFolder(os.devnull),
        metrics=MetricLog(None),
        say=lambda sentence: None,
    )


def calibrate_probabilities(
    probabilities: np.ndarray, left_out: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Probabilities (N, C) as sure as those of left-out images (K, C) have proved to be right.

    A model is too sure of images whose labels were discovered, as it has learnt from these labels;
    left-out images were among such. The most probable class stays.

    Args:
        truth: (K,) classes of the left-out images.
    """
    factor = fit_temperature(_take_log(left_out), truth)
    return _softmax(factor * _take_log(probabilities))


def _take_log(probabilities: np.ndarray) -> np.ndarray:
    logs: np.ndarray = np.log(np.maximum(probabilities, 1e-300))
    return logs


def _softmax(scores: np.ndarray) -> np.ndarray:
    exponents = np.exp(scores - scores.max(1, keepdims=True))
    found: np.ndarray = exponents / exponents.sum(1, keepdims=True)
    return found


def predict_rows(parts: RunParts, positions: np.ndarray | None = None) -> np.ndarray:
    """Probabilities (K, C) of training images, or of all, by the model that a run deploys."""
    extract = make_extractor(parts, parts.modules, parts.pixels)
    return _softmax(extract(parts.strategy.deploys, ("logits",), positions)[0].astype(np.float64))
