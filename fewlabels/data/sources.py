"""Sources: digits (needs no network), a folder, parquet files, any data set of the Hub."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from fewlabels.contracts import Records
from fewlabels.data.images import LazyImages, from_files, image_files
from fewlabels.data.table import from_dataset, open_dataset
from fewlabels.errors import DataError
from fewlabels.paths import locate, looked_for
from fewlabels.registry import sources

Split = Literal["official", "zero_shot", "all"]


@sources.register("digits")
class Digits:
    """scikit-learn's 1,797 handwritten digits; the first 1,200 train, the others are retrieved.

    The two parts were written by different people.

    Args:
        warp: turn each digit by up to 30 degrees, scale it by .8 to 1.2 and shift it by up to 15 %
            of the side, drawn from its number alone; without this raw pixels retrieve 97 %.
    """

    default_split: Split = "official"

    def __init__(self, *, warp: bool = False) -> None:
        self.warp = warp

    def load(self) -> Records:
        """Images of 24 x 24 pixels, each digit over 3/4 of the side."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = [
            draw_digit(pixels, i if self.warp else None) for i, pixels in enumerate(digits.images)
        ]
        split = np.where(np.arange(len(images)) < 1200, "train", "test")
        names = [f"digit {i}" for i in range(len(images))]
        truth = digits.target.astype(np.int64)
        return Records(images, truth, tuple("0123456789"), {"split": split}, names)


def draw_digit(pixels: np.ndarray, number: int | None, side: int = 24) -> Image.Image:
    """A digit (8, 8) of 0 to 16 on a black square, under the warp of its number; None: no warp."""
    angle, scale, right, down = 0.0, 1.0, 0.0, 0.0
    if number is not None:
        rng = np.random.default_rng([24, number])
        angle, scale = math.radians(rng.uniform(-30, 30)), rng.uniform(0.8, 1.2)
        right, down = rng.uniform(-0.15, 0.15, 2) * side
    # Where each pixel of the square comes from: its centre, back through shift, turn and scale.
    cell = np.arange(side) + 0.5 - side / 2
    x, y = np.meshgrid(cell - right, cell - down)
    factor = 8 / (0.75 * side * scale)
    u = (x * math.cos(angle) + y * math.sin(angle)) * factor + 4 - 0.5
    v = (-x * math.sin(angle) + y * math.cos(angle)) * factor + 4 - 0.5
    padded = np.pad(pixels / 16.0, 2)  # black around, so that edges fade
    u, v = np.clip(u + 2, 0, 10.999), np.clip(v + 2, 0, 10.999)
    left, top = u.astype(int), v.astype(int)
    a, b = u - left, v - top
    grey = (
        padded[top, left] * (1 - a) * (1 - b)
        + padded[top, left + 1] * a * (1 - b)
        + padded[top + 1, left] * (1 - a) * b
        + padded[top + 1, left + 1] * a * b
    )
    return Image.fromarray((grey * 255).round().astype(np.uint8)).convert("RGB")


@sources.register("folder")
class Folder:
    """A folder of images: one folder a class, or flat with an optional labels.csv.

    ``path/train`` and ``path/test`` (or ``val``, or both), with a folder a class each, are a split;
    ``val`` counts as the test where there is no ``test``.

    Args:
        path: the folder.
        labels_csv: a CSV (columns file, label); null: ``path/labels.csv`` if it is there.
    """

    default_split: Split = "all"

    def __init__(self, *, path: str = "", labels_csv: str | None = None) -> None:
        self.path, self.labels_csv = path, labels_csv

    def load(self) -> Records:
        """The images in sorted order.

        Raises:
            DataError: no folder, no images, or a labels.csv that does not fit them.
        """
        if not self.path:
            raise DataError("data.path is empty; name the folder that holds your images")
        root = locate(self.path)
        if root is None or not root.is_dir():
            raise DataError(
                f"data.path: no folder at {looked_for(self.path)}; "
                "name the folder that holds your images"
            )
        files = image_files(root)
        if not files:
            raise DataError(f"{root}: no image in this folder; put .jpg or .png files there")
        names = [path.relative_to(root).as_posix() for path in files]
        table = locate(self.labels_csv) if self.labels_csv else root / "labels.csv"
        if table is None:
            raise DataError(f"data.labels_csv: no file at {looked_for(str(self.labels_csv))}")
        if table.is_file():
            return labelled(from_files(files), read_labels(table, names), names)
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
        return labelled(from_files(files), [part[0] for part in parts], names, columns)


