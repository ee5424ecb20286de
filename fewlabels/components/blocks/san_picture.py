"""Pictures of SAN's weights: from where it takes the features of a position.

Source: Li (2021), chapter 5, Fig. 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from fewlabels.data.decode import decode_images
from fewlabels.errors import ModelError
from fewlabels.models.image_model import ImageModel

PANEL, CAPTION, GAP, COLUMNS = 224, 16, 6, 5
DESTINATION, SOURCE = (60, 140, 255), (255, 60, 60)


@torch.no_grad()
def compute_assembly_weights(model: ImageModel, image: str | Path | Image.Image) -> np.ndarray:
    """SAN's weights for an image: (H, W, H, W) float32, destinations first.

    ``weights[i, j]`` (H, W) are the shares of all positions in the new feature of position (i, j).

    Raises:
        ModelError: a model without SAN, or an image that cannot be read.
    """
    pixels = next(decode_images(image, model.prepare_image))
    weights = model.eval()(pixels[None].to(model.mean.device)).side.get("san.weights")
    if weights is None:
        raise ModelError(
            "this model moves no features: no block san is in it; "
            "train one with blocks: {name: san, after: MODULE}"
        )
    side = math.isqrt(weights.shape[1])  # models see squares
    shares: np.ndarray = weights[0].T.reshape(side, side, side, side).cpu().numpy()
    return shares


def draw_assembly(
    model: ImageModel,
    image: str | Path | Image.Image,
    at: Sequence[tuple[int, int]] | None = None,
) -> Image.Image:
    """Draw the image as the model sees it, and a panel for each destination (Fig. 5.4).

    In a panel the destination is framed in blue and its largest source in red; the brightness of a
    position is its share.

    Args:
        at: destinations as (row, column); None: the four that get most from other positions.

    Raises:
        ModelError: as ``compute_assembly_weights``; also a destination outside the map.
    """
    weights = compute_assembly_weights(model, image)
    side = len(weights)
    if at is None:
        own = np.einsum("ijij->ij", weights).ravel()
        at = [divmod(int(k), side) for k in own.argsort(kind="stable")[:4]]
    for row, column in at:
        if not (0 <= row < side and 0 <= column < side):
            raise ModelError(
                f"position {row},{column} is outside the map of {side} x {side} positions; "
                f"rows and columns count from 0 to {side - 1}"
            )
    pixels = 255 * next(decode_images(image, model.prepare_image)).permute(1, 2, 0).numpy()
    seen = Image.fromarray(pixels.round().astype(np.uint8)).resize(
        (PANEL, PANEL), Image.Resampling.BICUBIC
    )
    panels = [_draw_panel(seen, "destinations", side, at, [])]
    for place in at:
        shares = weights[place]
        source = divmod(int(shares.argmax()), side)
        bright = Image.fromarray((255 * (0.2 + 0.8 * shares / shares.max())).astype(np.uint8))
        mask = bright.resize((PANEL, PANEL), Image.Resampling.NEAREST)
        lit = Image.composite(seen, Image.new("RGB", seen.size), mask)
        text = f"{place}: {shares.max():.0%} from {source}"
        panels.append(_draw_panel(lit, text, side, [place], [source]))
    columns = min(len(panels), COLUMNS)
    width, height = PANEL + GAP, PANEL + CAPTION + GAP
    sheet = Image.new(
        "RGB", (columns * width - GAP, -(-len(panels) // columns) * height - GAP), "white"
    )
    for number, panel in enumerate(panels):
        sheet.paste(panel, (number % columns * width, number // columns * height))
    return sheet


def _draw_panel(
    picture: Image.Image,
    text: str,
    side: int,
    destinations: Sequence[tuple[int, int]],
    sources: Sequence[tuple[int, int]],
) -> Image.Image:
    """Draw frames around positions of a picture, and a line of text below it."""
    panel = Image.new("RGB", (PANEL, PANEL + CAPTION), "white")
    panel.paste(picture)
    pen, cell = ImageDraw.Draw(panel), PANEL / side
    for places, colour, inset in ((destinations, DESTINATION, 0), (sources, SOURCE, 3)):
        for row, column in places:
            corner = (column * cell + inset, row * cell + inset)
            end = ((column + 1) * cell - 1 - inset, (row + 1) * cell - 1 - inset)
            pen.rectangle((corner, end), outline=colour, width=2)
    pen.text((2, PANEL + 2), text, fill="black")
    return panel
