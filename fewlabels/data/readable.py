"""The images of a folder, of which some may be damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from fewlabels.data.decode import Images, decode_images, files_of
from fewlabels.data.lazy_images import describe_reason
from fewlabels.errors import ModelError, first_few, make_printable

SKIP = "leave out all such images with --skip-unreadable"


class Readable:
    """Images by name, one at a time; once they have passed, ``read`` and ``unreadable`` name them.

    Args:
        prepare: what a model makes of an image before it sees it.
        skip: leave out images that cannot be read; else the first ten are named in the end.
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

        After the first that cannot, and is not to be left out, the others are but read.

        Raises:
            ModelError: some cannot be, and are not to be left out.
        """
        failed: list[tuple[Path, str]] = []
        for name in self.names:
            file = self.folder / name
            try:
                [image] = decode_images([file], self.prepare)
            except ModelError as error:
                self.unreadable.append(name)
                failed.append((file, describe_reason(error.__cause__ or error)))
            else:
                self.read.append(name)
                if self.skip or not failed:
                    yield image
        if failed and not self.skip:
            raise ModelError(describe_unreadable(failed, SKIP))


def name_position(images: Images | Readable, position: int) -> str:
    """What a person would call the image at a position, among those that can be read."""
    if isinstance(images, Readable):
        return str(images.folder / images.read[position])
    if isinstance(images, (str, Path)):
        return str(files_of(Path(images))[position] if Path(images).is_dir() else images)
    item = images[position] if isinstance(images, (list, tuple)) else None
    return f"image {position}{f' ({item})' if isinstance(item, (str, Path)) else ''}"


def describe_unreadable(failed: Sequence[tuple[object, str]], otherwise: str) -> str:
    """The sentence for images that cannot be read, of which it names the first ten.

    Args:
        failed: names and reasons.
        otherwise: what a person can do instead of repairing or removing them.
    """
    if len(failed) == 1:
        [(name, reason)] = failed
        return f"{name}: cannot be read as an image ({reason}); repair or remove it, or {otherwise}"
    named = first_few([f"{name} ({reason})" for name, reason in failed], 10)
    return f"{len(failed)} images cannot be read: {named}; repair or remove them, or {otherwise}"


def left_out(names: Sequence[str]) -> str:
    """The message that lists the images that were left out: their number, then a name per line."""
    count = f"{len(names)} image{'s' if len(names) > 1 else ''} left out, which cannot be read:"
    return "\n".join([count, *map(make_printable, names)])
