"""The images of a folder, of which some may be damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from fewlabels.data.decode import decode_images
from fewlabels.errors import ModelError, make_printable


class Readable:
    """Images by name, one at a time; once they have passed, ``read`` and ``unreadable`` name them.

    Args:
        prepare: what a model makes of an image before it sees it.
        skip: leave out images that cannot be read; else the first of them ends it.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        prepare: Callable[[Image.Image | Tensor], Tensor],
        skip: bool,
    ) -> None:
        self.folder, self.names, self.prepare, self.skip = folder, names, prepare, skip
        self.read: list[str] = []
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[Tensor]:
        """Each image that can be read, prepared: (3, S, S).

        Raises:
            ModelError: one cannot be, and is not to be left out.
        """
        for name in self.names:
            file = self.folder / name
            try:
                [image] = decode_images([file], self.prepare)
            except ModelError as error:
                if not self.skip:
                    raise ModelError(describe_unreadable(file, error.__cause__)) from error
                self.unreadable.append(name)
            else:
                self.read.append(name)
                yield image


def describe_unreadable(file: Path, reason: object) -> str:
    """The sentence for an image that cannot be read."""
    return (
        f"{file}: cannot be read as an image ({reason}); repair or remove it, or leave out all "
        "such images with --skip-unreadable"
    )


def left_out(names: Sequence[str]) -> str:
    """The lines that name what was left out."""
    count = f"{len(names)} image{'s' if len(names) > 1 else ''} left out, which cannot be read:"
    return "\n".join([count, *map(make_printable, names)])
