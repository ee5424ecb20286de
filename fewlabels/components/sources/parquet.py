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
    """Parquet files with an image column, as the datasets library writes them.

    Args:
        files: one or more files.
        image: the column of images (bytes, or a struct with bytes).
        label: the column of classes, numbers or text; null: no labels.
    """

    default_split: Literal["official", "zero_shot", "all"] = "all"

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
            place = find_path(file)
            if place is None or not place.is_file():
                raise DataError(
                    f"data.files: no file at {looked_for(file)}; put it there, or set "
                    "FEWLABELS_DATA to the folder that holds your data"
                )
            paths.append(str(place))
        data = open_dataset("parquet", data_files={"train": paths}, split="train")
        return from_dataset({"train": data}, self.image, self.label, keep_split=False)
