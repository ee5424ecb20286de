"""Data sets of the datasets library as records: lazily, with every plain column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.class_names import number_labels
from fewlabels.data.lazy_images import from_rows
from fewlabels.errors import DataError, suggest_nearest
from fewlabels.files import find_path

LABELS = ("label", "labels", "fine_label", "item_id", "class", "target")


def open_dataset(name: str, config: str | None = None, **options: Any) -> Any:
    """``datasets.load_dataset`` with one sentence for what can go wrong."""
    import datasets

    try:
        return datasets.load_dataset(name, config, **options)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"data set {name!r} cannot be opened ({reason}); check its name and revision, and that "
            "there is a network, or a copy in the Hugging Face cache"
        ) from error


def from_dataset(
    parts: Mapping[str, Any],
    image: str | None = None,
    label: str | None = None,
    keep_split: bool = True,
) -> Records:
    """Records of the splits of one data set.

    Args:
        image, label: column names; None: the column that is an image, and the usual label names.
        keep_split: add the column ``split``.

    Raises:
        DataError: a column that is not there, or that has no images.
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
    data = data.cast_column(image, Image())

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
    images = from_rows(data.select_columns([image]), image)
    return Records(images, truth, classes, columns, [f"row {i}" for i in range(len(data))])


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
    """The folder that an id of the Hub means here, where there is one; else the id."""
    place = find_path(id)
    return str(place) if place is not None and place.is_dir() else id
