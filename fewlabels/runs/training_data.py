"""Which images of its source a recipe trains on, holds out and tests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewlabels.contracts import Records
from fewlabels.data.examine import Examined, examine_images, leave_out_rows, read_left_out
from fewlabels.data.label_split import labelled_split
from fewlabels.data.splits import Selection, Split, split_rows
from fewlabels.errors import DataError
from fewlabels.recipe.recipe import Recipe
from fewlabels.recipe.sections import Subset
from fewlabels.registry.build import build_component
from fewlabels.training.run_folder import RunFolder


@dataclass(frozen=True)
class TrainingData:
    """The images of a run, and what is known of those that train.

    Attributes:
        train, validation: data-set rows that train, and that are held out with their labels.
        labels: (N,) what people have given of those that train, -1 for none.
        default_split: the source's own.
        examined: what reading all images once has found; None: they were not read.
    """

    records: Records
    split: Split
    train: np.ndarray
    validation: np.ndarray
    labels: np.ndarray
    default_split: str
    examined: Examined | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that a person should know, of how the images were found and read."""
        return (*self.records.remarks, *(self.examined.remarks if self.examined else ()))


def read_training_data(
    recipe: Recipe, before: RunFolder | None = None, quiet: bool = False
) -> TrainingData:
    """The records of a recipe's source, split and labelled as it says.

    Args:
        before: a run on these data; what it left out is left out again, and nothing is read.
        quiet: no progress bar.

    Raises:
        DataError: what the source or the split finds, or images that cannot be read.
    """
    source = build_component("sources", recipe.source.name, recipe.source.options)
    records = source.load()
    if unused := tell_unused_split(recipe, records, source.default_split):
        records = replace(records, remarks=(*records.remarks, unused))
    split = read_split(recipe, records, source.default_split)
    examined = recall_examined(before, records) if before else None
    data = recipe.data
    if examined is None and (data.max_bad or data.drop_duplicates):
        examined = examine_images(records, split, data.max_bad, data.drop_duplicates, quiet)
    if examined:
        split = leave_out_rows(split, examined.left_out)
    own = read_labels(recipe, split.train, records)
    return TrainingData(records, split, *own, source.default_split, examined)


def recall_examined(folder: RunFolder, records: Records) -> Examined | None:
    """What a run left out, which may be nothing; None if it had other images."""
    left_out = folder.read_first_row().get("left_out")
    return read_left_out(folder.left_out, records) if left_out else Examined()


def tell_unused_split(recipe: Recipe, records: Records, default: str) -> str | None:
    """The sentence for a source that is not split unless a recipe says so, and could be."""
    data, known = recipe.data, set(map(str, records.columns.get("split", ())))
    named = [part.where for part in (data.train, data.test) if part is not None]
    if default != "all" or data.split not in (None, "all") or any("split" in w for w in named):
        return None
    if "train" not in known or known == {"train"}:
        return None
    return (
        f"its images are split ({', '.join(sorted(known))}), which split: all does not keep: "
        "test images may train; to keep it, set data.split: official"
    )


def read_split(recipe: Recipe, records: Records, default: Any) -> Split:
    """The rows of train, test, query and gallery; ``default``: the split if the recipe has none."""

    def selection(subset: Subset | None) -> Selection | None:
        if subset is None:
            return None
        numbers = subset.parse_classes()
        return Selection(None if numbers is None else frozenset(numbers), subset.where)

    data = recipe.data
    parts = {k: selection(getattr(data, k)) for k in ("train", "test", "query", "gallery")}
    return split_rows(records, data.split or default, **parts)


def read_labels(
    recipe: Recipe, train: np.ndarray, records: Records
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data-set rows to train on (N,), rows held out, and labels (N,) of the former, -1 = none."""
    data, truth = recipe.data, records.truth[train]
    seed = recipe.seed if data.split_seed is None else data.split_seed
    count = data.labels if isinstance(data.labels, int) else 0
    held = np.empty(0, np.int64)
    chosen = np.full(len(train), data.labels == "all")
    if count or data.validation:
        drawn = labelled_split(
            truth, train, count, seed, data.share, data.validation, records.classes
        )
        chosen[drawn.labelled], held = True, drawn.validation
    kept = np.setdiff1d(np.arange(len(train)), held)
    lost = np.setdiff1d(truth[chosen & (truth >= 0)], truth[kept][chosen[kept]])
    if len(lost):
        name = records.classes[lost[0]]
        raise DataError(
            f"data.validation holds out every labelled image of class {name!r}; lower it, or label "
            "more of them"
        )
    return train[kept], train[held], np.where(chosen, truth, -1)[kept]
