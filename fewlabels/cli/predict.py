"""The command that writes a classifier's labels of a folder of images: predict."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fewlabels.cli.options import (
    add_import_option,
    add_skip_option,
    import_beside_model,
    print_remark,
)
from fewlabels.data.class_names import clean_label
from fewlabels.errors import FewLabelsError, ModelError, first_few, make_printable
from fewlabels.files import new_file, refuse_existing
from fewlabels.training.processes import join_processes

if TYPE_CHECKING:
    import numpy as np

    from fewlabels.models.classifier import Classifier

NONE = "none"
FORMULA = ("=", "+", "-", "@")
"""With what a cell begins that a spreadsheet takes for a formula."""


class NoneOptions(NamedTuple):
    """When an image is answered "none of these", and in which word; by default never.

    ``min_precision`` chooses the threshold by held-out images, ``below`` is one; at most one is
    given. ``word`` None is "none".
    """

    min_precision: float | None = None
    below: float | None = None
    word: str | None = None


def add_commands(commands: Any) -> None:
    """Declare ``predict``."""
    predict = commands.add_parser("predict", help="write a classifier's labels of a folder")
    predict.add_argument("model", help="the folder of a classifier, as in runs/NAME/model")
    predict.add_argument("folder", help="a folder of images")
    predict.add_argument("-o", "--out", required=True, help="a CSV file to write, as labels.csv")
    none = predict.add_mutually_exclusive_group()
    none.add_argument(
        "--min-precision",
        type=float,
        metavar="SHARE",
        help="answer none where fewer answers would be right than this share, as in 0.95, by the "
        "images that were held out in training",
    )
    none.add_argument(
        "--none-below",
        type=float,
        metavar="PROBABILITY",
        help="answer none where no class has this probability, as in 0.7",
    )
    predict.add_argument(
        "--none-as", metavar="WORD", help="what stands for none (none); '' leaves the cell empty"
    )
    add_skip_option(predict)
    add_import_option(predict)
    predict.set_defaults(run_command=run_predict)


def run_predict(given: argparse.Namespace) -> None:
    """``fewlabels predict``."""
    import_beside_model(given)
    none = NoneOptions(given.min_precision, given.none_below, given.none_as)
    predict_labels(given.model, given.folder, given.out, given.skip_unreadable, none)


def predict_labels(
    model: str, folder: str, out: str, skip_unreadable: bool, none: NoneOptions
) -> None:
    """Write a CSV (file, label, probability) with a classifier's most probable class per image.

    Where an image may be none of these, there are two columns more: best_label and
    best_probability hold what is most probable, also where label is none and probability is empty.
    An existing file is not overwritten: it may have labels that a person gave.

    Args:
        skip_unreadable: leave out images that cannot be read, and list them.
    """
    from fewlabels.data.readable import Readable, left_out
    from fewlabels.models.load import load_classifier
    from fewlabels.search.embeddings_file import list_images

    check_none_options(none)
    refuse_existing(out, "labels of yours")
    classifier = load_classifier(model)
    word = name_none(classifier.classes, none)
    threshold = choose_threshold(classifier, model, none)
    names, _ = list_images(Path(folder), print_remark)
    images = Readable(Path(folder), names, classifier.prepare_image, skip_unreadable)
    probabilities = classifier.predict(images, device=join_processes().device)  # (N, C)
    table = tabulate_answers(classifier, images.read, probabilities, threshold, word)
    with new_file(out) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, lineterminator="\n").writerows(table)
    print(f"{out}: {len(images.read)} images" + tell_none(probabilities, threshold, word))
    if none.min_precision is not None and (curve := classifier.precision_curve):
        print(curve.describe_point(curve.find_point(none.min_precision)))
    if formulas := sorted(
        {name for row in table for name in row[1::2] if name.startswith(FORMULA)}
    ):
        print_remark(
            f"{out}: a spreadsheet takes {first_few(list(map(repr, formulas)), 3)} for a formula; "
            "open the file as text"
        )
    if images.unreadable:
        print(left_out(images.unreadable), file=sys.stderr)


def check_none_options(none: NoneOptions) -> None:
    """Refuse a share or a probability that is none, and a word for what will not be answered.

    Raises:
        FewLabelsError: so.
    """
    from fewlabels.models.precision_curve import check_precision

    if none.min_precision is not None:
        check_precision(none.min_precision)
    if none.below is not None and not 0 < none.below <= 1:  # nor NaN
        raise FewLabelsError(
            f"--none-below {none.below:g}: expected a probability above 0 and at most 1, as in 0.7"
        )
    if not (none.word or "").isprintable():
        raise FewLabelsError(
            f"--none-as {make_printable(none.word or '')}: give a word of printable letters"
        )
    if none.word is not None and none.min_precision is None and none.below is None:
        raise FewLabelsError(
            "--none-as alone answers nothing with none; add --min-precision or --none-below"
        )


def name_none(classes: Sequence[str], none: NoneOptions) -> str:
    """The word for none of these.

    Raises:
        ModelError: where it is to be said, and a class has this name.
    """
    word = NONE if none.word is None else none.word
    asked = none.min_precision is not None or none.below is not None
    same = [name for name in classes if fold_name(name) == fold_name(word)]
    if asked and same:
        raise ModelError(
            f"the model has a class {same[0]!r}, so {word!r} would mean two things; name another "
            "word for none of its classes, as in --none-as unknown"
        )
    return word


def fold_name(name: str) -> str:
    """A name as people compare it: in any case, without blanks at its ends."""
    return (clean_label(name) or "").casefold()


def choose_threshold(classifier: Classifier, model: str, none: NoneOptions) -> float | None:
    """The probability below which an image is none of these; None where all are answered.

    Raises:
        ModelError: the model notes no held-out images, or these bear out no such precision.
    """
    if none.min_precision is None:
        return none.below
    try:
        return classifier.find_threshold(none.min_precision)
    except ModelError as error:
        raise ModelError(f"{model}: {error}, as in --none-below 0.7") from error


def tabulate_answers(
    classifier: Classifier,
    files: Sequence[str],
    probabilities: np.ndarray,
    threshold: float | None,
    word: str,
) -> list[list[str]]:
    """The table with its head, a row for each file; two columns more if there is a threshold."""
    best = [str(name) for name in classifier.name_classes(probabilities)]
    sure = [f"{probability:.6f}" for probability in probabilities.max(1)]
    if threshold is None:
        rows = zip(files, best, sure, strict=True)
        return [["file", "label", "probability"], *map(list, rows)]
    table = [["file", "label", "probability", "best_label", "best_probability"]]
    answers = classifier.name_classes(probabilities, threshold)
    for file, answer, *own in zip(files, answers, best, sure, strict=True):
        table.append([file, *([word, ""] if answer is None else own), *own])
    return table


def tell_none(probabilities: np.ndarray, threshold: float | None, word: str) -> str:
    """How many images are none of these, as words that end a line; empty without a threshold."""
    if threshold is None:
        return ""
    count = int((probabilities.max(1) < threshold).sum())
    return (
        f", {count} of them {word or 'without a label'}: no class has probability {threshold:.4f}"
    )
