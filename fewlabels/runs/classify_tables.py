"""What ``fewlabels classify`` writes of single images: their classes, and which to label next."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabels.files import new_file

NEXT = 20
"""Images that a person is asked to label next."""


def write_answers(
    file: Path,
    names: Sequence[str],
    classes: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray,
) -> None:
    """Write a CSV with the columns file, label, probability, given, and one for each class.

    ``label`` is the most probable class and ``given`` what a person said. A column of a class is
    called ``p(CLASS)``.

    Args:
        probabilities: (N, C).
        labels: (N,) the given ones, -1 for none.
    """
    head = ["file", "label", "probability", "given", *(f"p({name})" for name in classes)]
    with new_file(file) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(head)
        for name, row, given in zip(names, probabilities, labels.tolist(), strict=True):
            best = int(row.argmax())
            said = classes[given] if given >= 0 else ""
            each = [f"{value:.6f}" for value in row]
            writer.writerow([name, classes[best], each[best], said, *each])


def choose_next(probabilities: np.ndarray, labels: np.ndarray, count: int = NEXT) -> np.ndarray:
    """Positions of the unlabelled images that are least sure, the least sure first.

    They are spread over the classes that they are taken for: no class has a second one before each
    class has one, if it can.

    Args:
        probabilities: (N, C).
        labels: (N,) the given ones, -1 for none.
    """
    free = np.flatnonzero(labels < 0)
    sure, guess = probabilities[free].max(1), probabilities[free].argmax(1)
    order = sure.argsort(kind="stable")
    place = np.empty(len(free), np.int64)  # how many less sure ones its class has
    for label in np.unique(guess):
        own = order[guess[order] == label]
        place[own] = np.arange(len(own))
    chosen = np.lexsort((sure, place))[:count]
    return free[chosen[sure[chosen].argsort(kind="stable")]]


def write_next(
    file: Path, names: Sequence[str], classes: Sequence[str], probabilities: np.ndarray
) -> None:
    """Write a CSV with the columns file, label (empty: a person fills it in), guess, probability.

    As a table of labels it counts as it is: an empty label is none.

    Args:
        probabilities: (K, C) of the images called ``names``.
    """
    with new_file(file) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(["file", "label", "guess", "probability"])
        for name, row in zip(names, probabilities, strict=True):
            writer.writerow([name, "", classes[int(row.argmax())], f"{row.max():.6f}"])
