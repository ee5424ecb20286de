"""Approximate search: candidates by an inverted file of product codes, ranked by exact cosine."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import faiss
import numpy as np
from faiss.contrib.inspect_tools import get_invlist, get_pq_centroids
from typing_extensions import Self

from fewlabels.errors import DataError, FewLabelsError, ModelError
from fewlabels.files import open_regular
from fewlabels.search import exact
from fewlabels.search.npy_file import read_array, read_shape

TYPES: dict[str, type[np.generic]] = {
    "centres": np.float32,
    "books": np.float32,
    "lists": np.int64,
    "codes": np.uint8,
}
"""The arrays in the file of an index."""

LEAST = 1024
"""The least number of training vectors: four for each of the 256 centres of a code."""


class IVFPQ:
    """faiss's inverted file with product quantisation (Jegou et al., TPAMI 2011).

    Following faiss's "Guidelines to choose an index", there are 4 sqrt(N) lists, but no more than
    leave 39 training vectors for each. A code has one byte per 4 dimensions, at most 64 bytes. A
    search visits an eighth of the lists (at least 16), since recall is lost in unvisited lists.

    Args:
        engine: a trained faiss index.
        trained: number of vectors in the index when it was trained.
    """

    def __init__(self, engine: faiss.IndexIVFPQ, trained: int) -> None:
        self.engine, self.trained = engine, trained
        engine.nprobe = min(engine.nlist, max(16, engine.nlist // 8))

    @classmethod
    def train(cls, vectors: np.ndarray) -> Self:
        """Learn lists and codes from unit vectors (N, D); the vectors are not added.

        Raises:
            DataError: there are fewer than 1,024 vectors.
        """
        count, width = vectors.shape
        if count < LEAST:
            raise DataError(
                f"an ivf_pq index learns from at least {LEAST} images, got {count}; "
                "use kind='flat', which is exact and as fast at this size"
            )
        lists = min(math.ceil(4 * math.sqrt(count)), count // 39)
        span = math.ceil(width / min(64, math.ceil(width / 4)))  # dimensions to a byte
        engine = _make_engine(lists, math.ceil(width / span), span)
        engine.cp.spherical = True  # the long centres would take in too much
        engine.cp.niter = engine.pq.cp.niter = 10
        engine.pq.cp.min_points_per_centroid = LEAST // 256  # where faiss would warn
        engine.pq.cp.max_points_per_centroid = 64
        sample = np.random.default_rng(0).permutation(count)[: max(64 * lists, 64 * 256)]
        engine.train(_pad_width(vectors[np.sort(sample)], engine.d))
        return cls(engine, count)

    def add(self, vectors: np.ndarray) -> None:
        """Append unit vectors (N, D)."""
        for start in range(0, len(vectors), 65_536):  # may lie on disk and exceed memory
            self.engine.add(_pad_width(vectors[start : start + 65_536], self.engine.d))

    def search(
        self, vectors: np.ndarray, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As :func:`exact.search_exact`, but among ``10 * k`` candidates only, at least 100.

        A query with fewer than ``k`` candidates is searched exactly, and so are all queries if the
        candidates would be more than half of the vectors.
        """
        wide = max(10 * k, 100)
        if 2 * wide > len(vectors):
            return exact.search_exact(vectors, queries, k)
        proposed = self.engine.search(_pad_width(queries, self.engine.d), wide)[1]  # -1: none
        found = []
        for query, rows in zip(queries, proposed):
            rows = rows[rows >= 0]
            if len(rows) >= k:
                found.append(exact.rank_rows(vectors, query, rows, k))
            else:
                found.append(tuple(part[0] for part in exact.search_exact(vectors, query[None], k)))
        return np.stack([rows for rows, _ in found]), np.stack([scores for _, scores in found])

    def write_file(self, file: Path) -> None:
        """Write plain arrays (.npz); faiss's format may name other files, opened for writing."""
        engine = self.engine
        lists = np.empty(engine.ntotal, np.int64)
        codes = np.empty((engine.ntotal, engine.pq.M), np.uint8)
        for number in range(engine.nlist):
            rows, own = get_invlist(engine.invlists, number)
            lists[rows], codes[rows] = number, own
        centres = engine.quantizer.reconstruct_n(0, engine.nlist)
        books = get_pq_centroids(engine.pq)  # (M, 256, span)
        np.savez(file, centres=centres, books=books, lists=lists, codes=codes)

    @classmethod
    def read_file(cls, file: Path, count: int, width: int, trained: int) -> Self:
        """Read the index of ``count`` vectors with ``width`` dimensions from a file.

        Raises:
            ModelError: the file is missing or damaged, or its shapes do not fit the vectors.
        """
        try:
            centres, books, lists, codes = _read_arrays(file, count, width, trained)
        except ModelError:
            raise
        except FewLabelsError as error:  # which names the file
            raise ModelError(str(error)) from error
        except Exception as error:  # a zip file fails to be read in many ways
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(f"{file}: cannot be read: {reason}; copy it again") from error
        number, (pieces, _, span) = len(centres), books.shape
        finite = np.isfinite(centres).all() and np.isfinite(books).all()
        if not finite or not 0 <= lists.min() <= lists.max() < number:
            raise _describe_misfit(file)
        engine = _make_engine(number, pieces, span)
        engine.quantizer.add(centres)
        faiss.copy_array_to_vector(books.ravel(), engine.pq.centroids)
        order = np.argsort(lists, kind="stable")
        for own in np.split(order, np.cumsum(np.bincount(lists, minlength=number))[:-1]):
            if len(own):
                rows, own_codes = own.astype(np.int64), np.ascontiguousarray(codes[own])
                engine.invlists.add_entries(
                    int(lists[own[0]]), len(own), faiss.swig_ptr(rows), faiss.swig_ptr(own_codes)
                )
        engine.ntotal, engine.is_trained = count, True
        return cls(engine, trained)


