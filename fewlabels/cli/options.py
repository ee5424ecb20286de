"""Options that several commands take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fewlabels.errors import make_printable
from fewlabels.registry.user_code import import_modules


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--import MODULE``, for the user's own code."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="code of yours that registers components; may be repeated",
    )


def add_skip_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--skip-unreadable``, for commands that read all images of a folder."""
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )


def import_beside_model(given: argparse.Namespace) -> None:
    """Import the modules of ``--import``, also from the run folder that contains the model."""
    import_modules(given.imports, Path(given.model).parent)


def print_remark(remark: str) -> None:
    """What a person should know, beside what a command prints."""
    print(make_printable(remark), file=sys.stderr)
