"""The exceptions that this package raises on purpose; messages name the mistake and its fix."""

from __future__ import annotations

import difflib
import traceback
import unicodedata
from collections.abc import Iterable, Sequence

LONGEST_MISTAKE = 1_000
LONGEST_VALUE = 200


class FewLabelsError(Exception):
    """Base class of errors that this package raises on purpose; the command line exits with 2."""


class Stopped(KeyboardInterrupt):
    """A signal has ended what was going on; no mistake.

    Args:
        number: of the signal.
        said: how to go on.
    """

    def __init__(self, number: int, said: str = "stopped") -> None:
        self.number = number
        super().__init__(said)


class RecipeError(FewLabelsError):
    """All mistakes of one recipe, gathered.

    Args:
        mistakes: one sentence each, ``file: key path: what is wrong; the fix``. Each is kept in one
            line of at most ``LONGEST_MISTAKE`` letters, whatever a recipe puts into it.
    """

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = [shorten(make_printable(each), LONGEST_MISTAKE) for each in mistakes]
        super().__init__("\n".join(self.mistakes))


class ComponentError(FewLabelsError):
    """A name that no registry knows, a clash of names, or a component that breaks its contract."""


class DataError(FewLabelsError):
    """Images or labels that are missing, miscounted or unreadable."""


class UnreadableImageError(DataError):
    """An image that cannot be read.

    Attributes:
        name: what a person would call it.
        reason: why; empty where another process says all in one text.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        self.name, self.reason = name, reason
        said = f"{name}: not readable as an image ({reason}); repair or remove it"
        super().__init__(said if reason else name)

    def __reduce__(self) -> tuple[type[UnreadableImageError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class ModelError(FewLabelsError):
    """A model cannot be made, or weights or a model folder do not fit."""


class HubError(FewLabelsError):
    """The Hugging Face Hub refuses or cannot be reached, or something must not be pushed to it."""


def component_failed(what: str, error: Exception) -> ComponentError:
    """The error for an unexpected exception in a component, with the place where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return ComponentError(
        f"{what} failed with {type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    )


def make_printable(text: str) -> str:
    """Replace unprintable characters, such as line breaks and text-direction marks, by U+FFFD."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "�" for c in text)


def for_terminal(error: FewLabelsError) -> str:
    """The error's message, safe to print: names in it may come from untrusted files."""
    return "\n".join(make_printable(line) for line in str(error).split("\n"))


def shorten(text: str, most: int = LONGEST_VALUE) -> str:
    """A text as it is, or one that is too long for a sentence with its middle left out."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]}…{text[-(most // 3) + 1 :]}"


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'margin'?"`` when a known name is close, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_few(items: Sequence[object], shown: int) -> str:
    """The first ``shown`` items, separated by commas, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more
