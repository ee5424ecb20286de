"""A folder of images, with or without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fewlabels.components.sources.folder_layout import Layout, read_classes, read_layout
from fewlabels.components.sources.labels_table import read_tables
from fewlabels.contracts import Records
from fewlabels.data.class_names import number_labels
from fewlabels.data.find_images import find_images, refuse_undecodable_names
from fewlabels.data.lazy_images import from_files
from fewlabels.errors import DataError
from fewlabels.files import find_path, looked_for
from fewlabels.registry import sources


@sources.register("folder")
class Folder:
    """Reads a folder of images: one folder for each class, or one flat folder with a labels.csv.

    Classes stand in natural order, 2 before 10. ``path/train`` and ``path/test`` (or ``val``, or
    both), in any case and by their usual other names, are read as a split; ``val`` is the test part
    if there is no ``test``. Images in a folder ``unlabeled``, and those of a flat folder without
    labels.csv, have no labels. A folder that holds all others is looked into.

    Links are followed, but each folder is read once. What looks like an image and is not read is
    counted, and told.

    Args:
        path: the folder.
        labels_csv: a CSV file with columns file and label, or a list of such files, whose labels
            count together; null: ``path/labels.csv`` if it exists.

    Source: this project.
    Recipe: `data: {source: folder, path: photos, labels: all}`
    """

    default_split: Literal["official", "zero_shot", "all"] = "all"

    def __init__(self, *, path: str = "", labels_csv: str | list[str] | None = None) -> None:
        self.path, self.labels_csv = path, labels_csv

    def load(self) -> Records:
        """Records of the images, sorted by path.

        Raises:
            DataError: no folder, no images, images outside the class folders, names that are not
                UTF-8, or a labels.csv that does not fit the images.
        """
        root = self._find_root()
        files, remarks = find_images(root)
        if not files:
            sentence = f"{root}: no image in this folder; put .jpg or .png files there"
            raise DataError("; ".join([sentence, *remarks]))
        names = [path.relative_to(root).as_posix() for path in files]
        refuse_undecodable_names(root, names)
        layout, told = read_layout(names), [f"{root}: {remark}" for remark in remarks]
        if layout.lone:
            told.append(f"{root}: all images lie in {'/'.join(layout.lone)}, which is no class")
        tables = self._find_tables(root, layout)
        if tables:
            folder = root if self.labels_csv else tables[0].parent
            below = [path.relative_to(folder).as_posix() for path in files]
            labels = read_tables(tables, folder, below, remarks)
        else:
            labels, more = read_classes(root, layout)
            told += more
        truth, classes = number_labels(labels)
        columns = {} if layout.split is None else {"split": layout.split}
        return Records(from_files(files), truth, classes, columns, names, tuple(told))

    def _find_root(self) -> Path:
        if not self.path:
            raise DataError("data.path is empty; name the folder that holds your images")
        root = find_path(self.path)
        if root is None or not root.is_dir():
            raise DataError(
                f"data.path: no folder at {looked_for(self.path)}; "
                "name the folder that holds your images"
            )
        return root

    def _find_tables(self, root: Path, layout: Layout) -> list[Path]:
        """The tables of labels: those that are named, or that beside the images or above them."""
        if self.labels_csv:
            tables = []
            for named in [self.labels_csv] if isinstance(self.labels_csv, str) else self.labels_csv:
                table = find_path(named)
                if table is None:
                    raise DataError(f"data.labels_csv: no file at {looked_for(named)}")
                tables.append(table)
            return tables
        above = [root.joinpath(*layout.lone[:depth]) for depth in range(len(layout.lone) + 1)]
        beside = (folder / "labels.csv" for folder in above)
        return [table for table in beside if table.exists()][:1]
