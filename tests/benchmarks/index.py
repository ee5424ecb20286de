"""An index of 100,000 embeddings: seconds to build and to search, recall, peak memory.

OMP_NUM_THREADS=1 python tests/benchmarks/index.py     (a minute on one core)

The embeddings, of 128 dimensions, lie around 5,000 centres. Recall@10 is the share of the 10 nearest that the
approximate index finds. Peak memory is that of the process, all before included.
"""

from __future__ import annotations

import resource
import tempfile
import time

import numpy as np

from fewlabels import Index
from fewlabels.search.index import SearchResult

IMAGES, QUERIES, WIDTH, CENTRES = 100_000, 1_000, 128, 5_000


def embeddings(spread: float) -> np.ndarray:
    """Images and queries (N + Q, D)."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, WIDTH), np.float32)
    noise = rng.standard_normal((IMAGES + QUERIES, WIDTH), np.float32)
    return centres[rng.integers(0, CENTRES, len(noise))] + np.float32(spread) * noise


def report(what: str, begin: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {what}: {time.perf_counter() - begin:.2f} s, peak {peak:.0f} MB", flush=True)


def search(index: Index, queries: np.ndarray, what: str, **options: bool | int) -> SearchResult:
    begin = time.perf_counter()
    found = index.search(queries, 10, **options)  # type: ignore[arg-type]
    report(f"{what}, {len(queries)} queries", begin)
    return found


def main() -> None:
    for spread in (0.5, 1.0):
        print(f"spread {spread}")
        points = embeddings(spread)
        images, queries = points[:IMAGES], points[IMAGES:]
        report("embeddings made", time.perf_counter())
        found = {}
        for kind in ("flat", "ivf_pq"):
            begin = time.perf_counter()
            index = Index.from_embeddings(images, kind=kind)  # type: ignore[arg-type]
            report(f"{kind} built", begin)
            found[kind] = search(index, queries, f"{kind} searched")
            begin = time.perf_counter()
            for query in queries[:100]:
                index.search(query, 10)
            report(f"{kind} searched, 100 queries one by one", begin)
        pairs = zip(found["flat"].ids, found["ivf_pq"].ids)
        print(f"  recall@10 {np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]):.4f}")
    search(index, queries, "ivf_pq expanded by 5", expand=5)
    search(index, queries[:200], "ivf_pq re-ranked", rerank=True)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        index.save(folder)
        report("saved", begin)
        begin = time.perf_counter()
        Index.load(folder)
        report("loaded", begin)


if __name__ == "__main__":
    main()
