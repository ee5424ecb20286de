"""Logistic regression on the frozen features and labels of a recipe: what a person writes by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/frozen_logistic.py \
        recipes/studies/few_labels_frozen/cifar10_lda.yaml --seeds 0-9 --form standardised --c 0.1

A minute for ten seeds of CIFAR-10 once the features are known. Prints the test error of each seed. With
``--choose`` it prints the error on the unlabelled training images instead, of each form and C: for a choice, on
other seeds than those of the test.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from sklearn.linear_model import LogisticRegression

from fewlabels.data.cached_features import CachedFeatures
from fewlabels.ops.centres import l2_normalize
from fewlabels.recipe.recipe import load_recipe
from fewlabels.runs.parts import make_parts
from fewlabels.runs.read_images import read_images
from fewlabels.runs.study import seeds_of

FORMS = ("raw", "standardised", "length 1", "roots")


def transform_features(features: np.ndarray, fit: np.ndarray, form: str) -> np.ndarray:
    """Features (N, F) in a form; ``fit``: those of all training images, whose scale counts."""
    if form == "standardised":
        return (features - fit.mean(0)) / (fit.std(0) + 1e-6)
    if form == "length 1":  # of all features the mean square is 1, so that C means the same
        return l2_normalize(features) * np.float32(features.shape[1] ** 0.5)
    if form == "roots":
        return l2_normalize(np.sqrt(np.maximum(features, 0))) * np.float32(features.shape[1] ** 0.5)
    return features


def take_plain(images: object) -> np.ndarray:
    """Features (N, F) of images without a view."""
    assert isinstance(images, CachedFeatures)
    mapped, at = images.columns[0]
    return mapped[at].astype(np.float32)


def measure_errors(
    recipe: str, seed: int, choose: bool, settings: list[tuple[str, float]]
) -> list[float]:
    """Errors in percent, a setting each."""
    with tempfile.TemporaryDirectory() as place:
        loaded = load_recipe(recipe, [f"seed={seed}"])
        parts = make_parts(loaded, Accelerator(cpu=True), Path(place), None, lambda sentence: None)
        read_images(parts)
        train, given = take_plain(parts.pixels), parts.data.labels
        truth = parts.data.records.truth
        known = given >= 0
        if choose:
            asked, right = train[~known], truth[parts.data.train[~known]]
        else:
            asked, right = take_plain(parts.searched), truth[parts.scoring.rows]
    errors = []
    for form, c in settings:
        model = LogisticRegression(C=c, max_iter=2000)
        model.fit(transform_features(train[known], train, form), given[known])
        errors.append(
            100 * float(np.mean(model.predict(transform_features(asked, train, form)) != right))
        )
    return errors


def main() -> None:
    """Print the errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--form", choices=FORMS, default="raw")
    parser.add_argument("--c", type=float, default=1.0)
    parser.add_argument("--choose", action="store_true")
    given = parser.parse_args()
    settings = [(given.form, given.c)]
    if given.choose:
        settings = [(form, c) for form in FORMS for c in (0.01, 1.0)]
    table = [measure_errors(given.recipe, s, given.choose, settings) for s in seeds_of(given.seeds)]
    for (form, c), errors in zip(settings, np.array(table).T, strict=True):
        each = " ".join(f"{error:.2f}" for error in errors)
        print(
            f"{form}, C {c}: {errors.mean():.2f} +- {errors.std(ddof=1):.2f} ({each})", flush=True
        )


if __name__ == "__main__":
    main()
