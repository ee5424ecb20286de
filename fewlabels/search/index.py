"""Index: a collection of image embeddings that is searched by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Self

from fewlabels.data.decode import Images
from fewlabels.errors import DataError, ModelError
from fewlabels.models.embedder import Embedder
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.search import exact
from fewlabels.search import index_folder as files
from fewlabels.search.inputs import (
    check_embedder,
    check_ids,
    check_kind,
    name_images,
    normalize_embeddings,
)
from fewlabels.search.ivf_pq import IVFPQ
from fewlabels.search.rerank import expand_query, rerank_neighbours

LARGE = 100_000
"""With more images than this, an index of the kind ``auto`` is searched approximately.

faiss's "Guidelines to choose an index" advise to compare with every vector unless there are enough
searches to be worth the training. At this size and 128 dimensions a search takes 3 ms on one core,
and training takes as long as some thousands of searches (tests/benchmarks/index.py).
"""


class SearchResult(NamedTuple):
    """The k images found for each query, best first: their ids, and scores (Q, k) float32."""

    ids: list[list[str]]
    scores: np.ndarray


class Index:
    """Embeddings of images, each with an id, searched by cosine.

    There are three kinds. ``flat`` compares a query with every image, exactly. ``ivf_pq`` takes
    candidates from faiss's inverted file with product quantisation, and scores these exactly.
    ``auto`` is flat up to 100,000 images, ivf_pq above. Make an index with :meth:`build`,
    :meth:`from_embeddings` or :meth:`load`.
    """

    def __init__(self, contents: files.Contents, embedder: Embedder | None = None) -> None:
        self.vectors, self.ids, self.kind, self.made_by, self._ivf_pq = contents
        self.embedder = embedder

    @classmethod
    def build(
        cls,
        embedder: Embedder,
        images: Images,
        ids: Sequence[str] | None = None,
        *,
        kind: files.Kind = "auto",
        batch_size: Annotated[int, Ge(1)] = 32,
    ) -> Self:
        """Encode images with ``embedder``, and make an index of them.

        Args:
            images: whatever :meth:`Embedder.encode` takes.
            ids: one per image. None: paths relative to ``images`` if that is a folder, the paths
                themselves if it is a sequence of files, else "0", "1" and so on.

        Raises:
            DataError: ids are not one per image, not text or not unique; there is no image; a
                vector is not finite; or there are too few images for ``ivf_pq``.
            ModelError: an image cannot be read.
        """
        check_kind(kind)
        items, names = name_images(images, ids, ())
        vectors = embedder.encode(items, batch_size)
        return cls.from_embeddings(vectors, names, embedder=embedder, kind=kind)

    @classmethod
    def from_embeddings(
        cls,
        embeddings: np.ndarray,
        ids: Sequence[str] | None = None,
        *,
        embedder: Embedder | None = None,
        kind: files.Kind = "auto",
    ) -> Self:
        """Make an index of embeddings (N, D), which are normalised to unit length.

        Args:
            embedder: the one that made them. None: only embeddings can be searched and added.

        Raises:
            DataError: as :meth:`build`.
        """
        check_kind(kind)
        width = embedder.embedding_size if embedder else None
        made_by = fingerprint_model(embedder) if embedder else None
        vectors = normalize_embeddings(embeddings, width)
        index = cls(files.Contents(vectors[:0], [], kind, made_by, None), embedder)
        index._append_rows(vectors, ids)
        return index

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "ivf_pq" if self._ivf_pq else "flat"
        return f"Index({len(self)} images, {self.vectors.shape[1]} dimensions, {kind})"

    def add(
        self,
        images: Images,
        ids: Sequence[str] | None = None,
        *,
        batch_size: Annotated[int, Ge(1)] = 32,
    ) -> None:
        """Append images, or embeddings (N, D).

        Args:
            ids: as in :meth:`build`; numbered ids continue from the length of the index.

        Raises:
            DataError: as :meth:`build`, or an id is in the index already; then nothing is added.
            ModelError: as :meth:`search`.
        """
        items, names = name_images(images, ids, self.ids)
        self._append_rows(self._embed_images(items, batch_size), names)

    def search(
        self,
        images: Images,
        k: Annotated[int, Ge(1)] = 10,
        *,
        expand: Annotated[int, Ge(0)] = 0,
        alpha: Annotated[float, Ge(0)] = 3.0,
        rerank: bool = False,
        shortlist: Annotated[int, Ge(1)] = 100,
        k1: Annotated[int, Ge(1)] = 20,
        k2: Annotated[int, Ge(1)] = 6,
        blend: Annotated[float, Ge(0), Le(1)] = 0.3,
        batch_size: Annotated[int, Ge(1)] = 32,
    ) -> SearchResult:
        """Find the ``k`` nearest images of each query, or all if the index has fewer.

        Scores are cosines. Images with equal scores are in the order of the index.

        Args:
            images: queries, whatever :meth:`Embedder.encode` takes, or embeddings (Q, D) or (D,).
            expand: if not 0, add this many nearest images to the query, each weighted by its cosine
                to the power of ``alpha``, and search again with the sum (Radenovic et al., TPAMI
                2018). Scores are then cosines to that new query.
            rerank: order the ``shortlist`` nearest by the neighbours they share with the query,
                with ``k1``, ``k2`` and ``blend`` (Zhong et al., CVPR 2017). Memory grows with the
                square of ``shortlist``. A score is then 1 minus the paper's blended distance.

        Raises:
            DataError: no query, queries of another width or not finite, or an option out of range.
            ModelError: queries are images, but the index has no embedder, or its embedder has
                changed since the index was built; or an image cannot be read.
        """
        for name, value, least in (
            ("k", k, 1), ("expand", expand, 0), ("alpha", alpha, 0), ("shortlist", shortlist, 1),
            ("k1", k1, 1), ("k2", k2, 1), ("blend", blend, 0),
        ):  # fmt: skip
            if not value >= least:
                raise DataError(f"{name}={value}: give at least {least}")
        if not blend <= 1:
            raise DataError(f"blend={blend}: give at most 1")
        if rerank and shortlist < min(k, len(self)):
            raise DataError(f"shortlist={shortlist} cannot be re-ranked to k={k}; give at least k")
        queries = self._embed_images(images, batch_size)
        if len(queries) == 0:
            raise DataError("no image to search with; give at least one")
        if expand:
            near, cosines = self._find_nearest(queries, expand)
            moved = [
                expand_query(query, self.vectors[rows], weights, alpha)
                for query, rows, weights in zip(queries, near, cosines)
            ]
            queries = np.stack(moved)
        rows, scores = self._find_nearest(queries, shortlist if rerank else k)
        if rerank:
            for i, query in enumerate(queries):
                order, scores[i] = rerank_neighbours(query, self.vectors[rows[i]], k1, k2, blend)
                rows[i] = rows[i][order]
        ids = [[self.ids[row] for row in one[:k]] for one in rows]
        return SearchResult(ids, scores[:, :k].astype(np.float32))

    def save(self, folder: str | Path) -> None:
        """Write the index into a folder; if that fails, an index already there stays usable.

        Raises:
            ModelError: the folder holds a model.
        """
        contents = files.Contents(self.vectors, self.ids, self.kind, self.made_by, self._ivf_pq)
        files.write_index(Path(folder), contents)

    @classmethod
    def load(cls, folder: str | Path, embedder: Embedder | None = None) -> Self:
        """Load the index in a folder. Its vectors are read from disk, so do not move the folder.

        Nothing is unpickled.

        Args:
            embedder: the one that built the index. None: only embeddings can be searched.

        Raises:
            ModelError: there is no index, it is newer or damaged, or ``embedder`` did not build it.
        """
        contents = files.read_index(Path(folder))
        if embedder is not None:
            check_embedder(contents.embedder, embedder)
        return cls(contents, embedder)

    # ------------------------------------------------------------------------ inside

    def _embed_images(self, images: Any, batch_size: int) -> np.ndarray:
        """Unit vectors (Q, D) float32 of images, or of embeddings (Q, D) or (D,)."""
        if isinstance(images, Tensor) and images.ndim < 3:
            images = images.detach().float().cpu().numpy()
        width = self.vectors.shape[1]
        if isinstance(images, np.ndarray) and images.ndim < 3:
            return normalize_embeddings(np.atleast_2d(images), width)
        if self.embedder is None:
            raise ModelError(
                "this index has no embedder for images; give one to Index.load(folder, embedder), "
                "or search with embeddings (Q, D)"
            )
        check_embedder(self.made_by, self.embedder)  # it may have been trained since
        return normalize_embeddings(self.embedder.encode(images, batch_size), width)

    def _append_rows(self, vectors: np.ndarray, ids: Sequence[str] | None) -> None:
        if ids is None:
            ids = [str(len(self) + i) for i in range(len(vectors))]
        ids = ids if isinstance(ids, str) else list(ids)
        check_ids(ids, len(vectors), self.ids)
        everything = np.concatenate([self.vectors, vectors]) if len(self) else vectors
        large = self.kind == "ivf_pq" or (self.kind == "auto" and len(everything) > LARGE)
        # The number of lists should follow the square root of the index: fourfold is twice.
        if large and (self._ivf_pq is None or len(everything) > 4 * self._ivf_pq.trained):
            ivf_pq = IVFPQ.train(everything)
            ivf_pq.add(everything)
            self._ivf_pq = ivf_pq
        elif self._ivf_pq:
            self._ivf_pq.add(vectors)
        self.vectors, self.ids = everything, [*self.ids, *ids]

    def _find_nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(self))
        if self._ivf_pq:
            return self._ivf_pq.search(self.vectors, queries, k)
        return exact.search_exact(self.vectors, queries, k)
