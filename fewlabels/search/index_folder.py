"""The folder of a saved index: config.json says which save's files to read, and is replaced last.

So a killed save leaves the old index intact. And an index that reads its vectors from a folder can
be saved to the same folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge
from pydantic import Field

from fewlabels.errors import DataError, FewLabelsError, ModelError
from fewlabels.files import new_file, open_regular, refuse_unwritable
from fewlabels.hub.model_files import CONFIG
from fewlabels.models.saved_folder import SavedConfig, read_config
from fewlabels.models.saved_folder import read_kind as kind_of
from fewlabels.search.ivf_pq import IVFPQ
from fewlabels.search.npy_file import map_array

Kind = Literal["auto", "flat", "ivf_pq"]
FORMAT: Literal[1] = 1
LONGEST_ID, MOST_ID_BYTES = 4096, 2**32
"""Bytes that an id may have on average, and all ids together, as they are written to JSON."""
UNREADABLE = (FewLabelsError, OSError, ValueError, RecursionError, MemoryError)
"""What opening and reading a file raises that is damaged, or made to do harm."""
_OURS = re.compile(r"(vectors-(\d+)\.npy|ids-(\d+)\.json|ivf_pq-(\d+)\.npz)")


class IndexConfig(SavedConfig):
    """The config.json of an index; ``save`` counts saves to the folder, and is in file names."""

    format: Literal[1] = FORMAT
    kind: Literal["index"] = "index"
    save: Annotated[int, Ge(1)]
    images: Annotated[int, Ge(1)]
    embedding_size: Annotated[int, Ge(1)]
    embedder: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    search: Kind
    trained: Annotated[int, Ge(1)] | None


class Contents(NamedTuple):
    """The content of an index: unit vectors (N, D) and N ids; ``ivf_pq`` is None for a flat one."""

    vectors: np.ndarray
    ids: list[str]
    search: Kind
    embedder: str | None
    ivf_pq: IVFPQ | None


def check_place(folder: Path) -> None:
    """Check that an index can be written to a folder, before the index is built.

    Raises:
        ModelError: the folder holds something else of this package, such as a model.
        FewLabelsError: the folder is not writable.
    """
    refuse_unwritable(folder / CONFIG)
    if (folder / CONFIG).exists() and kind_of(folder) != "index":
        raise ModelError(f"{folder}: its {CONFIG} is not of an index; save to a folder of its own")


def write_index(folder: Path, contents: Contents) -> None:
    """Write an index to a folder; if that fails, an index already there is kept.

    Raises:
        DataError: the ids are too long.
        ModelError: the folder holds something else of this package, such as a model.
    """
    check_place(folder)
    texts = json.dumps(contents.ids, indent=0).encode()
    if len(texts) > _bound_ids(len(contents.ids)):
        raise DataError(
            f"ids of {len(texts):,} bytes for {len(contents.ids):,} images, too long to be read "
            f"again; give ids of at most {LONGEST_ID:,} bytes"
        )
    folder.mkdir(parents=True, exist_ok=True)
    save = 1 + max((_number_of_save(path) for path in folder.iterdir()), default=0)
    oldest = save  # such files of before the first index may be a person's own
    with contextlib.suppress(FewLabelsError, OSError):
        oldest = read_config(folder / CONFIG, IndexConfig).save
    vectors, ids, ivf_pq = _name_files(folder, save)
    np.save(vectors, contents.vectors)
    ids.write_bytes(texts)
    if contents.ivf_pq:
        contents.ivf_pq.write_file(ivf_pq)
    config = IndexConfig(
        save=save,
        images=len(contents.ids),
        embedding_size=contents.vectors.shape[1],
        embedder=contents.embedder,
        search=contents.search,
        trained=contents.ivf_pq.trained if contents.ivf_pq else None,
    )
    with new_file(folder / CONFIG) as draft:  # no name that a link might have in the folder
        draft.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        if oldest <= _number_of_save(path) < save:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                path.unlink()


def read_index(folder: Path) -> Contents:
    """Read the index in a folder; its vectors are memory-mapped.

    Raises:
        ModelError: there is no index, its format is newer, or a file is damaged.
    """
    if not os.path.isfile(folder / CONFIG):  # also of a name that no file can have
        raise ModelError(f"{folder}: no index here; give a folder that Index.save wrote")
    config = read_config(folder / CONFIG, IndexConfig)
    vectors_file, ids_file, ivf_pq_file = _name_files(folder, config.save)
    shape = (config.images, config.embedding_size)
    try:
        with open_regular(vectors_file) as stream:
            vectors = map_array(stream, shape, np.float32)
    except UNREADABLE as error:
        raise _describe_damage(vectors_file, error) from error
    try:
        ids = _read_ids(ids_file, config.images)
    except UNREADABLE as error:
        raise _describe_damage(ids_file, error) from error
    ivf_pq = config.trained and IVFPQ.read_file(ivf_pq_file, *shape, trained=config.trained)
    return Contents(vectors, ids, config.search, config.embedder, ivf_pq or None)


def _read_ids(file: Path, images: int) -> list[str]:
    """The ids of this many images, from a file that is no larger than they need."""
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > _bound_ids(images):
            raise ValueError(f"too large for {images:,} ids")
        ids = json.loads(stream.read().decode("utf-8"))
    texts = isinstance(ids, list) and all(isinstance(name, str) for name in ids)
    if not texts or len(set(ids)) != len(ids) or len(ids) != images:
        raise ValueError(f"not {images} different ids")
    return ids


def _bound_ids(images: int) -> int:
    """Bytes that the ids of images may have in their file."""
    return min(LONGEST_ID * images, MOST_ID_BYTES)


def _name_files(folder: Path, save: int) -> tuple[Path, Path, Path]:
    names = (f"vectors-{save}.npy", f"ids-{save}.json", f"ivf_pq-{save}.npz")
    vectors, ids, ivf_pq = (folder / name for name in names)
    return vectors, ids, ivf_pq


def _number_of_save(path: Path) -> int:
    """The number of the save that wrote a file; 0 if the file is not of an index."""
    ours = _OURS.fullmatch(path.name)
    return int(next(filter(None, ours.groups()[1:4]))) if ours else 0


def _describe_damage(file: Path, reason: Exception) -> ModelError:
    if isinstance(reason, FewLabelsError):  # which names the file
        return ModelError(str(reason))
    return ModelError(f"{file}: damaged: {reason}; copy the folder again")