def read_labels(table: Path, names: Sequence[str]) -> list[str | None]:
    """The label of each named image, None for those that a CSV (file, label) leaves out."""
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
            f"{table}: {len(missing)} files are not in the folder ({some(missing)}); "
            "remove their rows, or add the files"
        )
    twice = [str(name) for name, times in Counter(name for name, _ in rows).items() if times > 1]
    if twice:
        raise DataError(
            f"{table}: {len(twice)} files are listed twice ({some(twice)}); keep one row of each"
        )
    return [found.get(name) or None for name in names]


def some(names: Sequence[str]) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def labelled(
    images: LazyImages,
    labels: Sequence[str | None],
    names: Sequence[str],
    columns: dict[str, np.ndarray] | None = None,
) -> Records:
    """Records whose classes are the sorted labels; None is unknown."""
    classes = sorted({label for label in labels if label is not None})
    numbers = {label: i for i, label in enumerate(classes)}
    truth = np.array([-1 if label is None else numbers[label] for label in labels], np.int64)
    return Records(images, truth, tuple(classes), columns or {}, names)


@sources.register("parquet")
class Parquet:
    """Parquet files with an image column, as the datasets library writes them.

    Args:
        files: one or more files.
        image: the column of images (bytes, or a struct with bytes).
        label: the column of classes, numbers or text; null: no labels.
    """

    default_split: Split = "all"

    def __init__(
        self, *, files: str | list[str] = "", image: str = "image", label: str | None = "label"
    ) -> None:
        self.files = [files] if isinstance(files, str) else files
        self.image, self.label = image, label

    def load(self) -> Records:
        """The rows of all files; every other plain column may be selected by.

        Raises:
            DataError: no such file or column.
        """
        if not self.files or "" in self.files:
            raise DataError("data.files is empty; name one or more parquet files")
        paths = []
        for file in self.files:
            place = locate(file)
            if place is None or not place.is_file():
                raise DataError(
                    f"data.files: no file at {looked_for(file)}; put it there, or set "
                    "FEWLABELS_DATA to the folder that holds your data"
                )
            paths.append(str(place))
        data = open_dataset("parquet", data_files={"train": paths}, split="train")
        return from_dataset({"train": data}, self.image, self.label, keep_split=False)


def local_copy(id: str) -> str:
    """The folder that an id of the Hub means here, where there is one; else the id."""
    place = locate(id)
    return str(place) if place is not None and place.is_dir() else id


@sources.register("hub")
class Hub:
    """Any image data set of the Hugging Face Hub, or a local copy of one.

    Args:
        id: its name, as in ``uoft-cs/cifar10``; or a folder.
        config: its configuration, where it has several.
        revision: a commit, tag or branch; name a commit for figures that are to last.
        splits: the splits to read, one after the other; empty: all.
        image: the column of images; null: the only one.
        label: the column of classes; null: the only one, or ``label``.
    """

    default_split: Split = "official"

    def __init__(
        self,
        *,
        id: str = "",
        config: str | None = None,
        revision: str | None = None,
        splits: list[str] = [],  # noqa: B006 - read only
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        self.id, self.config, self.revision, self.splits = id, config, revision, list(splits)
        self.image, self.label = image, label

    def load(self) -> Records:
        """The rows of the splits, with the column ``split``.

        Raises:
            DataError: no such data set or column, or no network and no copy in the cache.
        """
        if not self.id:
            raise DataError("data.id is empty; name a data set of the Hub, as uoft-cs/cifar10")
        data = open_dataset(local_copy(self.id), self.config, revision=self.revision)
        wanted: Any = self.splits or list(data)
        for name in wanted:
            if name not in data:
                raise DataError(f"{self.id} has no split {name!r} (it has: {', '.join(data)})")
        return from_dataset({name: data[name] for name in wanted}, self.image, self.label)
