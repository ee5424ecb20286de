"""Options that several commands take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fewlabels.errors import make_printable
from fewlabels.registry.user_code import import_modules


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """``--import MODULE``: code of the person's own."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="code of yours that registers components; may be repeated",
    )


def add_skip_option(parser: argparse.ArgumentParser) -> None:
    """``--skip-unreadable``, for commands that look at a whole folder."""
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out images that cannot be read"
    )


def import_beside_model(given: argparse.Namespace) -> None:
    """Import what ``--import`` names; a run folder keeps a copy of its code beside its model."""
    import_modules(given.imports, Path(given.model).parent)


def print_remark(remark: str) -> None:
    """What a person should know, beside what a command prints."""
    print(make_printable(remark), file=sys.stderr)
