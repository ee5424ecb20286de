"""Time and memory of confined entropy over 50,000 x 4,000 samples of 128 features, ten classes.

    OMP_NUM_THREADS=1 python tests/benchmarks/ranks.py [PAIRS]

The whole discovery (``confined: false``, so that all 50,000 are ranked), in turn with the product
of the same matrices and one ``np.sort`` of its rows, in blocks of as many rows; the median of the
paired ratios of processor time, which is to stay below 3. Memory is the resident set of this process,
looked at every few milliseconds, beyond what it was before; to stay below 1 GB. Half a minute for
three pairs on one core; Linux.
"""

import os
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np

from fewlabels.components.discovery.confined_entropy import ConfinedEntropy
from fewlabels.contracts import Pool

UNLABELLED, LABELLED, WIDTH, CLASSES, ROWS = 50_000, 4_000, 128, 10, 2_396


def bare(features, labelled):
    """The product and one sort, in blocks; nothing else."""
    for begin in range(0, len(features), ROWS):
        distance = features[begin : begin + ROWS] @ labelled.T
        distance.sort(axis=1)


def seconds(what, *given):
    """Of processor time that ``what`` takes."""
    begin = time.process_time()
    what(*given)
    return time.process_time() - begin


def resident():
    """MiB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def additional(what):
    """MiB that ``what`` held at most, beyond what was held before."""
    before = highest = resident()
    ended = threading.Event()

    def watch():
        nonlocal highest
        while not ended.wait(0.003):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    what()
    ended.set()
    watcher.join()
    return highest - before


if __name__ == "__main__":
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rng = np.random.default_rng(0)
    features = rng.standard_normal((UNLABELLED + LABELLED, WIDTH), dtype=np.float32)
    labels = np.full(len(features), -1)
    labels[:LABELLED] = rng.integers(0, CLASSES, LABELLED)
    pool = Pool(np.arange(len(features)), features, labels, labels >= 0)

    def ours():
        """All unlabelled samples are ranked; 4,000 of them are taken."""
        ConfinedEntropy(confined=False).discover(pool, LABELLED, np.random.default_rng(0))

    memory = additional(ours)  # the first call: nothing freed before can hide what it takes
    times = [
        (seconds(ours), seconds(bare, features[LABELLED:], features[:LABELLED]))
        for _ in range(pairs)
    ]
    ratios = [mine / theirs for mine, theirs in times]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"discovery {mine:.2f} s, product and sort {theirs:.2f} s")
    print(f"ratio {statistics.median(ratios):.2f} ({each}); {memory:.0f} MiB more at most")
