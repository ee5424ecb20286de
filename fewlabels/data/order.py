"""Which training images each step sees: functions of the generator alone, for the global batch.

Each process takes its own rows of every global batch. So the data order is the same for any number
of processes, and a resumed run continues with the next batch.
"""

from __future__ import annotations

import numpy as np

from fewlabels.errors import DataError


def draw_shuffled(
    members: np.ndarray, batch: int, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Batches from repeated passes over ``members``, reshuffled for each pass.

    Returns:
        (steps, batch) positions, taken from ``members``; a DataError is raised if that is empty.
    """
    if len(members) == 0:
        raise DataError("a training stream is empty: no sample has the labels that it asks for")
    passes = -(-steps * batch // len(members))
    walk = np.concatenate([rng.permutation(members) for _ in range(passes)])
    return walk[: steps * batch].reshape(steps, batch)


def class_balanced(
    labels: np.ndarray, batch: int, per_class: int, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Batches of ``per_class`` images from each of ``batch / per_class`` classes.

    Every class is drawn once before any is drawn again, in a new random order each time; so are
    the images within a class. A batch repeats an image only if its class has fewer than
    ``per_class`` images, or a class if there are fewer classes than the batch has places for.

    Args:
        labels: (N,) class of each position; positions with a negative one are not drawn.

    Returns:
        (steps, batch) positions.

    Raises:
        DataError: ``batch`` is not a multiple of ``per_class``, or no position is labelled.
    """
    if batch % per_class:
        raise DataError(f"batch {batch} is no multiple of per_class {per_class}; change one")
    members = np.flatnonzero(labels >= 0)
    if len(members) == 0:
        raise DataError("no training image has a label; add a discovery or set labels: all")
    by_class = np.split(
        members[np.argsort(labels[members], kind="stable")],
        np.flatnonzero(np.diff(np.sort(labels[members]))) + 1,
    )
    classes = _draw_in_turn(len(by_class), batch // per_class, steps, rng).ravel()
    uses = np.bincount(classes, minlength=len(by_class))
    walks = [
        iter(own[_draw_in_turn(len(own), per_class, int(n), rng)])
        for own, n in zip(by_class, uses, strict=True)
    ]
    return np.stack([next(walks[c]) for c in classes]).reshape(steps, batch)


def _draw_in_turn(things: int, places: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """(steps, places) numbers below ``things``, in passes; a row repeats one only if it must."""
    distinct = min(things, places)
    waiting: list[int] = []
    rows = np.empty((steps, places), np.int64)
    for row in rows:
        if len(waiting) < distinct:  # what is left goes first, and comes last in the next pass
            left = set(waiting)
            again = rng.permutation(things).tolist()
            waiting += [t for t in again if t not in left] + [t for t in again if t in left]
        row[:] = np.resize(waiting[:distinct], places)
        del waiting[:distinct]
    return rows
