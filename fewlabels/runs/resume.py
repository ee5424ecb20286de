"""What must be as it was when a run began, so that it ends where it would have ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewlabels.errors import FewLabelsError, RecipeError, first_few
from fewlabels.recipe.recipe import Recipe, recipe_from
from fewlabels.training.run_folder import Row, RunFolder

if TYPE_CHECKING:
    from fewlabels.runs.training_data import TrainingData

MOVABLE = {  # where data lie, and keys that change neither weights nor scores
    ("name",),
    ("imports",),
    *(("data", key) for key in ("path", "root", "files", "labels_csv", "memory", "workers")),
    ("train", "keep_checkpoints"),
}
NEW = "or start a new run"


def refuse_edited_recipe(recipe: Recipe, folder: Path, otherwise: str = NEW) -> None:
    """Refuse to go on with a run, or to take its result, where its recipe is another by now.

    Args:
        folder: the run's; one that does not note its recipe, as older ones do, is taken as it is.
        otherwise: what else to do than to put the recipe back.

    Raises:
        FewLabelsError: naming the keys; or the rows that would tell are missing.
    """
    noted = read_beginning(RunFolder(folder)).get("resolved")
    if not isinstance(noted, dict):  # it has not begun, or is older
        return
    began = _take_movable(noted, recipe.resolved)
    with suppress(RecipeError):
        began = recipe_from(began, ended=True).resolved  # with keys that are newer than the run
    edits = [
        f"{'.'.join(map(str, key))} ({_show_value(then)} then, {_show_value(now)} now)"
        for key, then, now in list_differences(began, recipe.resolved)
    ]
    if edits:
        raise FewLabelsError(
            f"{RunFolder(folder).recipe} is not what the run began with: {first_few(edits, 5)}; "
            f"put it back, {otherwise}"
        )


def refuse_ended(folder: RunFolder) -> None:
    """Refuse to go on with a finished run whose checkpoints were removed: it would train anew.

    Raises:
        FewLabelsError: it names the model, and what trains it again.
    """
    if folder.read_end() and not folder.list_checkpoints():
        raise FewLabelsError(
            f"{folder} has come to its end, and its checkpoints are gone; its model is in "
            f"{folder.model}; to train it again, run {folder.recipe}"
        )


def refuse_other_data(data: TrainingData, folder: Path) -> None:
    """Refuse to go on with a run whose images, classes or labels are others by now.

    A checkpoint knows images by their positions, so labels would go to other images.

    Args:
        folder: the run's; one that does not note its data, as older ones do, is taken as it is.

    Raises:
        FewLabelsError: naming which of them differ.
    """
    noted = read_beginning(RunFolder(folder)).get("data")
    if not isinstance(noted, dict):
        return
    now = fingerprint_data(data)
    for what, (here, digest) in now.items():
        try:
            then, before = noted.get(what, (here, digest))
        except (TypeError, ValueError) as error:
            raise FewLabelsError(_describe_damage(RunFolder(folder))) from error
        if digest != before:
            counts = f"{then} then, {here} now" if then != here else f"{here} as before, but others"
            raise FewLabelsError(
                f"{folder}: its {what} are not those that it began with ({counts}); put them back "
                f"as they were, {NEW}"
            )


def fingerprint_data(data: TrainingData) -> dict[str, list[Any]]:
    """The classes, images and labels of a run: how many, and a digest.

    Nothing in it says where the images lie, so they may be moved.
    """
    records, split = data.records, data.split
    parts = [data.train, data.validation, split.test, split.query]
    parts += [] if split.gallery is None else [split.gallery]
    rows = np.concatenate(parts)
    names = [str(records.names[row]) for row in rows] if len(records.names) else rows.tolist()
    known = [data.labels.tolist(), records.truth[rows].tolist()]
    return {
        "classes": [len(records.classes), _hash_values(records.classes)],
        "images": [len(np.unique(rows)), _hash_values([[len(part) for part in parts], names])],
        "labels": [int((data.labels >= 0).sum()), _hash_values(known)],
    }


def read_beginning(folder: RunFolder) -> Row:
    """The first row of a run that has ended or has a checkpoint; empty for one that begins anew.

    Raises:
        FewLabelsError: there is a checkpoint, and no such row.
    """
    pretraining = folder.pretrain.backbone.is_file() or folder.pretrain.list_checkpoints()
    row = folder.read_first_row()
    if not (folder.list_checkpoints() or pretraining or folder.read_end()):
        return {}
    if not row:
        raise FewLabelsError(_describe_damage(folder))
    return row


def _describe_damage(folder: RunFolder) -> str:
    return f"{folder.metrics} is missing, or its first line is damaged; put it back, {NEW}"


def list_differences(
    then: Any, now: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    """Where plain values differ: path, what was there, what is; ``...`` for nothing."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *then]):
            yield from list_differences(then.get(key, ...), now.get(key, ...), (*path, key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for i, (one, two) in enumerate(zip(then, now, strict=True)):
            yield from list_differences(one, two, (*path, i))
    elif repr(then) != repr(now):
        yield path, then, now


def _take_movable(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """A recipe with what may change as another has it."""

    def merge(old: Any, new: Any, path: tuple[str, ...]) -> Any:
        if path in MOVABLE:
            return new
        if not (isinstance(old, dict) and isinstance(new, dict) and len(path) < 2):
            return old
        return {k: merge(v, new[k], (*path, k)) if k in new else v for k, v in old.items()}

    return merge(then, now, ())


def _show_value(value: Any) -> str:
    text = "not set" if value is ... else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _hash_values(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]
