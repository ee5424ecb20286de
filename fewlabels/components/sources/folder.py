"""A folder of images, with or without labels."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.lazy_images import LazyImages, from_files, image_files
from fewlabels.errors import DataError
from fewlabels.files import find_path, looked_for
from fewlabels.registry import sources


@sources.register("folder")
class Folder:
    """Reads a folder of images: one folder for each class, or one flat folder with a labels.csv.

    ``path/train`` and ``path/test`` (or ``val``, or both), each with a folder for each class, are
    read as a split; ``val`` is the test part if there is no ``test``. Images of a flat folder
    without labels.csv have no labels.

    Args:
        path: the folder.
        labels_csv: a CSV file with columns file and label; null: ``path/labels.csv`` if it exists.

    Source: this project.
    Recipe: `data: {source: folder, path: photos, labels: all}`
    """

    default_split: Literal["official", "zero_shot", "all"] = "all"

    def __init__(self, *, path: str = "", labels_csv: str | None = None) -> None:
        self.path, self.labels_csv = path, labels_csv

    def load(self) -> Records:
        """Records of the images, sorted by path.

        Raises:
            DataError: no folder, no images, images outside the class folders, or a labels.csv that
                does not fit the images.
        """
        if not self.path:
            raise DataError("data.path is empty; name the folder that holds your images")
        root = find_path(self.path)
        if root is None or not root.is_dir():
            raise DataError(
                f"data.path: no folder at {looked_for(self.path)}; "
                "name the folder that holds your images"
            )
        files = image_files(root)
        if not files:
            raise DataError(f"{root}: no image in this folder; put .jpg or .png files there")
        names = [path.relative_to(root).as_posix() for path in files]
        table = find_path(self.labels_csv) if self.labels_csv else root / "labels.csv"
        if table is None:
            raise DataError(f"data.labels_csv: no file at {looked_for(str(self.labels_csv))}")
        if table.is_file():
            return make_records(from_files(files), read_labels_csv(table, names), names)
        parts = [Path(name).parts for name in names]
        if all(len(part) == 1 for part in parts):
            return Records(from_files(files), np.full(len(files), -1), (), {}, names)
        columns = {}
        tops = {part[0] for part in parts}
        if "train" in tops and {"train"} < tops <= {"train", "val", "test"}:
            rename = {} if "test" in tops else {"val": "test"}
            columns["split"] = np.array([rename.get(part[0], part[0]) for part in parts])
            parts = [part[1:] for part in parts]
        loose = [name for name, part in zip(names, parts, strict=True) if len(part) == 1]
        if loose:
            raise DataError(
                f"{root}: {len(loose)} images lie outside the class folders (as {loose[0]}); put "
                "each into the folder of its class, or all into one flat folder"
            )
        return make_records(from_files(files), [part[0] for part in parts], names, columns)


def read_labels_csv(table: Path, names: Sequence[str]) -> list[str | None]:
    """Read the labels of named images from a CSV file with columns file and label.

    Returns:
        One label for each name; None for images that the file leaves out.

    Raises:
        DataError: no such columns, text that is not UTF-8, unknown files, or files listed twice.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            rows = [(row.get("file"), row.get("label")) for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: is not UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    if not {"file", "label"} <= set(header):
        raise DataError(
            f"{table}: its first line must name the columns file and label, and is "
            f"{','.join(header) or 'empty'}"
        )
    found = dict(rows)
    missing = sorted(str(name) for name in set(found) - set(names))
    if missing:
        raise DataError(
            f"{table}: {len(missing)} files are not in the folder ({_join_first_three(missing)}); "
            "remove their rows, or add the files"
        )
    twice = [str(name) for name, times in Counter(name for name, _ in rows).items() if times > 1]
    if twice:
        raise DataError(
            f"{table}: {len(twice)} files are listed twice ({_join_first_three(twice)}); "
            "keep one row of each"
        )
    return [found.get(name) or None for name in names]


def _join_first_three(names: Sequence[str]) -> str:
    """Join the first three names for an error message."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def make_records(
    images: LazyImages,
    labels: Sequence[str | None],
    names: Sequence[str],
    columns: dict[str, np.ndarray] | None = None,
) -> Records:
    """Make records whose classes are the sorted labels; None is an unknown label."""
    classes = sorted({label for label in labels if label is not None})
    numbers = {label: i for i, label in enumerate(classes)}
    truth = np.array([-1 if label is None else numbers[label] for label in labels], np.int64)
    return Records(images, truth, tuple(classes), columns or {}, names)
