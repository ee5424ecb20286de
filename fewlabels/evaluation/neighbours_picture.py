"""A picture of what an embedder retrieves: test queries, and the images nearest to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from fewlabels.evaluation.retrieval_protocol import Examples

FILE = "neighbours.png"
ALT = "Rows of a test query and the images nearest to it, framed by whether they are of its class"
CAPTION = (
    "Each row: a query, then the test images nearest to it by cosine, best first. Green, solid: of "
    "its class; orange, broken: of another. One query a class; classes and queries are drawn by a "
    "fixed seed before anything is scored, so right and wrong ones are shown as they fall."
)
PANEL, FRAME, TEXT, GAP = 112, 5, 14, 6
SAME, OTHER, UNKNOWN, QUERY = (0, 150, 90), (225, 95, 0), (150, 150, 150), (40, 40, 40)


def draw_neighbours(
    examples: Examples, truth: np.ndarray, take: Callable[[np.ndarray], Tensor]
) -> Image.Image:
    """Draw one row per query: the query, then the images found, each with its cosine.

    Args:
        truth: (N,) classes of the test images, -1 where unknown.
        take: gives test images (B, 3, S, S) uint8 by their positions (B,).
    """
    count, nearest = examples.found.shape
    cell, line = PANEL + 2 * FRAME, PANEL + 2 * FRAME + TEXT
    size = ((nearest + 1) * (cell + GAP) + GAP, count * (line + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for row, query in enumerate(examples.queries):
        shown = take(np.array([query, *examples.found[row]])).permute(0, 2, 3, 1).numpy()
        top = row * (line + GAP)
        sheet.paste(_frame_image(shown[0], QUERY, "query"), (0, top))
        for column, other in enumerate(examples.found[row]):
            same = truth[other] == truth[query]
            word = "unknown" if truth[other] < 0 else "same class" if same else "other class"
            colour = UNKNOWN if truth[other] < 0 else SAME if same else OTHER
            text = f"{examples.cosines[row, column]:.2f}  {word}"
            panel = _frame_image(shown[column + 1], colour, text, broken=colour != SAME)
            sheet.paste(panel, ((column + 1) * (cell + GAP) + GAP, top))
    return sheet


def _frame_image(
    pixels: np.ndarray, colour: tuple[int, int, int], text: str, broken: bool = False
) -> Image.Image:
    """An image (S, S, 3) in a frame, and a line of text below."""
    side = PANEL + 2 * FRAME
    panel = Image.new("RGB", (side, side + TEXT), "white")
    pen = ImageDraw.Draw(panel)
    pen.rectangle((0, 0, side - 1, side - 1), fill=colour)
    if broken:  # for those who do not tell the colours apart
        for start in range(12, side - 12, 20):
            pen.rectangle((start, 0, start + 7, side - 1), fill="white")
            pen.rectangle((0, start, side - 1, start + 7), fill="white")
    picture = Image.fromarray(pixels).resize((PANEL, PANEL), Image.Resampling.BICUBIC)
    panel.paste(picture, (FRAME, FRAME))
    pen.text((2, side + 1), text, fill="black")
    return panel
