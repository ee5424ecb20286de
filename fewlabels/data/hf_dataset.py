"""Data sets of the datasets library as Records: images read lazily, plain columns kept."""

from __future__ import annotations

import glob
import io
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.class_names import number_labels
from fewlabels.data.lazy_images import LazyImages, name_image
from fewlabels.errors import DataError, first_few, make_printable, shorten, suggest_nearest
from fewlabels.files import find_path

LABELS = ("label", "labels", "fine_label", "item_id", "class", "target")


def open_dataset(
    name: str,
    config: str | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
    **options: Any,
) -> Any:
    """Call ``datasets.load_dataset``; its errors become a DataError of one sentence.

    Args:
        name: a data set of the Hub, a folder here, or the kind of the files.
        files: by split.
    """
    import datasets

    if files is not None:  # which the library reads as patterns
        options["data_files"] = {
            part: [glob.escape(str(file)) for file in own] for part, own in files.items()
        }
    elif os.path.isdir(name) and glob.has_magic(os.path.abspath(os.path.realpath(name))):
        raise DataError(
            f"{name}: a data set whose path has *, ? or [ is not read, as they stand for other "
            "letters there; rename the folder"
        )
    try:
        return datasets.load_dataset(name, config, **options)
    except Exception as error:  # the files of a stranger make it fail in any way
        reason = shorten(_describe_cause(error))
        if files is not None or os.path.isdir(name):
            own = first_few([file for part in (files or {}).values() for file in part], 3)
            said = f"{own or name}: not read as a data set ({reason}); mend it, or copy it again"
        else:
            said = (
                f"data set {name!r} cannot be opened ({reason}); check its name and revision, and "
                "that there is a network, or a copy in the Hugging Face cache"
            )
        raise DataError(said) from error


