"""Matching on 3,051 photographs of groceries: seconds, coverage, and how many pairs are right.

OMP_NUM_THREADS=1 python tests/benchmarks/matching.py [detector]     (3 minutes on two cores with sift)

Clusters are k-means' of a frozen EfficientNet-Lite0's features, of 59 images each as CUB's are. The second discovery sees features of
larger images and a new clustering, as after a round of training; its time is compared with that of
matching its new pairs alone.
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
from accelerate import Accelerator

from fewlabels import Embedder
from fewlabels.components.discovery.candidates import find_candidates
from fewlabels.components.discovery.kmeans import KMeans
from fewlabels.components.discovery.matching import Matching
from fewlabels.components.sources.parquet import Parquet
from fewlabels.contracts import Pool
from fewlabels.data.pixels import Pixels, Selected
from fewlabels.evaluation.discovery_quality import of_pairs
from fewlabels.evaluation.extract import extract_fields


def features(records, rows: np.ndarray, size: int) -> np.ndarray:
    """Of a frozen backbone, pooled."""
    weights = "weights/tf_efficientnet_lite0.safetensors"
    model = Embedder("tf_efficientnet_lite0", weights=weights, embedding_size=None, image_size=size)
    pixels = Pixels(records.images, rows, model.resize_to_square).decode_all(4e9)
    (found,) = extract_fields(Accelerator(cpu=True), model, pixels, size)
    return found


def main() -> None:
    records = Parquet(files="grocery/all.parquet").load()
    rows = np.flatnonzero(records.truth <= 40)
    truth = records.truth[rows]
    rng, given = np.random.default_rng(0), np.zeros(len(rows), bool)
    images = Selected(records.images, rows)
    with tempfile.TemporaryDirectory() as cache:
        detector = sys.argv[1] if len(sys.argv) > 1 else "sift"
        matching = Matching(detector=detector, cache=cache)  # type: ignore[arg-type]
        before: set[tuple[int, ...]] = set()
        for round, size in enumerate((112, 160)):
            seen = features(records, rows, size)
            pool = Pool(rows, seen, np.full(len(rows), -1), given, images=images)
            labels = KMeans(clusters=52).discover(pool, 0, rng).labels
            pairs = {tuple(p) for p in find_candidates(seen, labels, 10).tolist()}
            pool = Pool(rows, seen, labels, given, images=images)
            begin = time.perf_counter()
            found = matching.discover(pool, 0, rng).pairs
            seconds = time.perf_counter() - begin
            print(f"discovery {round + 1}: {seconds:.1f} s for {len(pairs - before):,} new pairs "
                  f"of {len(pairs):,}")  # fmt: skip
            assert found is not None
            told = of_pairs(found, labels, truth)
            print(", ".join(f"{name} {value:.4g}" for name, value in told.items()))
            before |= pairs
        begin = time.perf_counter()
        matching.discover(pool, 0, rng)
        print(f"the second again, nothing new: {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
