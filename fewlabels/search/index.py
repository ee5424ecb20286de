"""Index: a collection of images that is searched with images."""

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
"""Above as many images, an index of the kind ``auto`` is searched approximately.

faiss's "Guidelines to choose an index" advise to compare with every vector unless searches are many
enough to pay for the training. At this size and 128 dimensions a search takes one core 3 ms, and
training the time of some thousands (tests/benchmarks/index.py).
"""


class SearchResult(NamedTuple):
    """What each query found, best first: ids, and scores (Q, k) float32."""

    ids: list[list[str]]
    scores: np.ndarray


class Index:
    """Images by their embeddings, searched by cosine; each has an id.

    The kinds: ``flat`` compares with every image, exactly; ``ivf_pq`` with those that faiss's
    inverted file of product codes proposes, and scores these exactly; ``auto`` is flat up to
    100,000 images. Made by :meth:`build`, :meth:`from_embeddings` or :meth:`load`.
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
        """An index of all images, which are encoded by ``embedder``.

        Args:
            images: whatever :meth:`Embedder.encode` takes.
            ids: one an image. None: paths relative to ``images`` if that is a folder, the paths
                themselves if it is a sequence of files, else "0", "1" and so on.

        Raises:
            DataError: ids that are not one an image, not text or not different; no image; vectors
                that are not finite; or too few images for ``ivf_pq``.
            ModelError: an image that cannot be read.
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
        """An index of embeddings (N, D), which need not have unit length.

        Args:
            embedder: what made them, so that images can be searched and added; None: embeddings.

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
            ids: as in :meth:`build`; numbers go on from the length of the index.

        Raises:
            DataError: as :meth:`build`, or an id that is in the index; nothing is added then.
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
        """The ``k`` nearest images of each query; all of them in a smaller index.

        Scores are cosines. Equal ones are in the order of the index.

        Args:
            images: queries, whatever :meth:`Embedder.encode` takes, or embeddings (Q, D) or (D,).
            expand: search again from where so many nearest images pull the query (Radenovic et
                al., TPAMI 2018), each by its cosine to the power of ``alpha``. Cosines are then
                those of the moved query.
            rerank: order the ``shortlist`` nearest by the neighbours they share with the query,
                in memory for its square, with ``k1``, ``k2`` and ``blend`` (Zhong et al., CVPR
                2017). A score is then 1 minus the paper's blended distance.

        Raises:
            DataError: no query, of another width, not finite; or an option out of its range.
            ModelError: images, but no embedder, or one that has changed since the index was built.
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
        """Write the index into a folder; when that fails, the index that was there stays.

        Raises:
            ModelError: the folder holds a model.
        """
        contents = files.Contents(self.vectors, self.ids, self.kind, self.made_by, self._ivf_pq)
        files.write_index(Path(folder), contents)

    @classmethod
    def load(cls, folder: str | Path, embedder: Embedder | None = None) -> Self:
        """The index in a folder; its vectors stay there, so leave the folder where it is.

        Unpickles nothing.

        Args:
            embedder: the one that built it, to search images; None: embeddings alone.

        Raises:
            ModelError: no index, a newer or damaged one, or an embedder that did not build it.
        """
        contents = files.read_index(Path(folder))
        if embedder is not None:
            check_embedder(contents.embedder, embedder)
        return cls(contents, embedder)

    # ------------------------------------------------------------------------ inside

    def _embed_images(self, images: Any, batch_size: int) -> np.ndarray:
        """Unit vectors (Q, D) of images, or of embeddings."""
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
