"""Answers of the demo page: for an image, the pictures found with captions, and a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from fewlabels.data.open_image import open_image
from fewlabels.errors import FewLabelsError, make_printable
from fewlabels.search.index import Index

SIDE = 320
"""Largest side in pixels of a picture shown on the page."""
SHORTLIST, LONGEST = 100, 80
BLANK, INK = (229, 231, 235), (75, 85, 99)


class Answer(NamedTuple):
    """A sentence of plain text, and (picture, caption) pairs, best first."""

    sentence: str
    pictures: list[tuple[Image.Image, str]]


class Answers:
    """Searches an index, and loads the pictures it finds from a folder.

    An index has only ids, which are paths relative to the folder that was indexed. The index may
    come from somebody else, so ids that lead outside ``folder`` are not followed.

    Args:
        index: loaded with its embedder.
        folder: the one that was indexed; None: only ids and scores are shown.
    """

    def __init__(self, index: Index, folder: Path | None) -> None:
        self.index, self.folder = index, folder

    def __call__(self, image: str | Path | None, k: int, expand: int, rerank: bool) -> Answer:
        """Search with the image in a file; errors are not raised but put into the sentence.

        Args:
            image: the uploaded file; None: nothing was uploaded.
            k, expand, rerank: as in :meth:`Index.search`.
        """
        if image is None:
            return Answer("Drop an image to search with.", [])
        try:
            with open_image(image) as query:
                pass
        except Exception:  # decoders raise what they like
            return Answer("This file cannot be read as an image; try a JPEG, PNG or WebP.", [])
        try:
            found = self.index.search(
                query, k, expand=expand, rerank=rerank, shortlist=max(k, SHORTLIST)
            )
        except FewLabelsError as error:
            return Answer(str(error), [])
        ids, scores = found.ids[0], found.scores[0]
        shown = [self._load_picture(name) for name in ids]
        captions = [f"{score:.3f}\n{shorten_name(name)}" for score, name in zip(scores, ids)]
        by = "the neighbours they share with the query" if rerank else "cosine"
        sentence = f"The nearest {len(ids)} of {len(self.index):,} images, best first by {by}."
        if lost := shown.count(None):
            where = (
                f"not a readable picture in {shorten_name(str(self.folder))}"
                if self.folder
                else "known by name alone: start the page with --images FOLDER to see them"
            )
            sentence += f" {lost} of them {'is' if lost == 1 else 'are'} {where}."
        return Answer(sentence, [(p or make_blank_picture(), c) for p, c in zip(shown, captions)])

    def _load_picture(self, name: str) -> Image.Image | None:
        """A small copy of the picture of an id; None if it cannot be found or read."""
        file = resolve_inside(self.folder, name) if self.folder else None
        if file is None:
            return None
        try:
            with open_image(file, side=2 * SIDE) as small:
                small.thumbnail((SIDE, SIDE))
                return small
        except Exception:  # decoders raise what they like
            return None


def resolve_inside(folder: Path, name: str) -> Path | None:
    """The path of a file in a folder; None if it does not exist or lies outside the folder.

    Symbolic links are resolved before this is checked.
    """
    try:
        file = (folder / name).resolve()
        there = file.is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, no text for a path, a circle of links
        return None
    return file if there else None


def shorten_name(name: str) -> str:
    """A name without control characters; of a long one only the last 80 characters."""
    return make_printable(name if len(name) <= LONGEST else "…" + name[-LONGEST:])


def make_blank_picture() -> Image.Image:
    """The grey square shown in place of a picture that is missing."""
    tile = Image.new("RGB", (SIDE, SIDE), BLANK)
    pen = ImageDraw.Draw(tile)
    pen.text((SIDE / 2, SIDE / 2), "no picture", INK, anchor="mm", font_size=24)
    return tile
