"""Wrong labels of two discoveries on 5,000 CIFAR-10 images, from 4 labels a class.

    python benchmarks/cifar10.py [--seeds 0-2] [--sweep]

Needs CIFAR-10 and ``weights/tf_efficientnet_lite0.safetensors`` under ``$FEWLABELS_DATA``. Features
are those of that network at 112 pixels, as ImageNet made them; the first run computes them, a
minute of one CPU core, and keeps them in the temporary folder. After that it takes 5 seconds a
seed. A seed draws which images are labelled; 500 others are then found. Every discovery sees the
same, so differences are paired.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels import discovery, sources
from fewlabels.contracts import Pool
from fewlabels.runs.study import seeds_of
from fewlabels.runs.study_table import compare_with_first

IMAGES, LABELS, BUDGET = 5000, 4, 500
Row = tuple[str, dict[str, Any]]  # a discovery and its options
TUNED = {"neighbours": 100, "alpha": 0.9}  # the best of the sweep on seeds 100-104
ROWS: list[Row] = [
    ("confident", {}),
    ("label_propagation", {"mutual": True}),
    ("label_propagation", {}),
    ("label_propagation", TUNED),
]
SWEEP: list[Row] = [
    ("confident", {}),
    *(
        ("label_propagation", {"mutual": mutual, "neighbours": neighbours, "alpha": alpha})
        for mutual, neighbours, alpha in product((True, False), (20, 50, 100), (0.9, 0.99))
    ),
]


def features_and_truth() -> tuple[np.ndarray, np.ndarray]:
    """Pooled features (N, 1280) of the first training images, and their classes (N,)."""
    kept = Path(tempfile.gettempdir()) / "fewlabels-label-propagation-cifar10.npz"
    if not kept.exists():
        from fewlabels import Embedder

        records = sources.get("cifar10")().load()
        rows = np.flatnonzero(records.columns["split"] == "train")[:IMAGES]
        weights = "weights/tf_efficientnet_lite0.safetensors"
        model = Embedder(
            "tf_efficientnet_lite0", weights=weights, embedding_size=None, image_size=112
        )
        found = model.encode([records.images[row] for row in rows], normalize=False)
        np.savez(kept, features=found, truth=records.truth[rows])
    with np.load(kept) as arrays:
        return arrays["features"], arrays["truth"]


def discover(
    name: str, options: Mapping[str, Any], features: np.ndarray, truth: np.ndarray, seed: int
) -> tuple[int, float]:
    """How many labels were found, and percent of them that are not the true class."""
    rng = np.random.default_rng(seed)
    labels = np.full(len(truth), -1)
    for label in np.unique(truth):
        labels[rng.choice(np.flatnonzero(truth == label), LABELS, replace=False)] = label
    pool = Pool(np.arange(len(truth)), features, labels, labels >= 0, classes=10)
    found = discovery.get(name)(**options).discover(pool, BUDGET, rng)
    wrong = truth[found.indices] != found.labels
    return len(wrong), 100 * float(wrong.mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0-2", help="as in 0-9 or 100-104")
    parser.add_argument("--sweep", action="store_true", help="options of label_propagation")
    given = parser.parse_args()
    seeds, rows = seeds_of(given.seeds), SWEEP if given.sweep else ROWS
    features, truth = features_and_truth()
    print("| | found | wrong of these, % | to confident [95 %] | each seed |")
    print("| --- | --- | --- | --- | --- |")
    for balance, (name, options) in product((False, True), rows):
        options = {**options, "balance": balance}
        found = {seed: discover(name, options, features, truth, seed) for seed in seeds}
        wrong = {seed: share for seed, (_, share) in found.items()}
        if name == "confident":
            first = wrong
        told, apart = compare_with_first(wrong, first), ""
        if told.difference is not None:
            apart = f"{told.difference:+.2f} [{told.low:+.2f}, {told.high:+.2f}]"
        title = ", ".join([name, *(f"{key} {value}" for key, value in options.items())])
        count = np.mean([number for number, _ in found.values()])
        each = " / ".join(f"{share:.1f}" for share in wrong.values())
        print(f"| {title} | {count:.0f} | {told.mean:.2f} +- {told.sd:.2f} | {apart} | {each} |")


if __name__ == "__main__":
    main()
