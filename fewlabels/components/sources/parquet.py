"""Parquet files with an image column."""

from __future__ import annotations

from typing import Literal

from fewlabels.contracts import Records
from fewlabels.data.hf_dataset import from_dataset, open_dataset
from fewlabels.errors import DataError
from fewlabels.files import find_path, looked_for
from fewlabels.registry import sources


@sources.register("parquet")
class Parquet:
    """Reads parquet files with an image column, as the library `datasets` writes them.

    Args:
        files: one file or several, under the data roots.
        image: column of images, as bytes or as a struct with bytes; none may name a file.
        label: column of classes, as numbers or text; null: no labels.

    Source: this project.
    Recipe: `data: {source: parquet, files: grocery/all.parquet, labels: none}`
    """

    default_split: Literal["official", "zero_shot", "all"] = "all"

    def __init__(
        self, *, files: str | list[str] = "", image: str = "image", label: str | None = "label"
    ) -> None:
        self.files = [files] if isinstance(files, str) else files
        self.image, self.label = image, label

    def load(self) -> Records:
        """Records of the rows of all files; a recipe can select rows by the other plain columns.

        Raises:
            DataError: no such file or column, or cells that name files instead of holding them.
        """
        if not self.files or "" in self.files:
            raise DataError("data.files is empty; name one or more parquet files")
        paths = []
        for file in self.files:
            place = find_path(file)
            if place is None or not place.is_file():
                raise DataError(
                    f"data.files: no file at {looked_for(file)}; put it there, or set "
                    "FEWLABELS_DATA to the folder that holds your data"
                )
            paths.append(place)
        data = open_dataset("parquet", files={"train": paths}, split="train")
        return from_dataset({"train": data}, self.image, self.label, keep_split=False)
