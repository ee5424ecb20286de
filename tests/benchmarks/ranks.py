"""Memory and time of confined entropy's ranks: 50,000 x 4,000 samples of 128 features.

To stay under 1 GB beside the features, and under 3 times the time of the distance matrix product plus
one sort. Half a minute on one core; run by hand:

    OMP_NUM_THREADS=1 python tests/benchmarks/ranks.py
"""

import resource
import time

import numpy as np

from fewlabels.discovery.confined_entropy import soft_labels

UNLABELLED, LABELLED, WIDTH, CLASSES, ROWS = 50_000, 4_000, 128, 10, 2_000


def bare(features, labelled):
    """The product and one sort, in blocks; nothing else."""
    for begin in range(0, len(features), ROWS):
        distance = features[begin : begin + ROWS] @ labelled.T
        distance.sort(axis=1)


def seconds(what):
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def peak():
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


rng = np.random.default_rng(0)
features = rng.normal(size=(UNLABELLED, WIDTH)).astype(np.float32)
labelled = rng.normal(size=(LABELLED, WIDTH)).astype(np.float32)
labels = rng.integers(0, CLASSES, LABELLED)
before = peak()
ours = [seconds(lambda: soft_labels(features, labelled, labels, CLASSES, 0.1)) for _ in range(3)]
memory = peak() - before
theirs = [seconds(lambda: bare(features, labelled)) for _ in range(3)]
print(f"ranks and votes {min(ours):.2f} s, peak {memory:.0f} MiB beside the features")
print(f"product and sort {min(theirs):.2f} s; ratio {min(ours) / min(theirs):.2f}")
