"""The parquet file of a folder's embeddings: its columns, and the stamp in its metadata."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge
from pydantic import BaseModel, ConfigDict

from fewlabels.data.decode import files_of
from fewlabels.data.find_images import refuse_undecodable_names
from fewlabels.errors import DataError, FewLabelsError
from fewlabels.files import open_regular, replace_when_whole

STAMP = b"fewlabels"
"""The key of the stamp in the metadata of the parquet schema."""

MOST_PACKED = 64
"""How many times larger than its file a table may be; equal rows are packed to a twentieth."""

BATCH = 4096
_DAMAGED = (FewLabelsError, OSError, ValueError, pa.ArrowException)


class Stamp(BaseModel):
    """Fingerprints of the model and the folder's images, images per part, and images left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[1] = 1
    model: str
    files: str
    shard: Annotated[int, Ge(1)]
    unreadable: list[str] = []


def list_images(folder: Path, say: Callable[[str], None] = warnings.warn) -> tuple[list[str], str]:
    """The images below a folder in sorted order, relative to it, and a fingerprint of them.

    The fingerprint is of names, sizes and times of change; no image is read.

    Args:
        say: is told what was passed over that looks like an image; a warning if left out.

    Raises:
        DataError: no folder, or a name that is not UTF-8.
        ModelError: no image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that holds your images")
    names, digest = [], hashlib.sha256()
    for file in files_of(folder, say):
        name, seen = file.relative_to(folder).as_posix(), file.stat()
        refuse_undecodable_names(folder, [name])
        digest.update(json.dumps([name, seen.st_size, seen.st_mtime_ns]).encode())
        names.append(name)
    return names, digest.hexdigest()


def write_embeddings(
    file: Path, draft: Path, names: Sequence[str], vectors: np.ndarray, stamp: Stamp
) -> None:
    """Write names and their embeddings (N, D) float32 to ``draft``, then rename it to ``file``.

    Raises:
        OSError: the file cannot be written; an existing ``file`` is then unchanged.
    """
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"file": pa.array(names, pa.string()), "embedding": values})
    pq.write_table(add_stamp(table, stamp), draft, use_dictionary=False)
    replace_when_whole(draft, file)


def read_stamp(file: Path) -> Stamp | None:
    """Read the stamp of a file; None if the file does not exist, is damaged or has no stamp."""
    try:
        with open_regular(file) as stream:
            metadata = pq.read_schema(stream).metadata or {}
        return Stamp.model_validate_json(metadata.get(STAMP, b""))
    except _DAMAGED:
        return None


def read_embeddings(file: Path) -> tuple[list[str], np.ndarray, Stamp]:
    """Read the names, their embeddings (N, D) float32, and the stamp of a file of embeddings.

    Raises:
        DataError: the file does not exist, is damaged or has no stamp.
    """
    stamp = read_stamp(file)
    if stamp is None:
        raise DataError(f"{file}: no file of embeddings; give one that fewlabels embed wrote")
    table = read_table(file)
    width = table.schema.field("embedding").type.list_size
    chunks = [np.empty((0, width), np.float32)]
    chunks += [chunk.flatten().to_numpy().reshape(-1, width) for chunk in table["embedding"].chunks]
    return table["file"].to_pylist(), np.concatenate(chunks), stamp


def read_table(file: Path) -> pa.Table:
    """Read a whole file of embeddings, and check its columns.

    Raises:
        DataError: the file is damaged, has other columns or missing values, or unpacks to far more
            than its size.
    """
    try:
        with open_regular(file) as stream, pq.ParquetFile(stream) as opened:
            schema = opened.schema_arrow
            if schema.names != ["file", "embedding"] or schema.types != [
                pa.string(),
                pa.list_(pa.float32(), getattr(schema.types[1], "list_size", 1)),
            ]:
                raise ValueError(f"its columns are {', '.join(map(str, schema))}")
            largest = MOST_PACKED * os.fstat(stream.fileno()).st_size
            table = pa.Table.from_batches(_read_batches(opened, largest), schema)
        numbers = [chunk.flatten() for chunk in table["embedding"].chunks]
        if any(each.null_count for each in (*table.columns, *numbers)):
            raise ValueError("a value is missing")
    except _DAMAGED as error:
        raise DataError(f"{file}: damaged: {error}; remove it and embed again") from error
    return table


def _read_batches(opened: pq.ParquetFile, largest: int) -> Iterator[pa.RecordBatch]:
    """The rows of a file, as long as they are no more than so many bytes."""
    size = 0
    for batch in opened.iter_batches(BATCH):
        size += batch.nbytes
        if size > largest:
            raise ValueError("it unpacks to far more than a file of its size holds")
        yield batch


def add_stamp(table: pa.Table, stamp: Stamp) -> pa.Table:
    """Return the table with the stamp in its metadata."""
    return table.replace_schema_metadata({STAMP: stamp.model_dump_json().encode()})
