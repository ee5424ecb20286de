"""Computes a model's outputs for a set of images, in evaluation mode, in all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from fewlabels.data.cached_features import CachedFeatures
from fewlabels.data.pixels import Pixels
from fewlabels.models.insert import without_blocks
from fewlabels.models.modes import evaluating

BACKBONE = "backbone"
"""A field beside those of Output: the features that the backbone gives without the blocks in it."""


@torch.no_grad()
def extract_fields(
    accelerator: Accelerator,
    model: nn.Module,
    pixels: Pixels,
    image_size: int,
    fields: Sequence[str] = ("embedding",),
    batch: int = 128,
    workers: int = 0,
    rows: np.ndarray | None = None,
) -> list[np.ndarray]:
    """The named fields of a model's Output for every image, or its :data:`BACKBONE`.

    Args:
        rows: positions (N,) of the images that are wanted; None is all.

    Returns:
        (N, D) float32 each, in the order of ``rows`` and the same in every process.
    """
    processes, rank = accelerator.num_processes, accelerator.process_index
    wanted = np.arange(len(pixels)) if rows is None else rows
    share = -(-len(wanted) // processes)
    # Every process takes a stretch of equal length; the last image stands in past the end.
    mine = wanted[np.minimum(np.arange(rank * share, (rank + 1) * share), len(wanted) - 1)]
    positions = [mine[i : i + batch].tolist() for i in range(0, share, batch)]
    found: dict[str, list[Tensor]] = {name: [] for name in fields}
    hidden = True if not accelerator.is_main_process else None
    loader = pixels.iterate_evaluation(positions, workers, image_size)
    with evaluating(model):
        for images in tqdm(loader, "embed", len(positions), disable=hidden, leave=False):
            images = images.to(accelerator.device)
            images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
            with accelerator.autocast():
                output = plain = model(images)
                if BACKBONE in fields:
                    with without_blocks(model) as has_blocks:
                        plain = model(images) if has_blocks else output
            for name in fields:
                value = plain.features if name == BACKBONE else getattr(output, name)
                if name == BACKBONE and isinstance(pixels, CachedFeatures):
                    value = images.flatten(1)
                found[name].append(value.float())
    gathered = [accelerator.gather(torch.cat(found[name])) for name in fields]
    return [value[: len(wanted)].cpu().numpy() for value in gathered]


class Extractor:
    """Extracts from one set of images by a model's name: ``extractor("student", ["features"])``.

    Args:
        find_model: gives the unwrapped module of a name.
        batch: images at once, in each process.
        workers: processes that decode what is not kept in memory.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        find_model: Callable[[str], nn.Module],
        pixels: Pixels,
        image_size: int,
        batch: int = 128,
        workers: int = 0,
    ) -> None:
        self.accelerator, self.find_model, self.pixels = accelerator, find_model, pixels
        self.image_size, self.batch, self.workers = image_size, batch, workers

    def __call__(
        self, model: str, fields: Sequence[str], rows: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """As :func:`extract_fields`."""
        return extract_fields(
            self.accelerator,
            self.find_model(model),
            self.pixels,
            self.image_size,
            fields,
            self.batch,
            self.workers,
            rows,
        )
