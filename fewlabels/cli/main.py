"""The command line: ``fewlabels COMMAND``, or ``python -m fewlabels COMMAND``.

From photographs to a classifier: classify.
About recipes: run, study, check, rehearse, list, show, schema. With a run: push. With a saved
model: show, evaluate, export, embed, index, search, demo, predict, assembly. For a plugin of one's
own: new.
Code that registers components and is no plugin is named by --import.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from fewlabels.cli.freed_memory import keep_freed_memory
from fewlabels.cli.output import (
    CLOSED,
    accept_any_text,
    describe_system_error,
    drop_output,
    flush_output,
)
from fewlabels.errors import FewLabelsError, Stopped, for_terminal, make_printable
from fewlabels.training.stopping import end_at_ctrl_c, stop_when_terminated


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``fewlabels``; 0, or 2 on a mistake of the user's or what the system refuses.

    What a signal ended has 128 and the signal's number, as a shell counts: 130 or 143; 141 where
    nobody reads what is printed, as behind ``| head``.
    """
    accept_any_text()
    keep_freed_memory()
    try:
        try:
            code = run_command(sys.argv[1:] if arguments is None else list(arguments))
        finally:
            flush_output()
    except OSError as error:
        if isinstance(error, BrokenPipeError) and drop_output():
            return CLOSED
        print(for_terminal(describe_system_error(error)), file=sys.stderr)
        return 2
    return code


def run_command(words: Sequence[str]) -> int:
    """Run what the words ask for; a mistake of the person's is told in a sentence."""
    given = parse_arguments(build_parser(), words)
    try:
        with stop_when_terminated():
            return given.run_command(given) or 0
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        if str(stopped):  # one of many processes tells
            print(make_printable(str(stopped)), file=sys.stderr)
        return 128 + stopped.number
    except FewLabelsError as error:
        print(for_terminal(error), file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run_command``, a function of the parsed arguments."""
    with end_at_ctrl_c():
        from fewlabels.cli import (
            classify,
            components,
            embed,
            images,
            models,
            new,
            predict,
            recipes,
            rehearse,
        )

    parser = argparse.ArgumentParser(prog="fewlabels", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    families = (classify, recipes, rehearse, components, models, embed, images, predict, new)
    for family in families:
        family.add_commands(commands)
    return parser


def parse_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; recipes and overrides may also come after an option."""
    given, more = parser.parse_known_args(words)
    several = getattr(given, "recipes", getattr(given, "overrides", None))
    if any(word.startswith("-") for word in more) or (more and several is None):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if several is not None:
        several += more
    return given
