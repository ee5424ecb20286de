"""Checks of what is given to an index: images and their ids, embeddings, an embedder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from fewlabels.data.decode import Images, files_of
from fewlabels.errors import DataError, ModelError, first_few
from fewlabels.models.embedder import Embedder
from fewlabels.models.fingerprint import fingerprint_model
from fewlabels.search.index_folder import Kind


def name_images(
    images: Any, ids: Sequence[str] | None, known: Collection[str]
) -> tuple[Images, Sequence[str] | None]:
    """Return the images and their ids: those given, else names of files, else None.

    Ids are checked here, before the images are encoded, which may take hours.

    Raises:
        DataError: as :func:`check_ids`.
        ModelError: a folder has no images.
    """
    names: list[str] | None = None
    if isinstance(images, (str, Path)):
        root = Path(images)
        names = [str(images)]
        if root.is_dir():
            images = files_of(root)
            names = [file.relative_to(root).as_posix() for file in images]
    elif isinstance(images, Sequence) and all(isinstance(item, (str, Path)) for item in images):
        names = [str(item) for item in images]
    if ids is None:
        ids = names
    if ids is not None:
        ids = ids if isinstance(ids, str) else list(ids)
        # How many an iterator holds is seen in the end.
        check_ids(ids, len(images) if isinstance(images, (list, tuple)) else len(ids), known)
    return images, ids


def check_kind(kind: str) -> None:
    """Check that ``kind`` is a kind of index.

    Raises:
        DataError: it is not.
    """
    if kind not in get_args(Kind):
        raise DataError(f"kind {kind!r}: no such index; choose from {', '.join(get_args(Kind))}")


def check_ids(ids: Sequence[str], count: int, known: Collection[str]) -> None:
    """Check that ids are text, one per image, and unique, also against ``known`` ids.

    Raises:
        DataError: they are not, or ``count`` is 0.
    """
    if count == 0:
        raise DataError("no image to index; give at least one")
    if isinstance(ids, str) or len(ids) != count:
        number = "one text" if isinstance(ids, str) else len(ids)
        raise DataError(f"{number} for ids of {count} images; give a sequence of one id an image")
    wrong = next((name for name in ids if not isinstance(name, str)), None)
    if wrong is not None:
        raise DataError(f"id {wrong!r}: ids are text, got {type(wrong).__name__}; give str(id)")
    seen = set(known)
    twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise DataError(
            f"ids that are taken already: {first_few(twice, 3)}; give each image an id of its own"
        )


def normalize_embeddings(embeddings: Any, width: int | None) -> np.ndarray:
    """Scale embeddings (N, D) to unit length, as float32; rows of zeros stay zero (cosine 0).

    Args:
        width: the expected D; None: any.

    Raises:
        DataError: the shape is another, the values are not floats, or one is not finite.
    """
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.dtype.kind != "f" or rows.shape[1] == 0:
        raise DataError(f"embeddings are floats (N, D), got {rows.dtype} of shape {rows.shape}")
    if width not in (None, rows.shape[1]):
        raise DataError(
            f"embeddings have {rows.shape[1]} dimensions, expected {width}; "
            "encode them with the embedder that made the index"
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise DataError(
            f"embeddings that are not finite: rows {first_few(bad.tolist(), 3)}; "
            "leave these images out, or use an embedder whose training did not diverge"
        )
    vectors = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), 65_536):  # float64 for lengths beyond float32's, a part a time
        part = rows[start : start + 65_536].astype(np.float64)
        # By a power of two, which changes no bit but of numbers whose squares are no float64.
        part = np.ldexp(part, -np.frexp(np.abs(part).max(1, keepdims=True))[1])
        length = np.linalg.norm(part, axis=1, keepdims=True)
        vectors[start : start + 65_536] = part / np.where(length > 0, length, 1)
    return vectors


def check_embedder(made_by: str | None, embedder: Embedder) -> None:
    """Check that an embedder is the one that made an index.

    Args:
        made_by: the fingerprint of the embedder that made it; None: unknown.

    Raises:
        ModelError: it is another embedder, or ``made_by`` is None.
    """
    if made_by is None:
        raise ModelError(
            "this index was made of embeddings, and does not know which embedder made them; search "
            "with embeddings, or make it with Index.from_embeddings(..., embedder=...)"
        )
    if fingerprint_model(embedder) != made_by:
        raise ModelError(
            "this embedder is not the one that made the index (its weights or preprocessing "
            "differ), so their embeddings cannot be compared; load that one, or build the index "
            "again with this one"
        )