def _describe_cause(error: BaseException) -> str:
    """What an exception says, or else what caused it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("An error occurred while gen")]
    if told or error.__cause__ is None:
        return " ".join(told) or type(error).__name__
    return _describe_cause(error.__cause__)


def from_dataset(
    parts: Mapping[str, Any],
    image: str | None = None,
    label: str | None = None,
    keep_split: bool = True,
    inside: Sequence[Path] = (),
) -> Records:
    """Records of the splits of one data set.

    Args:
        image, label: column names; None: the column that is an image, and the usual label names.
        keep_split: add the column ``split``.
        inside: the folders in which a cell may name a file; none: cells hold bytes. A table may be
            a stranger's, and would otherwise choose files of this machine to be trained on.

    Raises:
        DataError: a column that is not there, that has no images, or that names files.
    """
    from datasets import ClassLabel, Image, Value, concatenate_datasets

    data = concatenate_datasets(list(parts.values()))
    features = data.features
    known = ", ".join(features)
    for name in (image, label):
        if name is not None and name not in features:
            raise DataError(
                f"data: there is no column {name!r}{suggest_nearest(name, features)} (all: {known})"
            )
    if image is None:
        found = [name for name, kind in features.items() if isinstance(kind, Image)]
        if len(found) != 1:
            raise DataError(
                f"data.image: {len(found)} columns hold images; name one (all: {known})"
            )
        image = found[0]
    if label is None:
        label = next((name for name in LABELS if name in features), None)
    data = keep_undecoded(data, image)
    if not inside:
        refuse_named_files(data, image)

    truth: np.ndarray = np.full(len(data), -1)
    classes: tuple[str, ...] = ()
    if label is not None:
        values = read_column(data, label)
        truth, classes = number_classes(values, getattr(features[label], "names", None), label)
    columns = {
        name: np.array(read_column(data, name))
        for name, kind in features.items()
        if name not in (image, label) and isinstance(kind, (Value, ClassLabel))
    }
    if keep_split:
        columns["split"] = np.repeat(list(parts), [len(part) for part in parts.values()])
    read = partial(_get_cell, data.select_columns([image]), image, inside)
    images = LazyImages(len(data), read, partial(name_image, "row ", None))
    return Records(images, truth, classes, columns, [f"row {i}" for i in range(len(data))])


def keep_undecoded(data: Any, column: str) -> Any:
    """The data set with images as they are stored: each a mapping of bytes and path.

    What the library `datasets` decodes by itself is opened in any format, and from anywhere.

    Raises:
        DataError: the column has no images.
    """
    import pyarrow as pa
    from datasets import Image

    try:
        return data.cast_column(column, Image(decode=False))
    except (pa.ArrowException, TypeError, ValueError) as error:
        kind = data.data.column(column).type
        raise DataError(
            f"data.image: the column {column!r} holds {kind}, and no images; name another column"
        ) from error


def refuse_named_files(data: Any, column: str) -> None:
    """Refuse cells that name a file instead of holding its bytes.

    Raises:
        DataError: so.
    """
    import pyarrow.compute as pc

    cells = data.data.column(column)
    held, path = (pc.is_valid(pc.struct_field(cells, field)) for field in ("bytes", "path"))
    row = pc.index(pc.and_not(path, held), True).as_py()
    if row >= 0:
        raise DataError(
            f"data.image: row {row} of the column {column!r} names a file "
            f"({make_printable(cells[row]['path'].as_py())}) instead of holding it; write the "
            "bytes of the images into the table, or read their folder with source: folder"
        )


def _get_cell(rows: Any, column: str, inside: Sequence[Path], i: int) -> io.BytesIO | Path:
    """What is to be opened as the image of a row."""
    cell = rows[i][column] or {}
    if cell.get("bytes") is not None:
        return io.BytesIO(cell["bytes"])
    if cell.get("path") is None:
        raise ValueError("the cell is empty")
    path = Path(os.path.abspath(cell["path"]))
    if not any(path.is_relative_to(os.path.abspath(folder)) for folder in inside):
        raise ValueError(f"{cell['path']} is no file of the data set")
    return path


def read_column(data: Any, column: str) -> list[Any]:
    """All values of a column."""
    values: list[Any] = data.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    return values


def number_classes(
    values: list[Any], names: list[str] | None, column: str = "label"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers (N,), -1 for unknown, and the names of the classes.

    None, NaN, empty text and numbers below 0 are unknown. Whole numbers are the class numbers
    themselves, also where they are floats, as pandas has them beside a NaN.

    Args:
        names: of a column that numbers its classes; None: the values name them.

    Raises:
        DataError: values that are neither numbers nor text, or a number without a name.
    """
    strange = {type(v).__name__ for v in values if not isinstance(v, (str, int, float, type(None)))}
    if strange:
        raise DataError(
            f"data.label: the column {column!r} holds values of the kind {min(strange)}; name a "
            "column with one number or text a row"
        )
    values = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
    if not all(v is None or isinstance(v, int) or is_whole(v) for v in values):
        return number_labels([None if v is None else str(v) for v in values])
    values = [None if v is None or v < 0 else int(v) for v in values]
    most = max((v for v in values if v is not None), default=-1)
    if names is None:
        # Larger numbers are a shop's ids: a class for each number below would fill the memory.
        if most >= 1_000_000:
            return number_labels([None if v is None else str(v) for v in values])
        names = [str(n) for n in range(most + 1)]
    if most >= len(names):
        raise DataError(
            f"data.label: the column {column!r} has class {most}, and names for {len(names)} "
            "classes; name another column, or mend the table"
        )
    return np.array([-1 if v is None else v for v in values], np.int64), tuple(names)


def is_whole(value: object) -> bool:
    """Whether a value is a float without a fraction."""
    return isinstance(value, float) and value.is_integer()


def local_copy(id: str) -> str:
    """The path of the local folder named ``id``, if there is one; else ``id``, a Hub data set."""
    place = find_path(id)
    return str(place) if place is not None and os.path.isdir(place) else id


def list_own_folders(copy: str) -> list[Path]:
    """The folders of a data set of the Hub: its copy here, and where downloads are kept.

    Each also as it is without links, which is how the library `datasets` names its files.
    """
    from datasets import config
    from huggingface_hub import constants

    kept = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE]
    kept.append(config.EXTRACTED_DATASETS_PATH)
    places = ([copy] if os.path.isdir(copy) else []) + kept
    return [Path(form) for place in places for form in (place, os.path.realpath(place))]
