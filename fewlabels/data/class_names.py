"""Labels as text become numbered classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from fewlabels.ops.natural_order import sort_naturally


def clean_label(label: str) -> str | None:
    """A label without blanks at its ends and in Unicode's composed form; None if nothing is left.

    Tables and file systems write one name in several ways, which would be several classes.
    """
    return unicodedata.normalize("NFC", label).strip() or None


def number_labels(labels: Sequence[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers (N,) of labels, -1 for none, and the classes in natural order."""
    cleaned = [None if label is None else clean_label(label) for label in labels]
    classes = sort_naturally({label for label in cleaned if label is not None})
    numbers: dict[str | None, int] = {label: i for i, label in enumerate(classes)}
    truth = [numbers.get(label, -1) for label in cleaned]
    return np.array(truth, np.int64), tuple(classes)