def _read_arrays(file: Path, count: int, width: int, trained: int) -> list[np.ndarray]:
    """The arrays of a file, in the order of TYPES; none is unpacked before its shape is checked."""
    with open_regular(file) as stream, ExitStack() as opened:
        if os.fstat(stream.fileno()).st_size > 8 * count * (width + 64) + 2**20:
            raise _describe_misfit(file)
        packed = opened.enter_context(ZipFile(stream))
        members = [opened.enter_context(packed.open(f"{name}.npy")) for name in TYPES]
        shapes = [read_shape(each, dtype) for each, dtype in zip(members, TYPES.values())]
        (number, *_), (pieces, _, span), *_ = shapes
        wanted = [(number, pieces * span), (pieces, 256, span), (count,), (count, pieces)]
        fits = width <= pieces * span < width + 64 and 0 < number <= trained <= count
        if not fits or shapes != wanted:
            raise _describe_misfit(file)
        return [read_array(*each) for each in zip(members, shapes, TYPES.values())]


def _describe_misfit(file: Path) -> ModelError:
    return ModelError(f"{file}: does not fit the vectors beside it; copy the folder again")


def _make_engine(lists: int, pieces: int, span: int) -> Any:
    """An untrained faiss index whose codes have ``pieces`` bytes, each for ``span`` dimensions."""
    width = pieces * span
    coarse = faiss.IndexFlatIP(width)
    return faiss.IndexIVFPQ(coarse, width, lists, pieces, 8, faiss.METRIC_INNER_PRODUCT)


def _pad_width(vectors: np.ndarray, width: int) -> np.ndarray:
    """Append zero columns up to ``width``, a multiple of the span; inner products do not change."""
    rows = np.zeros((len(vectors), width), np.float32)
    rows[:, : vectors.shape[1]] = vectors
    return rows
