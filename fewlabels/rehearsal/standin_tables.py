"""Writes stand-in images as people keep them: folders, with or without a table, and parquet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.recipe.recipe import Recipe
from fewlabels.rehearsal.standin_images import draw_standin, encode_jpeg
from fewlabels.rehearsal.standin_layouts import Options, Sides, write_files

Names = tuple[str, str | None]
"""Of the columns of images and of labels."""


def write_folder(root: Path, records: Records, sides: Sides, recipe: Recipe) -> Options:
    """Images where those that are here lie, or one folder a class; with labels.csv if there is one.

    Of a recipe that wants the official split, a folder of its parts.
    """
    classes = [records.classes[t] if t >= 0 else "unlabeled" for t in records.truth]
    names = [f"{name}/{i}.jpg" for i, name in enumerate(classes)]
    if recipe.data.split == "official":
        names = [f"{part}/{n}" for part, n in zip(records.columns["split"], names, strict=True)]
    table = recipe.source.options.get("labels_csv")
    if len(records.names):
        names = [f"{name}.jpg" for name in records.names]  # 1.png and 1.jpg are two images
    if table or all("/" not in name for name in names):
        root.mkdir(parents=True, exist_ok=True)
        with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            known = [
                (n, c) for n, c, t in zip(names, classes, records.truth, strict=True) if t >= 0
            ]
            csv.writer(file).writerows([("file", "label"), *known])
    write_files(root, names, records, sides)
    return {"path": str(root), "labels_csv": None}


def _write_parquet(
    file: Path, rows: np.ndarray, records: Records, sides: Sides, names: Names
) -> None:
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    image, label = names
    columns: dict[str, Any] = {
        name: np.asarray(values)[rows].tolist()
        for name, values in records.columns.items()
        if name not in names
    }
    columns[image] = [
        {"bytes": encode_jpeg(draw_standin(i, int(records.truth[i]), sides)), "path": None}
        for i in rows.tolist()
    ]
    kinds: dict[str, Any] = {
        name: datasets.Value(str(pa.array(values).type).replace("double", "float64"))
        for name, values in columns.items()
        if name != image
    }
    if label:
        columns[label] = [int(t) if t >= 0 else None for t in records.truth[rows]]
        kinds[label] = datasets.Value("int64")
    schema = datasets.Features({**kinds, image: datasets.Image()}).arrow_schema
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns, schema=schema), file)


def write_parquet(root: Path, records: Records, sides: Sides, recipe: Recipe) -> Options:
    """One parquet file with the recipe's columns."""
    options, file = recipe.source.options, root / "images.parquet"
    names = (options["image"], options["label"])
    _write_parquet(file, np.arange(len(records)), records, sides, names)
    return {"files": str(file)}


def write_hub(root: Path, records: Records, sides: Sides, recipe: Recipe) -> Options:
    """A local copy of a data set of the Hub: a parquet file for each split."""
    options = recipe.source.options
    names = (options["image"] or "image", options["label"] or "label")
    parts = records.columns.get("split", np.full(len(records), "train"))
    for part in np.unique(parts):
        file = root / "data" / f"{part}.parquet"
        _write_parquet(file, np.flatnonzero(parts == part), records, sides, names)
    return {"id": str(root), "config": None, "revision": None}


TABLES: dict[str, Callable[[Path, Records, Sides, Recipe], Options]] = {
    "folder": write_folder,
    "hub": write_hub,
    "parquet": write_parquet,
}
"""By source, as LAYOUTS of the benchmarks; the recipe says which columns there are."""
