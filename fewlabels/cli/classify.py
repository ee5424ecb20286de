"""The command from a folder of images and a few labels to a classifier: classify."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from fewlabels.cli.options import add_skip_option
from fewlabels.errors import FewLabelsError, make_printable
from fewlabels.files import refuse_existing
from fewlabels.runs.photos import BACKBONE, Photos


def add_commands(commands: Any) -> None:
    """Declare ``classify``."""
    classify = commands.add_parser(
        "classify", help="train a classifier on a folder of images and a few labels"
    )
    classify.add_argument("photos", help="a folder of images")
    classify.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="CSV",
        help="a table with the columns file and label; may be repeated. Without it: labels.csv in "
        "the folder, or a folder a class and one called unlabeled",
    )
    classify.add_argument(
        "-o", dest="table", metavar="CSV", help="a file to write, with each image's classes"
    )
    classify.add_argument(
        "--out", default="runs", help="where the run folder is made, with model and ledger (runs)"
    )
    classify.add_argument(
        "--backbone", help=f"through which images are seen, a name of timm ({BACKBONE})"
    )
    classify.add_argument(
        "--weights", metavar="FILE", help="of the backbone; without it they are fetched once"
    )
    classify.add_argument("--image-size", type=int, metavar="PX", help="side of what it sees")
    classify.add_argument("--seed", type=int, default=0, help="of folds and of ties (0)")
    classify.add_argument(
        "--fine-tune",
        action="store_true",
        help="train the whole network too (minutes), and keep it if it wins on held-out labels",
    )
    add_skip_option(classify)
    classify.set_defaults(run_command=run_classify)


def run_classify(given: argparse.Namespace) -> None:
    """``fewlabels classify``."""
    start = time.monotonic()
    if given.weights and not given.backbone:
        raise FewLabelsError(
            f"--weights {given.weights} belongs to a backbone; name it too, as in --backbone "
            "tf_efficientnet_lite0"
        )
    if given.seed < 0:
        raise FewLabelsError(f"--seed {given.seed}: expected 0 or more")
    if given.out.endswith(".csv"):
        raise FewLabelsError(
            f"--out {given.out} is where a run folder is made; for a table: -o CSV"
        )
    if given.table:
        refuse_existing(given.table, "labels of yours")
    photos = Photos(
        given.photos,
        given.labels,
        given.backbone or BACKBONE,
        given.weights,
        given.image_size,
        given.skip_unreadable,
        given.seed,
    )
    from fewlabels.runs.classify import classify_photos  # imports torch

    table = Path(given.table) if given.table else None
    classify_photos(photos, table, Path(given.out), say, start, given.fine_tune)


def say(sentence: str) -> None:
    """Print a line at once, also into a file or a pipe."""
    print(make_printable(sentence), flush=True)
